"""Decisions read back from the journal, and made again from the state they were made from. Changes nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import select

from headgate.allocation.policy import decide
from headgate.allocation.recording import build_state, plain_allocation, seal_allocation
from headgate.allocation.state import Allocation, Change
from headgate.core.errors import NotFound
from headgate.store.database import Database
from headgate.store.schema import decisions

_CHANGE = re.compile(r"(?P<pipeline>\S+) (?P<before>\d+) -> (?P<after>\d+): (?P<reason>.*)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """A decision as it was recorded and as it is made again. `allocation` is None when the state is of another version.

    `same`: the whole answer is the same byte for byte, by its seal; of a decision without one its changes are.
    """

    number: int
    same: bool
    recorded: str
    again: str
    allocation: Allocation | None


def load_decisions(db: Database, limit: int, pipeline: str | None = None) -> list[dict[str, Any]]:
    """The newest decisions first, without their states, those of `pipeline` only where it is named.

    Raises StoreUnavailable, StoreRefused.
    """
    columns = [column for column in decisions.c if column.name not in ("id", "state", "seal")]
    statement = select(*columns).order_by(decisions.c.number.desc())
    found: list[dict[str, Any]] = []
    with db.read() as connection:
        for row in connection.execution_options(yield_per=100).execute(statement).mappings():
            told = {str(name): value for name, value in row.items()}
            if pipeline is None or any(one["pipeline"] == pipeline for one in list_changes(told)):
                found.append(told)
            if len(found) >= limit:
                break
    return found


def load_decision(db: Database, number: int) -> dict[str, Any]:
    """One decision with its state. Raises NotFound, StoreUnavailable, StoreRefused."""
    with db.read() as connection:
        row = connection.execute(select(decisions).where(decisions.c.number == number)).mappings().first()
    if row is None:
        raise NotFound(f"There is no decision {number} on record; `headgate explain` lists the last ones.")
    return {str(name): value for name, value in row.items()}


def list_changes(decision: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A decision's changes: pipeline, before, after, reason, and gained where it was told; else its text is read."""
    if decision.get("changes"):
        return [dict(one) for one in cast("Sequence[Mapping[str, Any]]", decision["changes"])]
    changes: list[dict[str, Any]] = []
    for part in str(decision["reason"]).split("; "):
        match = _CHANGE.fullmatch(part)
        if match is not None:
            changes.append(
                {
                    "pipeline": match["pipeline"],
                    "before": int(match["before"]),
                    "after": int(match["after"]),
                    "reason": match["reason"],
                }
            )
        elif changes:  # a reason that has a semicolon of its own
            changes[-1]["reason"] += f"; {part}"
    return changes


def value(db: Database, decision: Mapping[str, Any]) -> dict[str, Any]:
    """The decision with what its changes gained, gap and prices, made again where they are not on record.

    One that comes out otherwise today is told as it was recorded. Raises as load_decision.
    """
    changes = list_changes(decision)
    if all("gained" in one for one in changes):
        return {**decision, "changes": changes}
    found = replay(load_decision(db, int(decision["number"])))
    if not found.same or found.allocation is None:
        return {**decision, "changes": changes}
    made = plain_allocation(found.allocation)
    return {**decision, **{name: made[name] for name in ("changes", "gap_to_bound", "prices")}}


def tell_changes(changes: Sequence[Change]) -> str:
    """The text by which a decision's changes are recorded."""
    return "; ".join(f"{one.pipeline} {one.before} -> {one.after}: {one.reason}" for one in changes)


def replay(decision: Mapping[str, Any]) -> Replay:
    """The decision made again from its recorded state."""
    number, recorded = int(decision["number"]), str(decision["reason"])
    try:
        state = build_state(cast("dict[str, Any]", decision["state"]))
    except ValueError as error:
        return Replay(number=number, same=False, recorded=recorded, again=str(error), allocation=None)
    allocation = decide(state)
    again = tell_changes(allocation.changes)
    same = again == recorded and decision.get("seal") in (None, seal_allocation(allocation))
    return Replay(number=number, same=same, recorded=recorded, again=again, allocation=allocation)
