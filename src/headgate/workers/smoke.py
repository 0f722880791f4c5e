"""Trying a model once before it is registered: a replica is started, must produce a token, and is stopped.

It runs in a child process with limits, so that a broken or hostile file breaks that process and nothing else.
"""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path

from headgate.core.chance import Chance
from headgate.core.clock import Clock
from headgate.core.errors import ModelRefused, ReplicaNotReady
from headgate.core.model import Version
from headgate.core.secret import Secret
from headgate.core.units import format_bytes
from headgate.engines.engine import Engine, Launch, ModelOptions, Upstream
from headgate.workers.readiness import wait_ready
from headgate.workers.replica import ReplicaProcess, prepare_host
from headgate.workers.settings import WorkerSettings
from headgate.workers.spawn import Limits, Placement

_ADDRESS_SPARE = 4 * 2**30  # Why so much: interpreters and thread stacks reserve addresses that they never touch
_WORDS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class SmokeResult:
    """What the trial showed: seconds to the first token, and the process's peak resident bytes where they
    could be read.
    """

    ready_s: float
    peak_bytes: int | None


async def try_model(
    engine: Engine,
    version: Version,
    options: ModelOptions,
    *,
    cores: tuple[int, ...] = (),
    settings: WorkerSettings,
    clock: Clock,
    chance: Chance,
) -> SmokeResult | None:
    """How a replica of this version did; None when the engine starts no process (remote).

    It runs on `cores`, or wherever the kernel finds room: which cores are idle now nobody here knows better.
    Raises ModelRefused with the cause and the cure: what the engine finds wrong, no token in
    `settings.smoke_s` seconds, or a process that ended.
    """
    engine.check(version, options)
    with tempfile.TemporaryDirectory(prefix="hg-") as name:  # short: a socket's path has 103 bytes at most
        folder = Path(name)
        host = prepare_host(folder, folder, clock, settings)
        launch = Launch(
            replica="smoke",
            version=version,
            options=options,
            address=host.choose_address("s"),
            secret=Secret(chance.token_bytes(32).hex()),
        )
        command = engine.command(launch)
        if command is None:
            return None
        limits = _limit(engine, version, options, settings, len(cores))
        try:
            process = await ReplicaProcess.start(
                host, command, launch, epoch=0, placement=Placement(cores=cores), limits=limits
            )
        except ReplicaNotReady as error:
            raise ModelRefused(error.message) from error
        upstream = Upstream(address=launch.address, secret=launch.secret)
        try:
            ready_s = await wait_ready(engine, upstream, version, process, clock, deadline_s=settings.smoke_s)
            peak = process.read_memory().peak
        except ReplicaNotReady as error:
            late = process.exit is None
            await process.stop(0.0)
            raise ModelRefused(_explain(process, late, limits, settings)) from error
        finally:
            await process.stop()
        return SmokeResult(ready_s=ready_s, peak_bytes=peak)


def _limit(engine: Engine, version: Version, options: ModelOptions, settings: WorkerSettings, cores: int) -> Limits:
    estimate = engine.estimate_memory(version, options).total
    return Limits(
        cpu_s=math.ceil(settings.smoke_s) * max(1, cores),
        # On a GPU the driver reserves far more addresses than there is memory, so there no limit is sane.
        address_bytes=None if options.gpu_layers else _ADDRESS_SPARE + 3 * estimate + version.bytes,
    )


def _explain(process: ReplicaProcess, late: bool, limits: Limits, settings: WorkerSettings) -> str:
    ended = process.exit
    words = [line.strip() for line in process.log_tail(20) if line.strip()]
    # Why its words may be shown here: the only prompt this process ever saw was our own.
    # The first line about an error names the cause; those after it only what followed from it.
    cause = next((line for line in words if "error" in line.lower()), words[-1] if words else "")
    said = f" It said: {cause[:_WORDS]!r}." if cause else ""
    if ended is None or late:
        return f"the model gave no token in {settings.smoke_s:g} s.{said} Take a smaller one, or raise workers.smoke_s"
    if ended.out_of_memory:
        limit = f" (limit {format_bytes(limits.address_bytes)})" if limits.address_bytes else ""
        return f"the model needs more memory than it was given{limit}.{said} Take a smaller one, or less context"
    if ended.signal == "SIGXCPU":
        return f"the model used {limits.cpu_s} s of processor time without a token.{said} Take a smaller one"
    return (
        f"the model could not be run: its process {ended.describe()}.{said} "
        "Check that the file is whole and that this engine supports its architecture"
    )
