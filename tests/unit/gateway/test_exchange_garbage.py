"""A request leaves nothing behind that only the garbage collector could free."""

from __future__ import annotations

import asyncio
import gc
import weakref

from headgate.gateway.exchange import Exchange


async def test_an_exchange_is_freed_when_its_request_ends() -> None:
    async def nothing(*_: object) -> dict[str, object]:
        return {"type": "http.disconnect"}

    scope: dict[str, object] = {"headers": []}

    async def serve() -> weakref.ref[object]:
        exchange = Watched(scope, nothing, nothing, 1.0)  # type: ignore[arg-type]
        exchange.watch()
        exchange.unwatch()
        return weakref.ref(exchange)

    gc.collect()
    gc.disable()
    try:
        kept = await asyncio.create_task(serve())
        await asyncio.sleep(0)
        assert kept() is None
    finally:
        gc.enable()


class Watched(Exchange):
    """With room for a weak reference."""

    __slots__ = ("__weakref__",)
