"""The one language between the node and its gateways on run/node.sock: values of core as JSON lines.

One orjson object a line, told apart by `kind`. Unknown fields are skipped, so that a node and a gateway of
neighbouring versions understand each other during an upgrade. Secrets are revealed here and only here: the
socket is 0600. Knows nothing of sockets or of who speaks.

    gateway -> node    hello, load, ask
    node -> gateway    table, reply
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any, TypeVar, cast

import orjson

from headgate.core import errors
from headgate.core.errors import HeadgateError
from headgate.core.secret import Secret
from headgate.core.table import LoadReport, PipelineLoad, PipelineRoute, ReplicaLoad, ReplicaRoute, RoutingTable

MAX_LINE_BYTES = 16 * 2**20  # a table of some 30,000 replicas; give it to asyncio's stream reader as its limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """A gateway's first line: its id and process id."""

    gateway: str
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A question to the node. `id` comes back in the Reply."""

    id: int
    method: str
    params: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The node's answer to one Ask: `result`, or the `error` it ended with."""

    id: int
    result: Any = None
    error: HeadgateError | None = None

    def unwrap(self) -> Any:
        """The result. Raises the error the node answered with, as the class it was raised as there."""
        if self.error is not None:
            raise self.error
        return self.result


Said = dict[str, Any]
Message = Hello | LoadReport | Ask | RoutingTable | Reply


def encode(message: Message) -> bytes:
    """`message` as one line, newline included.

    Raises TypeError when an Ask's params or a Reply's result hold something JSON has no word for.
    """
    if type(message) is RoutingTable:
        return orjson.dumps(_table_fields(message), default=_reveal, option=orjson.OPT_APPEND_NEWLINE)
    if type(message) is Reply:
        said: dict[str, Any] = {"kind": "reply", "id": message.id}
        if message.error is None:
            said["result"] = message.result
        else:
            said["error"] = _error_fields(message.error)
        return orjson.dumps(said, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS)
    kind = _KINDS[type(message)]
    content = {name: getattr(message, name) for name in _NAMES[type(message)]}
    return orjson.dumps({"kind": kind, **content}, option=orjson.OPT_APPEND_NEWLINE)


def decode(line: bytes | bytearray | memoryview) -> Message:
    """The message that one line holds.

    Raises ValueError when it holds none; the line itself is never in the error's text.
    """
    try:
        loaded: object = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"a line on the node's socket is not JSON ({error.msg} at byte {error.pos})") from None
    if not isinstance(loaded, dict):
        raise ValueError("a line on the node's socket is not a JSON object")
    said = cast("Said", loaded)
    decoder = _DECODERS.get(str(said.get("kind")))
    if decoder is None:
        raise ValueError("a line on the node's socket has an unknown kind; are node and gateway of one version?")
    try:
        return decoder(said)
    except (TypeError, KeyError, AttributeError) as error:
        # The exception's text may quote values (a secret, say); its class is enough to find the fault.
        raise ValueError(f"a {said['kind']} line misses a field or has a wrong type ({type(error).__name__})") from None


def _table_fields(table: RoutingTable) -> dict[str, Any]:
    return {
        "kind": "table",
        "node": table.node,
        "number": table.number,
        "pipelines": table.pipelines,
        "replicas": table.replicas,
    }


def _reveal(value: object) -> str:
    if isinstance(value, Secret):
        return value.reveal()
    raise TypeError(f"{type(value).__name__} has no place on the link")


def _error_fields(error: HeadgateError) -> dict[str, Any]:
    return {
        "type": type(error).__name__,
        "message": error.message,
        "param": error.param,
        "retry_after_s": error.retry_after_s,
        "code": error.code,
    }


def _decode_error(said: dict[str, Any]) -> HeadgateError:
    found = getattr(errors, str(said.get("type")), HeadgateError)
    known = found if isinstance(found, type) and issubclass(found, HeadgateError) else HeadgateError
    return known(
        said["message"],
        param=said.get("param"),
        retry_after_s=said.get("retry_after_s"),
        code=said.get("code"),
    )


def _decode_reply(said: dict[str, Any]) -> Reply:
    error = said.get("error")
    return Reply(id=said["id"], result=said.get("result"), error=None if error is None else _decode_error(error))


def _decode_table(said: dict[str, Any]) -> RoutingTable:
    replicas = {
        name: _build(ReplicaRoute, {**route, "secret": Secret(route["secret"])})
        for name, route in said["replicas"].items()
    }
    pipelines = {
        name: _build(PipelineRoute, {**route, **{many: tuple(route.get(many, ())) for many in ("versions", "engines")}})
        for name, route in said["pipelines"].items()
    }
    return RoutingTable(node=said["node"], number=said["number"], pipelines=pipelines, replicas=replicas)


def _decode_load(said: dict[str, Any]) -> LoadReport:
    pipelines = {name: _build(PipelineLoad, load) for name, load in said["pipelines"].items()}
    replicas = {name: _build(ReplicaLoad, load) for name, load in said.get("replicas", {}).items()}
    suspects = tuple(said.get("suspects", ()))
    return _build(LoadReport, {**said, "pipelines": pipelines, "suspects": suspects, "replicas": replicas})


Value = TypeVar("Value", Hello, Ask, LoadReport, PipelineLoad, PipelineRoute, ReplicaLoad, ReplicaRoute)


def _build(kind: type[Value], said: dict[str, Any]) -> Value:
    names = _NAMES[kind]
    return kind(**{name: value for name, value in said.items() if name in names})


_KINDS: dict[type[Any], str] = {Hello: "hello", LoadReport: "load", Ask: "ask"}
_NAMES: dict[type[Any], frozenset[str]] = {
    kind: frozenset(one.name for one in fields(kind))
    for kind in (Hello, Ask, LoadReport, PipelineLoad, PipelineRoute, ReplicaLoad, ReplicaRoute)
}
_DECODERS: dict[str, Callable[[Said], Message]] = {
    "hello": partial(_build, Hello),
    "ask": partial(_build, Ask),
    "load": _decode_load,
    "table": _decode_table,
    "reply": _decode_reply,
}
