"""The gateway process: everything it needs, built and run until told to stop."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import uvloop

from headgate.app.house import House
from headgate.app.processes import calm_collector, load_applied, log_to_stderr, raise_file_limit
from headgate.core.errors import HeadgateError
from headgate.core.principal import Principal
from headgate.engines.catalogue import build_engines
from headgate.engines.http import HttpClient
from headgate.gateway.access import Access
from headgate.gateway.admin import add_admin_api
from headgate.gateway.door import Door
from headgate.gateway.endpoints import Desk
from headgate.gateway.metrics import Metrics
from headgate.gateway.process import GatewayProcess
from headgate.metering.ledger import Ledger
from headgate.serving.dispatch import Dispatcher
from headgate.serving.node_link import NodeLink
from headgate.serving.passage import Serving
from headgate.store.keys import find_key, touch_keys
from headgate.workers.inherited import load_sockets, report_ready

if TYPE_CHECKING:
    from headgate.config import Settings

log = logging.getLogger(__name__)

_NOTE_S = 10.0


def run_gateway() -> int:
    """The gateway process: everything it needs, built and run until told to stop."""
    settings = load_applied()
    log_to_stderr("gateway")
    raise_file_limit()
    uvloop.run(_gateway(settings))
    return 0


async def _gateway(settings: Settings) -> None:

    sockets = load_sockets()
    house = House(settings)
    gateway_id = house.ids.new()
    wake = asyncio.Event()
    client = HttpClient(house.clock)
    engines = build_engines(settings.engines, client)
    dispatcher = Dispatcher(house.clock, wake.set, client.forget)
    ledger = Ledger(
        house.database, house.ids, house.clock, gateway=gateway_id, waiting_rows=settings.metering.waiting_rows
    )
    ledger.start()
    access = Access(_key_finder(house), house.pepper(), house.clock, house.chance)
    desk = Desk(
        serving=Serving(dispatcher=dispatcher, engines=engines, ledger=ledger, clock=house.clock),
        access=access,
        metrics=Metrics(dispatcher, os.environ.get("PROMETHEUS_MULTIPROC_DIR")),
        settings=settings.gateway,
        ids=house.ids,
        clock=house.clock,
    )
    link = NodeLink(str(house.places.node_socket), gateway_id, os.getpid(), house.clock, dispatcher.apply)
    door = Door(desk)
    add_admin_api(door, desk, link)
    process = GatewayProcess(
        id=gateway_id,
        pid=os.getpid(),
        door=door,
        dispatcher=dispatcher,
        link=link,
        settings=settings.gateway,
        clock=house.clock,
        wake=wake,
    )

    noting = asyncio.create_task(_note_used_keys(house, access))

    async def close() -> None:
        noting.cancel()
        await client.close()
        await asyncio.to_thread(ledger.close)
        house.close()

    calm_collector()
    await process.run(sockets, report_ready, close)


async def _note_used_keys(house: House, access: Access) -> None:
    """Put on record, now and then, when keys were last used; off the way of requests."""
    while True:
        await house.clock.sleep(_NOTE_S)
        if used := access.take_used():
            try:
                await asyncio.to_thread(touch_keys, house.database, used)
            except HeadgateError as error:
                log.warning("when keys were last used is not on record: %s", error.message)


def _key_finder(house: House) -> Callable[[str], Principal | None]:

    def find(key_hash: str) -> Principal | None:
        row = find_key(house.database, key_hash)
        return row.principal if row is not None and row.active(house.clock.now()) else None

    return find
