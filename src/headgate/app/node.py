"""The node process: replicas, the reconcile loop and the link to the gateways, built and run until told to stop."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvloop

from headgate.app.house import House
from headgate.app.learning import Learning
from headgate.app.plan import build_plan, ensure_models
from headgate.app.processes import load_applied, log_to_stderr
from headgate.config import parse_settings
from headgate.control.budget_record import BudgetRecord
from headgate.control.fleets.local import LocalFleet
from headgate.control.journal import StoreJournal
from headgate.control.node import NodeParts, NodeProcess
from headgate.control.node_plan import NodePlan
from headgate.control.refiner import can_refine, refine_apart
from headgate.core.errors import BadRequest, ConfigError, HeadgateError
from headgate.engines.catalogue import build_engines
from headgate.engines.engine import Engine
from headgate.engines.http import HttpClient
from headgate.evaluation.profiles import find_profile
from headgate.metering.upkeep import forget_old, settle_lost
from headgate.workers.exits import write_private
from headgate.workers.hardware import load_hardware
from headgate.workers.inherited import report_ready
from headgate.workers.logs import keep_logs_small
from headgate.workers.replica import prepare_host

if TYPE_CHECKING:
    from headgate.config import Settings

log = logging.getLogger(__name__)

_UPKEEP_S = 10.0
_FORGET_EVERY = 360  # upkeeps: once an hour
_GONE_S = (
    60.0  # a gateway that has not been connected for so long is dead: a live one comes back in a tenth of a second
)


def run_node() -> int:
    """The node process: everything it needs, built and run until told to stop."""
    settings = load_applied()
    log_to_stderr("node")
    uvloop.run(_node(settings))
    return 0


async def _node(settings: Settings) -> None:
    house = House(settings)
    client = HttpClient(house.clock)
    engines = build_engines(settings.engines, client)
    versions = await asyncio.to_thread(ensure_models, house, settings)
    await asyncio.to_thread(house.registry().sweep)
    journal = StoreJournal(house.database, house.clock, decisions_kept=settings.control.decisions_kept)
    fleet = LocalFleet(
        host=prepare_host(house.places.run, house.places.logs, house.clock, settings.workers),
        engines=engines,
        journal=journal,
        clock=house.clock,
        chance=house.chance,
        free_memory=lambda: load_hardware().memory_bytes_available,
    )
    upkeep = _Upkeep(house, settings)
    learning = Learning(house.database, house.clock, load_hardware())
    record = BudgetRecord(house.database, house.clock)
    node = NodeProcess(
        NodeParts(
            id=house.ids.new(),
            plan=build_plan(settings, versions, engines, house.clock.now(), partial(find_profile, house.database)),
            fleet=fleet,
            journal=journal,
            socket=house.places.node_socket,
            clock=house.clock,
            chance=house.chance,
            ids=house.ids,
            load_plan=_Reload(house, engines),
            down=_stop_house,
            refine=refine_apart if can_refine() else None,
            chores=(upkeep.run, learning.run, record.run, _rotate_logs(house, settings, fleet)),
        )
    )
    budget = node.reconciler.demands.rented.budget
    if (balance := await asyncio.to_thread(record.load)) is not None:
        budget.restore(balance)
    record.watch(budget)
    upkeep.watch(lambda: node.reconciler.demands.names)
    learning.watch(lambda: (node.reconciler.plan, node.reconciler.wakes))
    try:
        await node.run(report_ready)
    finally:
        await client.close()
        house.close()


def _stop_house() -> None:
    """Ask the supervisor, our parent, to take everything down."""
    os.kill(os.getppid(), signal.SIGTERM)


def _rotate_logs(house: House, settings: Settings, fleet: LocalFleet) -> Callable[[], Coroutine[Any, Any, None]]:
    async def rotate() -> None:
        await keep_logs_small(
            house.places.logs,
            settings.workers,
            house.clock,
            lambda: [member.id for member in fleet.members()],
        )

    return rotate


class _Reload:
    """Reads the configuration file again; what is good becomes the configuration in force."""

    def __init__(self, house: House, engines: dict[str, Engine]) -> None:
        self._house = house
        self._engines = engines

    async def __call__(self, params: Mapping[str, Any]) -> NodePlan:
        """The new plan. Raises ConfigError, ModelRefused; then what was in force stays."""
        return await asyncio.to_thread(self._load, params)

    def _load(self, params: Mapping[str, Any]) -> NodePlan:
        house = self._house
        path = params.get("path")
        if path is not None and not isinstance(path, str):
            raise BadRequest("'path' must be the path of a headgate.yaml.", param="path")
        try:
            file = Path(path or house.places.source.read_text(encoding="utf-8"))
            text = file.read_bytes()
        except OSError as error:
            raise ConfigError(f"{error.filename}: cannot be read ({error.strerror}).", param="path") from None
        settings = parse_settings(text, str(file)).model_copy(update={"state": house.places.state})
        _refuse_fixed(house.settings, settings)
        previous, house.settings = house.settings, settings
        try:
            versions = ensure_models(house, settings)
            profile_of = partial(find_profile, house.database)
            plan = build_plan(settings, versions, self._engines, house.clock.now(), profile_of)
        except HeadgateError:
            house.settings = previous
            raise
        write_private(house.places.applied, text)
        write_private(house.places.source, str(file.absolute()).encode())
        return plan


def _refuse_fixed(old: Settings, new: Settings) -> None:
    """Some settings belong to processes that a reload leaves alone. Raises ConfigError naming them."""
    for name in ("gateway", "engines", "store", "workers", "metering"):
        if getattr(old, name) != getattr(new, name):
            raise ConfigError(
                f"{name}: changes here take effect at a restart: `headgate down`, then `headgate up`. "
                "A reload applies pools, models, pipelines, control and registry.",
                param=name,
            )


class _Upkeep:
    """Settles what dead gateways left open in the ledger, and forgets what is old."""

    def __init__(self, house: House, settings: Settings) -> None:
        self._house = house
        self._days = settings.metering.retention_days
        self._seen: dict[str, float] = {}
        self._connected: Callable[[], frozenset[str]] = frozenset

    def watch(self, connected: Callable[[], frozenset[str]]) -> None:
        """`connected` tells the ids of the gateways that are here now."""
        self._connected = connected

    async def run(self) -> None:
        """Until cancelled."""
        clock, turn = self._house.clock, 0
        while True:
            await clock.sleep(_UPKEEP_S)
            turn += 1
            now = clock.monotonic()
            self._seen |= dict.fromkeys(self._connected(), now)
            self._seen = {name: at for name, at in self._seen.items() if now - at < _GONE_S}
            try:
                swept = await asyncio.to_thread(settle_lost, self._house.database, clock, alive=frozenset(self._seen))
                if swept.requests:
                    log.warning("%d requests of a gateway that is gone are marked as lost", swept.requests)
                if turn % _FORGET_EVERY == 1:
                    await asyncio.to_thread(forget_old, self._house.database, clock, retention_days=self._days)
            except HeadgateError as error:
                log.warning("the ledger could not be tidied: %s", error.message)
