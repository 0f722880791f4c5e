"""One replica process, from start or adoption to its end. Knows no engine's flags and no caller."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from headgate.core.clock import Clock
from headgate.core.errors import AdoptionRefused, ReplicaNotReady
from headgate.engines.engine import Command, Launch
from headgate.workers.cgroup import ReplicaWeights, load_cgroups
from headgate.workers.exits import Exit, load_exit, read_status
from headgate.workers.isolation import Isolation, find_isolation
from headgate.workers.log_tail import load_tail
from headgate.workers.proc import (
    read_cpu_s,
    read_oom_kills,
    read_peak_bytes,
    read_pss_bytes,
    read_rss_bytes,
    read_stat,
)
from headgate.workers.record import ReplicaRecord, forget_replica, record_replica
from headgate.workers.settings import WorkerSettings
from headgate.workers.spawn import Limits, Placement, clean_environment, move_to_cores, spawn

_RECORD_WAIT_S = 1.0
_OOM_WORDS = ("out of memory", "bad_alloc", "cannot allocate memory", "memoryerror", "failed to allocate")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaHost:
    """What all replicas of one node share: folders, clock, patience, and what this machine can do for them."""

    run: Path
    logs: Path
    clock: Clock
    grace_s: float
    isolation: Isolation
    weights: ReplicaWeights | None
    listen: Literal["unix", "loopback"] = "unix"

    def choose_address(self, replica: str) -> str:
        """Where a new replica is to listen: a socket in the run folder, or a loopback port that is free now.

        Why the port is not held until then: no engine takes over a socket that is bound already. One that loses the
        race for its port ends, and is started anew on another.
        """
        if self.listen == "unix":
            return f"unix:{self.run / replica}.sock"
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.bind(("127.0.0.1", 0))
            return f"http://127.0.0.1:{probe.getsockname()[1]}"


def prepare_host(run: Path, logs: Path, clock: Clock, settings: WorkerSettings) -> ReplicaHost:
    """Make the folders and find out what this machine can do.

    Raises ConfigError when `isolate` is 'on' and cannot be.
    """
    for folder in (run, logs):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return ReplicaHost(
        run=run,
        logs=logs,
        clock=clock,
        grace_s=settings.grace_s,
        isolation=find_isolation(settings.isolate, settings.listen),
        weights=ReplicaWeights.prepare(load_cgroups().v2),
        listen=settings.listen,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessMemory:
    """Bytes of one process: resident now, its fair part of that (None where it may not be read), and the
    peak.
    """

    rss: int | None
    pss: int | None
    peak: int | None


class ReplicaProcess:
    """A live (or ended) replica process, watched by its pidfd. Make one with `start` or `adopt`, inside a
    loop.
    """

    def __init__(self, host: ReplicaHost, record: ReplicaRecord, pidfd: int) -> None:
        """Take over a process; use `start` or `adopt`."""
        self.record = record
        self.exit: Exit | None = None
        self._host = host
        self._pidfd = pidfd
        self._oom_kills = read_oom_kills()
        self._killed = False
        self._ended = asyncio.Event()
        self._peak: int | None = None
        self._burial: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(pidfd, self._notice)

    @classmethod
    async def start(
        cls,
        host: ReplicaHost,
        command: Command,
        launch: Launch,
        *,
        epoch: int,
        placement: Placement,
        limits: Limits | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> ReplicaProcess:
        """Start `command` as the replica that `launch` names, and put it on record.

        Raises ReplicaNotReady when the command cannot be executed.
        """
        if launch.port is None:
            Path(launch.host).unlink(missing_ok=True)
        log = host.logs / f"replica-{launch.replica}.log"
        offset = log.stat().st_size if log.exists() else 0
        environment = clean_environment(os.environ, command.environment, placement, host.run)

        def begin() -> int:
            return spawn(
                command.argv,
                environment=environment,
                stdin=command.stdin,
                log=log,
                folder=host.run,
                placement=placement,
                isolation=host.isolation,
                limits=limits or Limits(),
            )

        try:
            pid = begin()
        except OSError as error:
            raise ReplicaNotReady(
                f"replica {launch.replica}: {command.argv[0]} cannot be started: {error.strerror}"
            ) from error
        pidfd = os.pidfd_open(pid)
        stat = read_stat(pid)
        record = ReplicaRecord(
            replica=launch.replica,
            pid=pid,
            started_ticks=stat.started_ticks if stat else 0,
            started_at=host.clock.now(),
            epoch=epoch,
            secret=launch.secret,
            address=launch.address,
            placement=placement,
            log=str(log),
            log_offset=offset,
            isolated=host.isolation != "none",
            weighted=host.weights is not None and host.weights.place(pid, launch.replica, placement.core_share),
            labels=labels or {},
        )
        record_replica(host.run, record)
        return cls(host, record, pidfd)

    @classmethod
    async def adopt(
        cls,
        host: ReplicaHost,
        record: ReplicaRecord,
        accepts: Callable[[ReplicaRecord], Awaitable[bool]],
    ) -> ReplicaProcess:
        """Take over a process that an earlier node started, once it is proven to be the one on record.

        `accepts` asks the replica itself whether it takes the secret. Raises AdoptionRefused; the process is
        then left alone: `discard` ends it.
        """
        pidfd = _open_same(record)
        if pidfd is None:
            raise AdoptionRefused(f"replica {record.replica}: process {record.pid} is gone")
        try:
            accepted = await accepts(record)
        except BaseException:
            os.close(pidfd)
            raise
        if not accepted:
            os.close(pidfd)
            raise AdoptionRefused(f"replica {record.replica}: process {record.pid} does not take the secret")
        return cls(host, record, pidfd)

    async def wait(self) -> Exit:
        """How the process ended, once it has."""
        await self._ended.wait()
        assert self.exit is not None
        return self.exit

    async def stop(self, grace_s: float | None = None) -> Exit:
        """Ask the process to end, kill it and all of its group after `grace_s` seconds; how it ended."""
        if self.exit is None:
            self._signal(signal.SIGTERM)
            timer = asyncio.ensure_future(self._host.clock.sleep(self._host.grace_s if grace_s is None else grace_s))
            ended = asyncio.ensure_future(self._ended.wait())
            try:
                await asyncio.wait((timer, ended), return_when=asyncio.FIRST_COMPLETED)
            finally:
                timer.cancel()
                ended.cancel()
            if self.exit is None:
                self.kill()
        return await self.wait()

    def kill(self) -> None:
        """End the process and its group at once."""
        self._killed = True
        self._signal(signal.SIGKILL)

    def place(self, placement: Placement, labels: Mapping[str, str]) -> None:
        """Have the process run elsewhere from now on, and put that on record. Raises OSError when it is gone."""
        if placement.cores != self.record.placement.cores:
            move_to_cores(self.record.pid, placement.cores)
        self.record = replace(self.record, placement=placement, labels=labels)
        record_replica(self._host.run, self.record)

    def detach(self) -> None:
        """Stop watching without ending the process: the node leaves, the replica stays."""
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    def read_memory(self) -> ProcessMemory:
        """The process's memory now; of one that ended, only the highest peak that was read is known."""
        pid = self.record.pid
        if self.exit is not None:
            return ProcessMemory(rss=None, pss=None, peak=self._peak)
        peak = read_peak_bytes(pid)
        if peak is not None:
            self._peak = max(peak, self._peak or 0)
        return ProcessMemory(rss=read_rss_bytes(pid), pss=read_pss_bytes(pid), peak=self._peak)

    def read_cpu_s(self) -> float | None:
        """Processor seconds used so far; None once it has ended."""
        return read_cpu_s(self.record.pid) if self.exit is None else None

    def log_tail(self, lines: int = 20) -> list[str]:
        """The last lines of this process's log, its secret blotted out. For the operator: never for an API
        answer.
        """
        record = self.record
        return load_tail(Path(record.log), record.log_offset, lines, (record.secret,))

    def _signal(self, number: int) -> None:
        if self._pidfd < 0:
            return
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)
            if number == signal.SIGKILL:  # while it lives or is a zombie, the group's number cannot be another's
                _kill_group(self.record)

    def _notice(self) -> None:
        self._loop.remove_reader(self._pidfd)
        self._burial = self._loop.create_task(self._bury())

    async def _bury(self) -> None:
        record = self.record
        code, name = await self._learn_status()
        tail = " ".join(self.log_tail(5)).lower()
        kills = read_oom_kills()
        by_kernel = None not in (kills, self._oom_kills) and kills != self._oom_kills
        looks = not self._killed and (
            (name == "SIGKILL" and by_kernel)
            or ((name == "SIGABRT" or code not in (0, None)) and any(word in tail for word in _OOM_WORDS))
        )
        os.close(self._pidfd)
        self._pidfd = -1
        forget_replica(self._host.run, record)
        if self._host.weights is not None:
            self._host.weights.remove(record.replica)
        self.exit = Exit(
            pid=record.pid,
            started_ticks=record.started_ticks,
            code=code,
            signal=name,
            at=self._host.clock.now(),
            name=record.replica,
            out_of_memory=looks,
        )
        self._ended.set()

    async def _learn_status(self) -> tuple[int | None, str | None]:
        """(exit code, signal name): ours to reap, or on the supervisor's record when an earlier node started
        it.
        """
        record = self.record
        _kill_group(record)  # what it left behind; first, because until it is reaped its number is its own
        with contextlib.suppress(ChildProcessError):
            return _reap(self._pidfd)
        clock = self._host.clock
        patience = clock.monotonic() + _RECORD_WAIT_S
        while clock.monotonic() < patience:
            found = load_exit(self._host.run / "exits.jsonl", record.pid, record.started_ticks)
            if found is not None:
                return found.code, found.signal
            await clock.sleep(0.02)
        return None, None


async def discard(host: ReplicaHost, record: ReplicaRecord) -> None:
    """End a process on record that is not to be adopted, if it still is that very process, and forget it."""
    pidfd = _open_same(record)
    if pidfd is not None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            _kill_group(record)
        os.close(pidfd)
    forget_replica(host.run, record)
    if host.weights is not None:
        host.weights.remove(record.replica)


def _open_same(record: ReplicaRecord) -> int | None:
    """A pidfd of the process on record, or None. Opened first, compared then: now the number is held."""
    try:
        pidfd = os.pidfd_open(record.pid)
    except OSError:
        return None
    if record.alive:
        return pidfd
    os.close(pidfd)
    return None


def _reap(pidfd: int) -> tuple[int | None, str | None]:
    """(exit code, signal name) of our own child that has ended. Raises ChildProcessError when it is not ours."""
    ended = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    return read_status(ended) if ended is not None else (None, None)


def _kill_group(record: ReplicaRecord) -> None:
    """SIGKILL to the replica's process group.

    Why the look first: a number is not given out again while a group bears it, so a process of that number
    which started at another time means that the group is empty and the number another's.
    """
    stat = read_stat(record.pid)
    if stat is None or stat.started_ticks == record.started_ticks:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(record.pid, signal.SIGKILL)
