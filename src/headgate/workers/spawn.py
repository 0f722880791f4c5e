"""Starting one replica process: cores, niceness, network and environment set before its first instruction.

Why a thread does it: affinity, niceness and network namespace belong to a thread on Linux and are inherited
by what it starts, so a thread dressed like the replica starts it and ends. No code runs between fork and
exec, which is unsafe and slow in a process with threads. Knows nothing of engines.
"""

from __future__ import annotations

import contextlib
import math
import os
import resource
import subprocess
import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from headgate.workers.isolation import Isolation, wrap_command
from headgate.workers.kernel import leave_network

_KEPT = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH", "CUDA_HOME")
_THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "RAYON_NUM_THREADS",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where a replica runs: core ids, GPU ids as CUDA takes them, its share of either (1.0: all, 0 while it rests)."""

    cores: tuple[int, ...]
    share: float = 1.0
    gpus: tuple[str, ...] = ()

    @property
    def core_share(self) -> float:
        """Its share of a core. Why all of one beside a GPU: a GPU waits for whoever gives it work."""
        return 1.0 if self.gpus else self.share


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Hard limits of a process: processor seconds and address space bytes; None leaves one as it is."""

    cpu_s: int | None = None
    address_bytes: int | None = None


def clean_environment(
    environ: Mapping[str, str], extra: Mapping[str, str], placement: Placement, home: Path
) -> dict[str, str]:
    """What a replica is told of the world: little. No keys, tokens or proxies of ours leak into it.

    `extra` comes from the engine and wins. GPUs that are not its own are hidden, so that a replica on the CPU
    does not take memory on them.
    """
    kept = {name: environ[name] for name in _KEPT if name in environ}
    threads = dict.fromkeys(_THREADS, str(max(1, len(placement.cores))))
    fixed = {
        "HOME": str(home),
        "PYTHONNOUSERSITE": "1",
        "PYTHONUNBUFFERED": "1",
        "CUDA_VISIBLE_DEVICES": ",".join(placement.gpus),
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # as gpu.py counts them; CUDA's own way puts the fastest first
    }
    return {**kept, **threads, **fixed, **extra}


def nice_of(share: float) -> int:
    """Niceness for a share of a core: each step is a quarter less. Source: sched_prio_to_weight,
    kernel/sched.
    """
    return min(19, max(0, round(math.log(1.0 / max(share, 0.01), 1.25))))


def spawn(
    argv: tuple[str, ...],
    *,
    environment: Mapping[str, str],
    stdin: bytes,
    log: Path,
    folder: Path,
    placement: Placement,
    isolation: Isolation,
    limits: Limits,
) -> int:
    """The pid of a new process that leads a session of its own and appends what it says to `log`.

    Standard input holds `stdin` and then ends. Raises OSError when it cannot be started (no such command, no
    memory).
    """
    result: list[int | OSError] = []

    def start() -> None:
        try:
            if placement.cores:
                os.sched_setaffinity(0, placement.cores)
            nice = nice_of(placement.core_share)
            os.setpriority(os.PRIO_PROCESS, 0, max(nice, os.getpriority(os.PRIO_PROCESS, 0)))
            if isolation == "thread":
                leave_network()
            result.append(_execute(wrap_command(argv, isolation), environment, stdin, log, folder))
        except OSError as error:
            result.append(error)

    thread = threading.Thread(target=start, name="spawn")
    thread.start()
    thread.join()
    pid = result[0]
    if isinstance(pid, OSError):
        raise pid
    _finish(pid, nice_of(placement.core_share), limits)
    return pid


def move_to_cores(pid: int, cores: Collection[int]) -> None:
    """Have all threads of a running process, and those that they start, run on `cores` from now on.

    Raises OSError when there is no such process any more, or no such core.
    """
    moved: set[str] = set()
    while threads := {entry.name for entry in Path(f"/proc/{pid}/task").iterdir()} - moved:
        for thread in threads:
            with contextlib.suppress(ProcessLookupError):  # it has ended
                os.sched_setaffinity(int(thread), cores)
        moved |= threads  # Why again: one that was started meanwhile may have the cores of one that was not yet moved


def _execute(argv: tuple[str, ...], environment: Mapping[str, str], stdin: bytes, log: Path, folder: Path) -> int:
    """Start the command from the calling thread, which it inherits from."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    output = os.open(log, flags, 0o600)
    given = os.memfd_create("stdin")  # Why not a pipe: a child that never reads cannot make us wait
    try:
        os.write(given, stdin)
        os.lseek(given, 0, os.SEEK_SET)
        process = subprocess.Popen(
            argv,
            stdin=given,
            stdout=output,
            stderr=output,
            env=dict(environment),
            cwd=folder,
            umask=0o077,
            start_new_session=True,
        )
    finally:
        os.close(given)
        os.close(output)
    process.returncode = 0  # Why: this object must not reap the process; whoever holds its pidfd does
    return process.pid


def _finish(pid: int, nice: int, limits: Limits) -> None:
    with contextlib.suppress(OSError):  # where sessions are scheduled as groups, niceness counts only inside
        Path(f"/proc/{pid}/autogroup").write_text(str(nice), encoding="ascii")
    for kind, value, slack in (
        (resource.RLIMIT_CPU, limits.cpu_s, 1),  # SIGXCPU first, SIGKILL a second later
        (resource.RLIMIT_AS, limits.address_bytes, 0),
        (resource.RLIMIT_CORE, 0, 0),  # a core file would hold prompts
    ):
        if value is not None:
            with contextlib.suppress(OSError):  # it may have ended already
                resource.prlimit(pid, kind, (value, value + slack))
