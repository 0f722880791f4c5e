"""From settings to what a node serves: models resolved to versions and engines, devices to pools."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from headgate.allocation.capacity import Capacity, Node, Pool
from headgate.allocation.profile import Profile
from headgate.control.node_plan import NodePlan, PlannedModel, PlannedPipeline
from headgate.core.errors import ConfigError
from headgate.core.model import Version
from headgate.engines.catalogue import choose_engine
from headgate.engines.engine import Engine, ModelOptions
from headgate.evaluation.profiles import Subject, describe_hardware
from headgate.registry.intake import check_adapter
from headgate.registry.staging import Progress, no_progress
from headgate.workers.hardware import HardwareFacts, load_hardware

if TYPE_CHECKING:
    from headgate.app.house import House
    from headgate.config import ModelSettings, Settings
    from headgate.control.settings import PoolSettings

_NODE = "local"
_DEFAULT_CONTEXT = 4096


Watch = Callable[[str], Progress]
"""From a model's name to who is told of its progress."""


def ensure_models(house: House, settings: Settings, watch: Watch = lambda _name: no_progress) -> dict[str, Version]:
    """Every model of the configuration by its name there, added to the registry where it is missing. Blocks.

    Several at once, because each waits for its own download and its own smoke inference. Raises ModelRefused,
    ModelNotFound.
    """
    registry = house.registry()

    def ensure(name: str, model: ModelSettings) -> Version:
        if model.source:
            return registry.ensure(name, model.source, progress=watch(name)).version
        return registry.get(name)

    with ThreadPoolExecutor(max_workers=4, thread_name_prefix="model") as pool:
        waiting = {name: pool.submit(ensure, name, model) for name, model in settings.models.items()}
        return {name: one.result() for name, one in waiting.items()}


def build_plan(
    settings: Settings,
    versions: Mapping[str, Version],
    engines: dict[str, Engine],
    now: float,
    profile_of: Callable[[Subject], Profile | None] = lambda _: None,
) -> NodePlan:
    """What the node serves; `profile_of` tells what was measured of a model on this machine.

    Raises ConfigError, ModelRefused, FloorsDoNotFit naming the setting and the cure.
    """
    hardware = load_hardware()
    capacity = build_capacity(settings, hardware)
    models: dict[str, PlannedModel] = {}
    for name, model in settings.models.items():
        planned = plan_model(name, model, versions[name], engines, settings)
        profile = profile_of(describe_subject(planned, hardware)) or Profile()
        models[name] = replace(planned, profile=profile)
    pipelines = tuple(
        PlannedPipeline(
            name=name,
            models=pipeline.model,
            weight=pipeline.weight,
            priority=pipeline.priority,
            floor=pipeline.floor,
            cap=pipeline.cap,
            queue=pipeline.queue,
            idle_s=pipeline.idle_s,
            warm_s=pipeline.warm_s,
            timeout_s=pipeline.timeout_s,
            first_token_s=pipeline.slo.first_token_ms / 1e3,
            per_token_s=pipeline.slo.per_token_ms / 1e3,
            created=int(now),
        )
        for name, pipeline in settings.pipelines.items()
    )
    plan = NodePlan(capacity=capacity, models=models, pipelines=pipelines, settings=settings.control)
    plan.check()
    return plan


def build_capacity(settings: Settings, hardware: HardwareFacts) -> Capacity:
    """The pools of this machine. Raises ConfigError naming the setting and the cure."""
    return Capacity(pools=tuple(_build_pools(settings, hardware)), watts=settings.control.watts)


def describe_subject(model: PlannedModel, hardware: HardwareFacts) -> Subject:
    """What a profile of this model on this machine is of."""
    return Subject(
        version=model.version.digest,
        engine=model.engine.name,
        hardware=describe_hardware(hardware, gpu=model.options.gpu_layers > 0),
        options=model.options,
        facts=model.engine_facts,
    )


def plan_model(
    name: str, model: ModelSettings, version: Version, engines: dict[str, Engine], settings: Settings
) -> PlannedModel:
    """One model as the node starts it. Raises ConfigError, ModelRefused."""
    context = model.context or version.context or _DEFAULT_CONTEXT
    if version.context is not None and context > version.context:
        raise ConfigError(
            f"models.{name}.context is {context}, but the model was made for {version.context} tokens; lower it.",
            param=f"models.{name}.context",
        )
    _check_layers(name, model, settings)
    for adapter in model.adapters:
        check_adapter(Path(adapter), version)
    return PlannedModel(
        name=name,
        version=version,
        options=ModelOptions(
            context=context,
            slots=model.slots,
            threads=max(1, int(model.cores)),
            gpu_layers=model.gpu_layers,
            adapters=model.adapters,
            settings=model.settings,
        ),
        engine=choose_engine(engines, version, model.engine),
        pool=model.pool,
        share=model.cores,
        engine_facts=settings.engines.model_dump_json(),
    )


def _check_layers(name: str, model: ModelSettings, settings: Settings) -> None:
    """Layers go to GPUs where the model's pool is of GPUs, and nowhere else. Raises ConfigError.

    Why so strict: GPUs are hidden from replicas of other pools, whose layers would quietly run on the CPU; and a
    replica without layers would hold a GPU for nothing.
    """
    on_gpus = settings.pools[model.pool].kind == "gpu"
    if on_gpus == bool(model.gpu_layers):
        return
    where = f"models.{name}.gpu_layers"
    if on_gpus:
        told = f"is 0, but its pool {model.pool!r} is of GPUs; say how many layers go there (99 is all), or take a"
    else:
        told = f"is {model.gpu_layers}, but its pool {model.pool!r} has no GPUs; remove it, or take a"
    raise ConfigError(f"{where} {told} pool of {'cores' if on_gpus else 'kind: gpu'}.", param=where)


def _build_pools(settings: Settings, hardware: HardwareFacts) -> list[Pool]:
    return [
        Pool(
            name=name,
            kind=pool.kind,
            nodes=(
                _cpu_node(name, pool, settings, hardware) if pool.kind == "cpu" else _gpu_node(name, pool, hardware),
            ),
            price_per_hour=pool.price_per_hour or None,
            watts=pool.watts or None,
            elastic=pool.elastic,
        )
        for name, pool in settings.pools.items()
    ]


def _cpu_node(name: str, pool: PoolSettings, settings: Settings, hardware: HardwareFacts) -> Node:
    where = f"pools.{name}.cores"
    if pool.cores == "auto":
        devices = hardware.core_ids
    elif isinstance(pool.cores, int):
        if pool.cores > len(hardware.core_ids):
            raise ConfigError(
                f"{where} is {pool.cores}, but there are {len(hardware.core_ids)}; lower it.", param=where
            )
        devices = hardware.core_ids[: pool.cores]
    else:
        missing = sorted(set(pool.cores) - set(hardware.core_ids))
        if missing:
            raise ConfigError(f"{where} names cores that may not be used here: {missing}; take others.", param=where)
        devices = pool.cores
    if pool.memory == "auto":
        # Why not what is free now: replicas that outlived a node hold some of it, and would not fit beside themselves.
        memory = int(hardware.memory_bytes_total * (1 - settings.control.memory_reserve))
    elif pool.memory > hardware.memory_bytes_total:
        raise ConfigError(
            f"pools.{name}.memory is {pool.memory} bytes, but there are {hardware.memory_bytes_total}; lower it.",
            param=f"pools.{name}.memory",
        )
    else:
        memory = pool.memory
    share = min(float(len(devices)), hardware.cores) if pool.cores == "auto" else float(len(devices))
    return Node(name=_NODE, devices=devices, share=share, memory_bytes=memory)


def _gpu_node(name: str, pool: PoolSettings, hardware: HardwareFacts) -> Node:
    where = f"pools.{name}"
    if not hardware.gpus:
        raise ConfigError(
            f"{where} is a pool of GPUs, but none was found. `headgate doctor` says what is there.", param=where
        )
    if pool.memory == "auto":
        raise ConfigError(f"{where}.memory: say how much memory each GPU has, such as 24GiB.", param=f"{where}.memory")
    there = range(len(hardware.gpus))
    if pool.cores == "auto":
        devices = tuple(there)
    elif isinstance(pool.cores, int):
        devices = tuple(there[: pool.cores])
    else:
        devices = pool.cores
    if not devices or set(devices) - set(there) or (isinstance(pool.cores, int) and pool.cores > len(there)):
        raise ConfigError(f"{where}.cores asks for GPUs that are not here; there are {len(there)}.", param=where)
    return Node(
        name=_NODE,
        devices=devices,
        share=float(len(devices)),
        memory_bytes=pool.memory * len(devices),
        device_memory_bytes=pool.memory,
    )
