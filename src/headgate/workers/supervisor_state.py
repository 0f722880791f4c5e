"""The supervisor's own account of itself in run/supervisor.json, for the command line and the service
manager.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from headgate.workers.exits import write_private
from headgate.workers.proc import is_running


class ChildState(NamedTuple):
    """One child: `pid` is None while it waits to be started again; `last_exit` is in words."""

    name: str
    role: str
    pid: int | None
    ready: bool
    restarts: int
    last_exit: str | None


class SupervisorState(NamedTuple):
    """The house at one moment. `stage` is starting, running, draining, stopping or sweeping; `started_at` is
    seconds since the Unix epoch; `listeners` has 'host:port' or 'unix:/path' by name, port 0 resolved.
    """

    pid: int
    started_ticks: int
    started_at: float
    stage: str
    version: str
    listeners: dict[str, str]
    children: tuple[ChildState, ...]


def record_state(path: Path, state: SupervisorState) -> None:
    """Write `state` to `path` (readable by this user only), whole or not at all. Raises OSError."""
    raw = state._asdict() | {"children": [child._asdict() for child in state.children]}
    write_private(path, json.dumps(raw).encode())


def load_state(path: Path) -> SupervisorState | None:
    """The account of a supervisor that lives; None when there is none, or when it died without tidying up."""
    try:
        raw: dict[str, Any] = json.loads(path.read_bytes())
        state = SupervisorState(**raw)
        state = state._replace(children=tuple(ChildState(**child) for child in raw["children"]))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return state if is_running(state.pid, state.started_ticks) else None
