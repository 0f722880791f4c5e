"""docs/reference/http.md: every route, field and header of the HTTP API."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

from pydantic import BaseModel

from headgate.core.chat import Kind
from headgate.core.clock import SystemClock
from headgate.engines.catalogue import build_engines
from headgate.engines.http import HttpClient
from headgate.engines.settings import EnginesSettings
from headgate.gateway.admin import add_admin_api
from headgate.gateway.door import Door
from headgate.gateway.wire.chat import ChatRequest
from headgate.gateway.wire.completions import CompletionRequest
from headgate.gateway.wire.embeddings import EmbeddingRequest
from headgate.gateway.wire.responses import ResponseRequest
from tools.reference.http_texts import HEADERS, INTRO, ROUTES
from tools.reference.markdown import NOTE, code, table

_BODIES: dict[str, tuple[Kind, type[BaseModel]]] = {
    "/v1/chat/completions": ("chat", ChatRequest),
    "/v1/completions": ("completion", CompletionRequest),
    "/v1/embeddings": ("embedding", EmbeddingRequest),
    "/v1/responses": ("chat", ResponseRequest),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One route and who may ask it."""

    method: str
    path: str
    roles: str


class _ListedDoor(Door):
    """A door that remembers what it serves."""

    def __init__(self, desk: Any) -> None:
        self.listed: list[Route] = []
        super().__init__(desk)

    def _add(
        self, method: str, path: str, roles: tuple[str, ...] | None, answer: Any, *more: Any, **named: Any
    ) -> None:
        who = "anybody" if roles is None else ", ".join((*roles, "admin"))
        self.listed.append(Route(method=method, path=path, roles=who))
        super()._add(method, path, cast("Any", roles), answer, *more, **named)


def list_routes() -> list[Route]:
    """Every route of the door, by path."""
    desk = cast("Any", SimpleNamespace(settings=None, ids=None, clock=None, metrics=None, serving=None, access=None))
    door = _ListedDoor(desk)
    add_admin_api(door, desk, cast("Any", SimpleNamespace()))
    known = {route.path for route in door.listed}
    posts = [Route(method="POST", path=path, roles="user, admin") for path in door.paths if path not in known]
    return sorted((*door.listed, *posts), key=lambda route: (route.path.startswith("/admin"), route.path, route.method))


def list_fields(path: str) -> Iterator[tuple[str, str]]:
    """The fields of a POST body, and the engines in which each has an effect."""
    kind, model = _BODIES[path]
    engines = build_engines(EnginesSettings(), HttpClient(SystemClock()))
    names = {field.alias or name for name, field in model.model_fields.items()}
    honoured = {name: engine.honours(kind) for name, engine in sorted(engines.items())}
    if path == "/v1/responses":
        own = names - {"temperature", "top_p"}
    else:
        own = names & {"model", "stream", "stream_options", "n", "user"}
        names = names.union(*honoured.values())
    for name in sorted(names):
        where = [engine for engine, fields in honoured.items() if name in fields]
        yield name, "all" if name in own or len(where) == len(honoured) else ", ".join(where) or "none"


def build_http_page() -> str:
    """The page."""
    routes = [
        (code(f"{route.method} {route.path}"), route.roles, ROUTES.get((route.method, route.path), ""))
        for route in list_routes()
    ]
    parts = [NOTE, INTRO, "## Routes\n", table(("route", "roles", "what it does"), routes)]
    parts += ["## Headers of answers\n", table(("header", "what it says"), [(code(k), v) for k, v in HEADERS.items()])]
    for path in _BODIES:
        rows = [(code(name), where) for name, where in list_fields(path)]
        parts.append(f"## Fields of `{path}`\n\nWhere each field has an effect, by engine.\n")
        parts.append(table(("field", "honoured by"), rows))
    return "\n".join(parts)
