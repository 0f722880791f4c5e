"""The least that a proxy in Python can do: take a JSON body, send it to a replica, give back what comes.

No keys, no queue, no ledger, no checks. `python -m benchmarks.starlette_proxy PORT ADDRESS SECRET CLIENT`, where CLIENT
is `aiohttp` or `own` (Headgate's own client, the harder yardstick).
"""

from __future__ import annotations

import sys

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


def build(address: str, secret: str, client: str) -> Starlette:
    """The proxy as an application."""
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {secret}"}
    kept: dict[str, object] = {}

    async def with_aiohttp(request: Request) -> Response:
        import aiohttp

        if not kept:
            connector = aiohttp.UnixConnector(address.removeprefix("unix:"), limit=0)
            kept["session"] = aiohttp.ClientSession(connector=connector)
        session = kept["session"]
        assert isinstance(session, aiohttp.ClientSession)
        async with session.post(
            "http://replica/v1/chat/completions", data=await request.body(), headers=headers
        ) as answer:
            return Response(await answer.read(), answer.status, media_type="application/json")

    async def with_own(request: Request) -> Response:
        from headgate.core.clock import SystemClock
        from headgate.engines.http import HttpClient

        if not kept:
            kept["client"] = HttpClient(SystemClock())
        own = kept["client"]
        assert isinstance(own, HttpClient)
        body = await request.body()
        async with own.request("POST", address, "/v1/chat/completions", tuple(headers.items()), body) as answer:
            return Response(await answer.read(), answer.status, media_type="application/json")

    endpoint = with_aiohttp if client == "aiohttp" else with_own
    return Starlette(routes=[Route("/v1/chat/completions", endpoint, methods=["POST"])])


if __name__ == "__main__":
    port, address, secret, client = sys.argv[1:]
    app = build(address, secret, client)
    uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="warning", access_log=False)
