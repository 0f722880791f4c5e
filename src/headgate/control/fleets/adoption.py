"""What an earlier node left behind: which of its replicas live and are proven, and how the others ended.

A replica proves itself by process id and start time (no later process with its number), by its epoch, which its row
knows too, and by taking the secret on record.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, cast

import orjson

from headgate.allocation.state import Stage
from headgate.control.fleets.fleet import Member
from headgate.control.journal import Journal
from headgate.control.node_plan import PlannedModel
from headgate.core.clock import Clock
from headgate.core.errors import AdoptionRefused
from headgate.core.model import Version
from headgate.engines.engine import Engine, Upstream
from headgate.workers.exits import load_exit
from headgate.workers.readiness import answers
from headgate.workers.record import ReplicaRecord, forget_replica, load_replicas
from headgate.workers.replica import ReplicaHost, ReplicaProcess, discard

log = logging.getLogger(__name__)

_PATIENCE_S = 3.0
_LABEL = "member"
_FACTS = ("pipeline", "model", "version", "engine", "configuration", "pool", "node", "share", "memory_bytes", "slots")

Found = tuple[Member, ReplicaProcess]


def build_label(member: Member, model: PlannedModel) -> dict[str, str]:
    """What a later node must know of a replica, to be kept with its process's record."""
    facts: dict[str, Any] = {name: getattr(member, name) for name in _FACTS}
    facts |= {"devices": member.devices, "context": member.context, "address": member.address}
    facts |= {"format": model.version.format, "task": model.version.task, "since": member.since}
    return {_LABEL: orjson.dumps(facts).decode()}


def move_label(record: ReplicaRecord, member: Member) -> dict[str, str]:
    """The label of a replica that got other devices, or rests."""
    facts = orjson.loads(record.labels.get(_LABEL, "{}"))
    return {_LABEL: orjson.dumps({**facts, "devices": member.devices, "warm": member.stage == "warm"}).decode()}


def read_version(record: ReplicaRecord) -> Version | None:
    """As much of the version on a process's record as a readiness check looks at; None when it is not there."""
    facts = _read_label(record)
    return None if facts is None else _build_version(facts)


async def find_left_behind(
    host: ReplicaHost, engines: Mapping[str, Engine], journal: Journal, clock: Clock
) -> list[Found]:
    """Replicas that live and are proven, with their processes. All other records are cleared, all other rows
    settled.
    """
    rows = await asyncio.to_thread(journal.load_live)
    records = await asyncio.to_thread(load_replicas, host.run)
    found = await asyncio.gather(*(_judge(host, engines, record, rows, clock) for record in records))
    adopted = [one for one in found if one is not None]
    living = {member.id for member, _ in adopted}
    for name, row in rows.items():
        if name not in living:
            _settle(host, journal, row, clock)
    for member, process in adopted:
        log.info("replica %s of %s (pid %d) is adopted", member.id, member.pipeline, process.record.pid)
    return adopted


async def _judge(
    host: ReplicaHost,
    engines: Mapping[str, Engine],
    record: ReplicaRecord,
    rows: Mapping[str, Mapping[str, Any]],
    clock: Clock,
) -> Found | None:
    if not record.alive:
        forget_replica(host.run, record)
        return None
    facts = _read_label(record)
    row = rows.get(record.replica)
    engine = engines.get(facts["engine"]) if facts is not None else None
    # Why a row of another epoch counts and a missing one does not: rows are written behind, a crash may lose one.
    if facts is None or engine is None or (row is not None and row["epoch"] != record.epoch):
        log.warning("replica %s (pid %d) is not known here and is ended", record.replica, record.pid)
        await discard(host, record)
        return None
    version = _build_version(facts)

    async def accepts(proving: ReplicaRecord) -> bool:
        upstream = Upstream(address=facts["address"], secret=proving.secret)
        if await answers(engine, upstream, version, clock, patience_s=_PATIENCE_S):
            return True
        return await _listens(proving.address)

    try:
        process = await ReplicaProcess.adopt(host, record, accepts)
    except AdoptionRefused as refused:
        log.warning("%s; it is ended", refused.message)
        await discard(host, record)
        return None
    # Why its record before its row: rows are written behind, and who rests must not be taken to sit on its devices.
    draining = row is not None and row["state"] == "draining"
    return _build_member(record, facts, "warm" if facts.get("warm") else "draining" if draining else "ready"), process


async def _listens(address: str) -> bool:
    """Whether somebody takes connections there.

    Why that is enough in the end: a replica whose slots are all taken by streams gives no token for minutes, and
    ending it would end them. Its socket lies in a folder that only this user may enter; a loopback port belongs to the
    process that is on record for as long as that lives.
    """
    try:
        if address.startswith("unix:"):
            _, writer = await asyncio.open_unix_connection(address.removeprefix("unix:"))
        else:
            host, _, port = address.removeprefix("http://").rpartition(":")
            _, writer = await asyncio.open_connection(host, int(port))
    except OSError:
        return False
    writer.close()
    return True


def _settle(host: ReplicaHost, journal: Journal, row: Mapping[str, Any], clock: Clock) -> None:
    """Close the row of a replica that is no more, with how it ended if the supervisor saw it."""
    ended = None
    if row["pid"] is not None and row.get("started_ticks") is not None:
        ended = load_exit(host.run / "exits.jsonl", row["pid"], row["started_ticks"])
    journal.record_replica(
        {
            "id": row["id"],
            "state": "failed",
            "stopped_at": ended.at if ended else clock.now(),
            "exit_code": ended.code if ended else None,
            "reason": f"{ended.describe()} while no node was there" if ended else "ended while no node was there",
        }
    )


def _read_label(record: ReplicaRecord) -> dict[str, Any] | None:
    try:
        told: object = orjson.loads(record.labels.get(_LABEL, ""))
    except orjson.JSONDecodeError:
        return None
    facts = cast("dict[str, Any]", told) if isinstance(told, dict) else {}
    wanted = {*_FACTS, "devices", "context", "address", "format", "task", "since"}
    return facts if wanted <= set(facts) else None


def _build_version(facts: Mapping[str, Any]) -> Version:
    """As much of a version as a readiness check looks at."""
    return Version(
        digest=facts["version"],
        format=facts["format"],
        task=facts["task"],
        architecture="",
        parameters=None,
        context=facts["context"],
        bytes=0,
        path="",
    )


def _build_member(record: ReplicaRecord, facts: Mapping[str, Any], stage: Stage) -> Member:
    return Member(
        id=record.replica,
        **{name: facts[name] for name in _FACTS},
        devices=tuple(facts["devices"]),
        context=facts["context"],
        address=facts["address"],
        secret=record.secret,
        epoch=record.epoch,
        stage=stage,
        since=facts["since"],
        pid=record.pid,
        adopted=True,
    )
