"""From a configuration to a running house and back: preparing a state folder, starting and stopping the supervisor."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from headgate.app.house import House, Places
from headgate.app.processes import write_spec
from headgate.core.clock import SystemClock
from headgate.core.errors import AlreadyRunning, ConfigError, HeadgateError
from headgate.core.secret import Secret
from headgate.workers.exits import write_private
from headgate.workers.log_tail import load_tail
from headgate.workers.proc import is_running
from headgate.workers.supervisor_state import SupervisorState, load_state

if TYPE_CHECKING:
    from headgate.app.plan import Watch
    from headgate.config import Settings
    from headgate.core.model import Version

_POLL_S = 0.02
_TAIL_LINES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A state folder that is ready to be served."""

    places: Places
    spec: Path
    ready_s: float
    versions: dict[str, Version]

    @property
    def command(self) -> tuple[str, ...]:
        """What starts the supervisor."""
        return (sys.executable, "-P", "-m", "headgate.workers.supervisor", str(self.spec))


def prepare(settings: Settings, text: bytes, watch: Watch, source: Path | None = None) -> Prepared:
    """Make everything that a start needs: tables, models, the configuration in force, the spec.

    `text` is what `source` (./headgate.yaml by default) says; a reload without a path reads that file again.
    Raises AlreadyRunning, ConfigError, ModelRefused, StoreRefused, StoreUnavailable.
    """
    from headgate.app.plan import build_plan, ensure_models
    from headgate.config import DEFAULT_FILE
    from headgate.engines.catalogue import build_engines
    from headgate.engines.http import HttpClient

    check_tls_files(settings)
    house = House(settings)
    try:
        if house.running() is not None:
            raise AlreadyRunning(
                f"Headgate already runs on {house.places.state}. `headgate status` shows it, `headgate down` stops it."
            )
        house.prepare()
        versions = ensure_models(house, settings, watch)
        build_plan(settings, versions, build_engines(settings.engines, HttpClient(house.clock)), house.clock.now())
        write_private(house.places.applied, text)
        write_private(house.places.source, str((source or DEFAULT_FILE).absolute()).encode())
        spec = write_spec(settings, house.places)
        return Prepared(places=house.places, spec=spec, ready_s=settings.workers.ready_s, versions=versions)
    finally:
        house.close()


def make_admin_key(settings: Settings) -> Secret | None:
    """An admin key when there is none that works, to be shown this once; else None.

    Why apart from `prepare`: a start that fails must not use up the one time that it is shown.
    """
    house = House(settings)
    try:
        return house.make_admin_key()
    finally:
        house.close()


def check_tls_files(settings: Settings) -> None:
    """Make sure that certificate and key can be read, and the key by nobody else. Raises ConfigError."""
    tls = settings.gateway.tls
    if tls is None:
        return
    for name, path in (("certificate", tls.certificate), ("key", tls.key)):
        if not os.access(path, os.R_OK):
            raise ConfigError(f"gateway.tls.{name}: {path} cannot be read.", param=f"gateway.tls.{name}")
    if tls.key.stat().st_mode & 0o077:
        raise ConfigError(
            f"gateway.tls.key: others may read {tls.key}; run: chmod 600 {tls.key}", param="gateway.tls.key"
        )


def become_supervisor(prepared: Prepared) -> NoReturn:
    """Turn this process into the supervisor."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(prepared.command[0], prepared.command)  # noqa: S606


def start_detached(prepared: Prepared, clock: SystemClock) -> SupervisorState:
    """Start the supervisor in a session of its own; its account once everything is ready.

    Raises AlreadyRunning, ConfigError (an address that cannot be bound), HeadgateError with the logs' last lines.
    """
    logs = prepared.places.logs
    began = {path: path.stat().st_size for path in logs.glob("*.log")}
    path = logs / "supervisor.log"
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600), "ab") as output:
        process = subprocess.Popen(
            prepared.command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    until = clock.monotonic() + prepared.ready_s + 5.0
    while True:
        state = load_state(prepared.places.run / "supervisor.json")
        if state is not None and state.pid == process.pid and state.stage == "running":
            return state
        code = process.poll()
        if code is not None or clock.monotonic() > until:
            break
        clock.block(_POLL_S)
    words = _last_words(logs, began)
    if code is None:
        process.send_signal(signal.SIGTERM)
        process.wait()
        raise HeadgateError(f"Headgate was not ready within {prepared.ready_s:g} s and was stopped.\n{words}")
    if code == os.EX_TEMPFAIL:
        raise AlreadyRunning
    kind = ConfigError if code == os.EX_CONFIG else HeadgateError
    raise kind(f"Headgate could not start (exit code {code}). Its logs in {logs} end with:\n{words}")


def stop(state: SupervisorState, clock: SystemClock, *, now: bool, watch: Callable[[float], None]) -> None:
    """Take the house down and wait for its end. `now` drops what is in flight; `watch` is told the seconds waited."""
    began = clock.monotonic()
    asked_twice = False
    with contextlib.suppress(ProcessLookupError):
        os.kill(state.pid, signal.SIGTERM)
        while is_running(state.pid, state.started_ticks):
            waited_s = clock.monotonic() - began
            if now and not asked_twice and waited_s > 0.1:  # two at once would arrive as one
                os.kill(state.pid, signal.SIGTERM)
                asked_twice = True
            watch(waited_s)
            clock.block(_POLL_S)


def _last_words(logs: Path, began: dict[Path, int]) -> str:
    """The last lines that each log got since the start."""
    words: list[str] = []
    for path in sorted(logs.glob("*.log")):
        lines = load_tail(path, began.get(path, 0), _TAIL_LINES)
        words += [f"  {path.stem}: {line}" for line in lines]
    return "\n".join(words)
