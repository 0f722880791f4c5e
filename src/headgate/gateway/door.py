"""The ASGI applications of a gateway: one behind the network door, the same behind the local admin socket.

Deny by default: a path that is not in the table does not exist, and every endpoint names who may ask.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import orjson

from headgate import __version__
from headgate.core.errors import HeadgateError, MethodNotAllowed, NotFound, Unavailable
from headgate.core.principal import LOCAL_ADMIN, Principal, Role
from headgate.gateway import metrics
from headgate.gateway.access import require
from headgate.gateway.endpoints import Desk, Endpoint, read_chat, read_completion, read_embedding, read_response
from headgate.gateway.exchange import JSON, Exchange, Receive, Scope, Send
from headgate.gateway.node_metrics import Look, load_node_metrics
from headgate.gateway.openapi import openapi_bytes

Application = Callable[[Scope, Receive, Send], Awaitable[None]]
Answer = Callable[[Exchange, dict[str, str]], Awaitable[tuple[bytes, bytes]]]
"""What a small endpoint does: from exchange and path parameters to content type and body."""


class Door:
    """Routes a request to its endpoint. Exact paths in a dict; a path's last step may be a parameter."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._look: Look | None = None
        self._routes: dict[str, Application] = {
            "/v1/chat/completions": Endpoint(desk, "chat", read_chat),
            "/v1/completions": Endpoint(desk, "completion", read_completion),
            "/v1/embeddings": Endpoint(desk, "embedding", read_embedding),
            "/v1/responses": Endpoint(desk, "chat", read_response),
        }
        self._add("GET", "/health", None, self._health)
        self._add("GET", "/openapi.json", None, self._openapi)
        self._add("GET", "/metrics", ("scrape",), self._metrics)
        self._add("GET", "/v1/models", ("user",), self._models)
        self._add("GET", "/v1/models/{name}", ("user",), self._model)

    def add_admin(self, method: str, path: str, answer: Answer) -> None:
        """Serve an endpoint for admins only."""
        self._add(method, path, (), answer)

    def add_node(self, look: Look) -> None:
        """Tell in /metrics also what the node decides; `look` asks for its state."""
        self._look = look

    @property
    def paths(self) -> list[str]:
        """Every path that exists."""
        return sorted(self._routes)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Answer one request."""
        if scope["type"] != "http":
            raise RuntimeError(f"a gateway speaks http, not {scope['type']}")
        path: str = scope["path"]
        route = self._routes.get(path)
        if route is None:
            parent, _, last = path.rpartition("/")
            route = (self._routes.get(parent + "/{name}") if last else None) or self._unknown
        return route(scope, receive, send)

    async def _unknown(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, receive, send, self._desk.settings.stalled_client_s)
        await exchange.answer_error(
            NotFound("This path does not exist. The API begins at /v1; `GET /v1/models` is a good start."),
            [(b"x-request-id", self._desk.ids.new().encode())],
        )

    def _add(self, method: str, path: str, roles: tuple[Role, ...] | None, answer: Answer) -> None:
        """Serve a small endpoint; `roles` None lets everybody in, () admins only."""
        desk = self._desk
        others = self._routes.get(path)

        async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
            asked = "GET" if scope["method"] == "HEAD" else scope["method"]  # the server leaves HEAD's body out
            if asked != method and others is not None:
                await others(scope, receive, send)
                return
            exchange = Exchange(scope, receive, send, desk.settings.stalled_client_s)
            headers = [(b"x-request-id", desk.ids.new().encode())]
            try:
                if asked != method:
                    allow = "GET, HEAD" if method == "GET" else method
                    raise MethodNotAllowed(f"This path takes {allow}.", allow=allow)
                if roles is not None:
                    require(_principal(desk, scope), *roles)
                kind, body = await answer(exchange, {"name": scope["path"].rpartition("/")[2]})
            except HeadgateError as error:
                await exchange.answer_error(error, headers)
                return
            await exchange.answer(200, body, [*headers, (b"content-type", kind)])

        self._routes[path] = endpoint

    async def _health(self, exchange: Exchange, parameters: dict[str, str]) -> tuple[bytes, bytes]:
        table = self._desk.serving.dispatcher.table
        if table is None:
            raise Unavailable("The gateway has no routing table yet.", retry_after_s=1.0)
        fault = self._desk.serving.ledger.fault
        if fault is not None:
            raise Unavailable(fault, retry_after_s=5.0)
        return JSON[1], orjson.dumps({"status": "ok", "version": __version__})

    async def _openapi(self, exchange: Exchange, parameters: dict[str, str]) -> tuple[bytes, bytes]:
        return JSON[1], openapi_bytes()

    async def _metrics(self, exchange: Exchange, parameters: dict[str, str]) -> tuple[bytes, bytes]:
        node = await load_node_metrics(self._look, self._desk.clock) if self._look else b""
        return metrics.CONTENT_TYPE, self._desk.metrics.render() + node

    async def _models(self, exchange: Exchange, parameters: dict[str, str]) -> tuple[bytes, bytes]:
        models = [self._model_object(lane.route.name) for lane in self._desk.serving.dispatcher.lanes]
        return JSON[1], orjson.dumps({"object": "list", "data": models})

    async def _model(self, exchange: Exchange, parameters: dict[str, str]) -> tuple[bytes, bytes]:
        return JSON[1], orjson.dumps(self._model_object(parameters["name"]))

    def _model_object(self, name: str) -> dict[str, Any]:
        """A pipeline as OpenAI shows models. The catalogue does not depend on what is awake."""
        route = self._desk.serving.dispatcher.lane(name).route
        return {
            "id": route.name,
            "object": "model",
            "created": route.created,
            "owned_by": "headgate",
            "headgate": {
                "task": route.task,
                "context": route.context,
                "version": route.version,
                "versions": list(dict.fromkeys(route.versions or (route.version,))),
                "engine": route.engine,
                "leaves_walls": route.leaves_walls,
            },
        }


class LocalDoor:
    """The door behind the 0600 admin socket: who may open that file is an admin, without a key."""

    def __init__(self, door: Door) -> None:
        self._door = door

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Answer one request of the local admin."""
        scope["headgate.principal"] = LOCAL_ADMIN
        return self._door(scope, receive, send)


def _principal(desk: Desk, scope: Scope) -> Principal:
    return scope.get("headgate.principal") or desk.access.principal(scope["headers"])
