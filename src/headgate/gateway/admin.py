"""The admin API: what operators ask of a running Headgate. For admins only, over the door or the local socket."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

import orjson

from headgate import __version__
from headgate.gateway.door import Door
from headgate.gateway.endpoints import Desk
from headgate.gateway.exchange import JSON, Exchange
from headgate.gateway.wire.body import parse_object
from headgate.serving.node_link import NodeLink

_BODY_LIMIT = 64 * 1024


def add_admin_api(door: Door, desk: Desk, link: NodeLink) -> None:
    """Serve /admin/status, /admin/decisions and /admin/reload on `door`, and the node's state in its /metrics."""

    async def look() -> dict[str, Any]:
        return await link.ask("status")

    async def status(exchange: Exchange, parameters: dict[str, str]) -> tuple[bytes, bytes]:
        node = await look() if link.connected else {"node": "restarting"}
        return JSON[1], orjson.dumps({"version": __version__, **node, "gateway": _gateway_status(desk)})

    async def decisions(exchange: Exchange, parameters: dict[str, str]) -> tuple[bytes, bytes]:
        limit = dict(parse_qsl(exchange.scope["query_string"].decode("latin-1"))).get("limit", "20")
        params = {"limit": int(limit) if limit.isascii() and limit.isdigit() and len(limit) < 10 else limit}
        return JSON[1], orjson.dumps(await link.ask("decisions", params))

    async def reload(exchange: Exchange, parameters: dict[str, str]) -> tuple[bytes, bytes]:
        body = await exchange.read_body(_BODY_LIMIT)
        params = parse_object(body) if body else {}
        return JSON[1], orjson.dumps(await link.ask("reload", params))

    door.add_node(look)
    door.add_admin("GET", "/admin/status", status)
    door.add_admin("GET", "/admin/decisions", decisions)
    door.add_admin("POST", "/admin/reload", reload)


def _gateway_status(desk: Desk) -> dict[str, Any]:
    """This gateway's own view: queues, what is in flight, the ledger's state."""
    lanes = desk.serving.dispatcher.lanes
    return {
        "table": desk.serving.dispatcher.table.number if desk.serving.dispatcher.table else None,
        "tls": desk.settings.tls is not None,
        "ledger_waiting": desk.serving.ledger.waiting,
        "ledger_fault": desk.serving.ledger.fault,
        "pipelines": {lane.route.name: {"queued": len(lane.waiting), "in_flight": lane.in_flight} for lane in lanes},
    }
