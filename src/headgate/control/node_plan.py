"""What a node is to serve, as app hands it over: models resolved to versions and engines, pipelines, capacity.

A plan is a value: a reload makes a new one, and what changed between the two is what has to be done.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import orjson

from headgate.allocation.capacity import Capacity
from headgate.allocation.packing import check_floors
from headgate.allocation.pipeline import Configuration, PipelineSpec, Priority
from headgate.allocation.profile import Profile
from headgate.control.settings import ControlSettings
from headgate.core.errors import ConfigError
from headgate.core.model import Version
from headgate.engines.engine import Engine, ModelOptions

_FIRST_LOAD_S = 0.2  # process start to first token of a tiny model; measured ones replace it
_LOAD_BYTES_PER_S = 1.0e9  # from a warm page cache
_DISK_BYTES_PER_S = 2.0e8  # until it was measured


@dataclass(frozen=True, kw_only=True)
class PlannedModel:
    """One model, ready to be started. `share` is cores per replica; `engine_facts` any text that changes when the
    engine's own settings do, so that replicas are replaced then. `profile` is what was measured of it on this machine.
    """

    name: str
    version: Version
    options: ModelOptions
    engine: Engine = field(compare=False)
    pool: str = "cpu"
    share: float = 1.0
    engine_facts: str = ""
    profile: Profile = field(default_factory=Profile, compare=False)

    @cached_property  # asked for in every turn, and always the same
    def key(self) -> str:
        """A short text that changes whenever running replicas no longer are what the plan says."""
        options = self.options
        facts = {
            "version": self.version.digest,
            "engine": self.engine.name,
            "engine_facts": self.engine_facts,
            "context": options.context,
            "slots": options.slots,
            "threads": options.threads,
            "gpu_layers": options.gpu_layers,
            "adapters": options.adapters,
            "settings": dict(options.settings),
            "pool": self.pool,
            "share": self.share,
        }
        told = orjson.dumps(facts, option=orjson.OPT_SORT_KEYS, default=str)
        return hashlib.sha256(told).hexdigest()[:16]

    @cached_property
    def memory_bytes(self) -> int:
        """Estimated peak of one replica: of a GPU's memory where it has layers there, else of the machine's."""
        memory = self.engine.estimate_memory(self.version, self.options)
        return memory.device if self.options.gpu_layers else memory.total

    @property
    def wake_s(self) -> float:
        """Seconds from start to a real token as they were measured, a guess where they were not."""
        if self.profile.load_s is not None:
            return self.profile.load_s
        return _FIRST_LOAD_S + self.version.bytes / _LOAD_BYTES_PER_S


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedPipeline:
    """One pipeline; times in seconds, `created` in seconds since the Unix epoch. `models` are names, best first."""

    name: str
    models: tuple[str, ...]
    weight: float = 1.0
    priority: Priority = "burst"
    floor: int = 0
    cap: int = 4
    queue: int = 64
    idle_s: float = 30.0
    warm_s: float = 600.0
    timeout_s: float = 120.0
    first_token_s: float = 0.5
    per_token_s: float = 0.1
    created: int = field(default=0, compare=False)  # or every pipeline would look changed at each reload


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePlan:
    """Everything a node serves and with what."""

    capacity: Capacity
    models: Mapping[str, PlannedModel]
    pipelines: tuple[PlannedPipeline, ...]
    settings: ControlSettings = field(default_factory=ControlSettings)

    def models_of(self, pipeline: str) -> tuple[PlannedModel, ...]:
        """The models of a pipeline, best first; none where the plan has no such pipeline."""
        return next((self._resolve(one) for one in self.pipelines if one.name == pipeline), ())

    def find_model(self, pipeline: str, configuration: str) -> PlannedModel | None:
        """The model of a pipeline whose key that is, if the plan has it."""
        return next((one for one in self.models_of(pipeline) if one.key == configuration), None)

    def ways(self) -> dict[str, tuple[str, ...]]:
        """The keys of every pipeline's configurations, best first."""
        return {one.name: tuple(model.key for model in self._resolve(one)) for one in self.pipelines}

    def _resolve(self, pipeline: PlannedPipeline) -> tuple[PlannedModel, ...]:
        return tuple(self.models[name] for name in pipeline.models)

    def check(self) -> None:
        """Return when every floor fits its pool, every model its engine, and models of one pipeline each other.

        Raises ConfigError, FloorsDoNotFit, ModelRefused.
        """
        for model in self.models.values():
            model.engine.check(model.version, model.options)
        for pipeline in self.pipelines:
            _check_alike(pipeline, self._resolve(pipeline))
        check_floors(self.capacity, build_specs(self, {}))


def build_specs(plan: NodePlan, wakes: Mapping[str, float]) -> tuple[PipelineSpec, ...]:
    """The pipelines as the allocator wants them; `wakes` are measured wake seconds by configuration key."""
    return tuple(
        PipelineSpec(
            name=pipeline.name,
            configurations=tuple(_build_configuration(plan.models[name], wakes) for name in pipeline.models),
            weight=pipeline.weight,
            floor=pipeline.floor,
            cap=pipeline.cap,
            priority=pipeline.priority,
            first_token_s=pipeline.first_token_s,
            per_token_s=pipeline.per_token_s,
            idle_s=pipeline.idle_s,
            warm_s=pipeline.warm_s,
        )
        for pipeline in plan.pipelines
    )


def _check_alike(pipeline: PlannedPipeline, models: Sequence[PlannedModel]) -> None:
    """Return when any of the models may answer any request of the pipeline. Raises ConfigError."""
    where, first = f"pipelines.{pipeline.name}.model", models[0]
    for other in models[1:]:
        one, two = first.version, other.version
        if one.task != two.task:
            raise ConfigError(
                f"{where}: {first.name!r} is for {one.task!r} and {other.name!r} for {two.task!r}; all models of a "
                "pipeline must be for the same.",
                param=where,
            )
        if one.task == "embed" and one.digest != two.digest:
            raise ConfigError(
                f"{where}: {first.name!r} and {other.name!r} are different versions, and vectors of different "
                "versions cannot be compared; name models with the same source.",
                param=where,
            )
        if other.key in {model.key for model in models[: models.index(other)]}:
            raise ConfigError(
                f"{where}: {other.name!r} runs exactly as one named before it; remove it, or change its pool, cores "
                "or version.",
                param=where,
            )


def _build_configuration(model: PlannedModel, wakes: Mapping[str, float]) -> Configuration:
    key = model.key
    memory_bytes = model.memory_bytes
    wake_s = wakes.get(key, model.wake_s)
    return Configuration(
        key=key,
        pool=model.pool,
        share=model.share,
        slots=model.options.slots,
        memory_bytes=memory_bytes,
        wake_s=wake_s,
        profile=replace(
            model.profile,
            load_s=wakes.get(key, model.profile.load_s),
            load_cold_s=model.profile.load_cold_s or wake_s + model.version.bytes / _DISK_BYTES_PER_S,
            memory_bytes=model.profile.memory_bytes or memory_bytes,
            file_bytes=model.profile.file_bytes or model.version.bytes or None,
        ),
    )
