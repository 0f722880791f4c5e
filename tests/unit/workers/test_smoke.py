"""The trial of a new model: where its process runs. What it finds out is tested with real processes."""

from __future__ import annotations

from typing import Any

import pytest

from headgate.core.chance import SystemChance
from headgate.core.clock import SystemClock
from headgate.core.errors import ModelRefused, ReplicaNotReady
from headgate.core.model import Version
from headgate.engines.engine import Command, Memory, ModelOptions
from headgate.workers import smoke
from headgate.workers.settings import WorkerSettings
from headgate.workers.spawn import Limits, Placement


class Engine:
    def check(self, version: Version, options: ModelOptions) -> None:
        pass

    def estimate_memory(self, version: Version, options: ModelOptions) -> Memory:
        return Memory(weights=1, kv_cache=0, compute=0, overhead=0)

    def command(self, launch: object) -> Command:
        return Command(argv=("true",))


async def test_trials_are_pinned_to_no_core(monkeypatch: pytest.MonkeyPatch) -> None:
    placed: list[tuple[Placement, Limits]] = []

    async def start(*given: object, placement: Placement, limits: Limits, **more: object) -> None:
        placed.append((placement, limits))
        raise ReplicaNotReady("enough seen")

    monkeypatch.setattr(smoke.ReplicaProcess, "start", start)
    engine: Any = Engine()
    version = Version(
        digest="d", format="fake", task="generate", architecture="", parameters=None, context=64, bytes=0, path=""
    )
    with pytest.raises(ModelRefused, match="enough seen"):
        await smoke.try_model(
            engine,
            version,
            ModelOptions(context=64, slots=1),
            settings=WorkerSettings(smoke_s=7.0, isolate="off"),
            clock=SystemClock(),
            chance=SystemChance(),
        )
    [(placement, limits)] = placed
    assert placement.cores == ()
    assert limits.cpu_s == 7
