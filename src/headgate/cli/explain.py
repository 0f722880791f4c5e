"""`explain`: the last decisions, what each gained and gave up, and one of them made again from its record."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, cast

import typer

from headgate.cli.exits import FAILURE
from headgate.cli.options import AsJson, ConfigFile, StateFolder
from headgate.cli.output import make_table, note, out, print_json, show_time
from headgate.core.clock import SystemClock
from headgate.core.errors import NotRunning, Unavailable

_NOTHING = 1e-6  # a gap that is only rounding
_IN_MEMORY = 200  # decisions that a running node tells


def explain(
    last: Annotated[int, typer.Option("--last", "-n", min=1, max=10_000, help="How many, the newest first.")] = 5,
    pipeline: Annotated[str | None, typer.Option(help="Only decisions that changed this one.")] = None,
    number: Annotated[
        int | None, typer.Option("--replay", help="Make this decision again from its record, and compare.")
    ] = None,
    config: ConfigFile = None,
    state: StateFolder = None,
    as_json: AsJson = False,
) -> None:
    """Say who was given what and why: gains and losses in utility, and the moves. Works while nothing runs, too."""
    from headgate.app.opening import Where

    where = Where(config=config, state=state)
    if number is not None:
        _replay(where, number, as_json)
        return
    found = _load(where, last, pipeline)
    if as_json:
        print_json({"decisions": found})
        return
    for one in found:
        _show(one)
    if not found:
        out.print("No decisions yet: nobody has asked for anything." if pipeline is None else f"None for {pipeline}.")


def _load(where: Any, last: int, pipeline: str | None) -> list[dict[str, Any]]:
    """From the node, which tells most of them; from the database when none answers."""
    from headgate.app.local_admin import LocalAdmin
    from headgate.control.replay import list_changes, load_decisions, value

    places = where.places()

    async def ask() -> Any:
        async with LocalAdmin(places, SystemClock()) as admin:
            return await admin.ask("GET", f"/admin/decisions?limit={_IN_MEMORY}")

    try:
        told = cast("list[dict[str, Any]]", asyncio.run(ask()))
    except (NotRunning, Unavailable):
        told = []
    if pipeline is not None:
        told = [one for one in told if any(change["pipeline"] == pipeline for change in list_changes(one))]
    told = told[:last]
    if len(told) < last:  # a node that was started anew knows few
        with where.house() as house:
            known = {one["number"] for one in told}
            older = [one for one in load_decisions(house.database, last, pipeline) if one["number"] not in known]
            told += [value(house.database, one) for one in older[: last - len(told)]]
    return [{**one, "changes": list_changes(one)} for one in told]


def _show(decision: dict[str, Any]) -> None:
    out.print(f"[bold]{decision['number']}[/]  {show_time(decision['at'])} UTC  {decision['trigger']}")
    table = make_table("  pipeline", ">replicas", ">utility", "why")
    for one in decision["changes"]:
        gained = one.get("gained")
        table.add_row(
            f"  {one['pipeline']}",
            f"{one['before']} -> {one['after']}",
            "-" if gained is None else f"{gained:+.3g}",
            one["reason"],
        )
    out.print(table)
    for text in (_sum(decision), _moves(decision["moves"])):
        if text:
            out.print(f"  {text}", style="dim", markup=False)
    out.print()


def _sum(decision: dict[str, Any]) -> str:
    """What was gained and given up together, and how far from the best it may be."""
    gains = [one["gained"] for one in decision["changes"] if one.get("gained") is not None]
    parts: list[str] = []
    if gains:
        up, down = sum(one for one in gains if one > 0), -sum(one for one in gains if one < 0)
        parts.append(f"gained {up:.3g}, given up {down:.3g}")
    if (gap := decision.get("gap_to_bound")) is not None:
        parts.append("nothing better is possible" if gap < _NOTHING else f"at most {100 * gap:.2g} % below the best")
    if (gap := decision.get("gap_to_exact")) is not None:
        parts.append("proven to be the best" if gap < _NOTHING else f"solved exactly: {100 * gap:.2g} % at most")
    if prices := decision.get("prices"):
        parts.append(f"price of one more device: {_prices(prices)}")
    return "; ".join(parts)


def _prices(prices: Any) -> str:
    if isinstance(prices, dict):
        told = cast("dict[str, Any]", prices)
        return ", ".join(f"{name} {_price(value)}" for name, value in told.items())
    return ", ".join(_price(value) for value in cast("list[Any]", prices))


def _price(value: Any) -> str:
    return "/".join(_price(one) for one in cast("list[Any]", value)) if isinstance(value, list) else f"{value:.3g}"


def _moves(moves: list[dict[str, Any]]) -> str:
    """The moves in words: 'start a on cpu (0, 1), drain b'."""
    told: list[str] = []
    for one in moves:
        where = f" on {one['pool']} ({', '.join(str(number) for number in one['devices'])})" if "pool" in one else ""
        after = f" once {len(one['after'])} left" if one.get("after") else ""
        told.append(f"{str(one['kind']).replace('_', ' ')} {one['pipeline']}{where}{after}")
    return f"moves: {', '.join(told)}" if told else ""


def _replay(where: Any, number: int, as_json: bool) -> None:
    from dataclasses import asdict

    from headgate.control.replay import load_decision, replay

    with where.house() as house:
        decision = load_decision(house.database, number)
    found = replay(decision)
    allocation = found.allocation
    changes = [asdict(one) for one in allocation.changes] if allocation else []
    if as_json:
        told = {"number": number, "same": found.same, "recorded": found.recorded, "again": found.again}
        print_json({**told, "changes": changes, "gap_to_bound": allocation.gap_to_bound if allocation else None})
    else:
        gap = allocation.gap_to_bound if allocation else None
        if found.same:
            _show({**decision, "changes": changes, "gap_to_bound": gap})
            out.print(f"Decision {number}, made again from its record, is the same byte for byte.")
        else:
            out.print(f"Decision {number}, made again from its record, is another one.", style="bold red")
            out.print(f"  recorded: {found.recorded}\n  again:    {found.again}", markup=False)
            note("It was made by another version of Headgate, or with other settings.")
    if not found.same:
        raise typer.Exit(FAILURE)
