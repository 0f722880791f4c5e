"""What a supervisor is to run, as the app writes it and the supervisor reads it: JSON between two processes.

NamedTuples and not pydantic or dataclasses, because the supervisor stays small by loading neither.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from headgate.core.errors import ConfigError


class TcpListener(NamedTuple):
    """A TCP address to listen on; port 0 takes a free one. `name` is how children find the socket."""

    name: str
    host: str
    port: int


class UnixListener(NamedTuple):
    """A Unix socket to listen on, open to this user only."""

    name: str
    path: str


class Supervised(NamedTuple):
    """A child to keep running.

    `role` is 'gateway' (stopped first, replaced without a gap) or 'node' (stopped last, one at a time);
    `sockets` names the listeners it gets; `log` is the file that its output is appended to (None: the
    supervisor's own output). `leave_signal` (a name such as 'SIGUSR2') asks it to go while the house stays
    up, which for a node means that its replicas live on; it is also what the kernel sends when the supervisor
    dies. SIGTERM always asks it to stop for good, replicas included.
    """

    name: str
    role: str
    argv: tuple[str, ...]
    sockets: tuple[str, ...] = ()
    environment: Mapping[str, str] = MappingProxyType({})
    log: str | None = None
    leave_signal: str = "SIGTERM"


class Spec(NamedTuple):
    """One house: where its state lies, what it listens on, whom it starts, how patient it is (seconds).

    `drain_s` is how long gateways may finish streams, `grace_s` what each process gets on top before SIGKILL,
    `ready_s` how long a child may take to report ready; backoff doubles from `backoff_first_s` to
    `backoff_limit_s` and starts anew once a child ran for `healthy_s`; a child that fails `start_tries` times
    before the house was ever ready ends the supervisor. `fleeting` says that `state` holds nothing but the
    run folder and goes when the house ends.
    """

    state: str
    version: str
    tcp: tuple[TcpListener, ...]
    unix: tuple[UnixListener, ...]
    children: tuple[Supervised, ...]
    drain_s: float = 30.0
    grace_s: float = 10.0
    ready_s: float = 60.0
    backoff_first_s: float = 0.1
    backoff_limit_s: float = 10.0
    healthy_s: float = 10.0
    start_tries: int = 5
    fleeting: bool = False

    @property
    def run(self) -> Path:
        """The folder of sockets and run-time records."""
        return Path(self.state) / "run"


def dump_spec(spec: Spec) -> str:
    """`spec` as the JSON that `load_spec` reads."""
    raw = spec._asdict()
    for key in ("tcp", "unix"):
        raw[key] = [entry._asdict() for entry in raw[key]]
    raw["children"] = [child._asdict() | {"environment": dict(child.environment)} for child in spec.children]
    return json.dumps(raw)


def load_spec(text: str) -> Spec:
    """The spec in `text`. Raises ConfigError naming what does not fit."""
    try:
        raw: dict[str, Any] = json.loads(text)
        raw["tcp"] = tuple(TcpListener(**entry) for entry in raw.get("tcp", ()))
        raw["unix"] = tuple(UnixListener(**entry) for entry in raw.get("unix", ()))
        raw["children"] = tuple(_read_child(entry) for entry in raw["children"])
        spec = Spec(**raw)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f"the supervisor's spec does not fit: {error}") from error
    known = {entry.name for entry in (*spec.tcp, *spec.unix)}
    for child in spec.children:
        if child.role not in ("gateway", "node"):
            raise ConfigError(f"children.{child.name}.role: {child.role!r} is neither 'gateway' nor 'node'")
        if not child.argv or set(child.sockets) - known:
            raise ConfigError(f"children.{child.name}: needs argv, and sockets out of {sorted(known)}")
    if len({child.name for child in spec.children}) < len(spec.children):
        raise ConfigError("children: two have the same name")
    return spec


def _read_child(raw: dict[str, Any]) -> Supervised:
    child = Supervised(**raw)
    return child._replace(argv=tuple(child.argv), sockets=tuple(child.sockets))
