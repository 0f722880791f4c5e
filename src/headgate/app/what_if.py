"""What headgate.yaml says of a trace's pipelines and of the capacity, as the simulator is asked about them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from headgate.allocation.pipeline import RANKS
from headgate.allocation.profile import Profile
from headgate.app.opening import Where
from headgate.core.errors import BadRequest, ConfigError, ModelNotFound, ModelRefused
from headgate.evaluation.traces import Trace
from headgate.evaluation.what_if import Rent, Terms

if TYPE_CHECKING:
    from headgate.config import Settings
    from headgate.control.settings import PoolSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the file at `path` says: terms by pipeline of the trace; by pool its devices, what it costs where it is paid
    for by use, and bytes of memory where replicas may stay loaded in it.
    """

    terms: dict[str, Terms]
    devices: dict[str, float]
    rents: dict[str, Rent]
    memory: dict[str, int]
    path: Path


def load_terms(where: Where, trace: Trace) -> Known | None:
    """What headgate.yaml says of the trace's pipelines.

    None when no file was named and the one here does not know every pipeline of the trace. Raises ConfigError, and
    BadRequest when a named file lacks one.
    """
    path = where.file()
    if path is None:
        return None
    settings, _ = where.settings()
    names = [one.pipeline for one in trace.streams]
    if missing := [name for name in names if name not in settings.pipelines]:
        if where.config is None:
            return None
        raise BadRequest(
            f"{path} has no pipeline {', '.join(missing[:5])}, which {trace.name} names. Add it there, leave --config "
            "out, or choose pipelines with --pipeline.",
            param="config",
        )
    profiles = _load_profiles(where, settings, {settings.pipelines[name].model[0] for name in names})
    terms = {name: _terms(settings, name, profiles.get(settings.pipelines[name].model[0], Profile())) for name in names}
    pools = sorted({one.pool for one in terms.values()})
    return Known(
        terms=terms,
        devices={name: _devices(settings.pools[name]) for name in pools},
        rents={name: _rent(settings, settings.pools[name]) for name in pools if settings.pools[name].elastic},
        # Why not of GPUs: a replica is warm on the very device that holds its weights, and devices are not told apart.
        memory={name: _memory(settings, name) for name in pools if settings.pools[name].kind == "cpu"},
        path=path,
    )


def _load_profiles(where: Where, settings: Settings, models: Collection[str]) -> dict[str, Profile]:
    """What was measured of the models on this machine, with the memory that a house would reckon a replica to take.

    Those that were never added are left out.
    """
    from headgate.app.plan import describe_subject, plan_model
    from headgate.engines.catalogue import build_engines
    from headgate.engines.http import HttpClient
    from headgate.evaluation.profiles import find_profile
    from headgate.workers.hardware import load_hardware

    if settings.store.url is None and not (where.places().state / "headgate.db").exists():
        return {}  # nothing was ever served here, and asking must not make a house
    profiles: dict[str, Profile] = {}
    with where.house() as house:
        registry, hardware = house.registry(), load_hardware()
        engines = build_engines(settings.engines, HttpClient(house.clock))
        for name in sorted(models):
            try:
                planned = plan_model(name, settings.models[name], registry.get(name), engines, settings)
                memory_bytes = planned.memory_bytes
            except (ModelNotFound, ModelRefused, ConfigError):
                continue
            found = find_profile(house.database, describe_subject(planned, hardware)) or Profile()
            profiles[name] = replace(found, memory_bytes=memory_bytes)
    return profiles


def _terms(settings: Settings, name: str, profile: Profile) -> Terms:
    pipeline = settings.pipelines[name]
    model = settings.models[pipeline.model[0]]  # the simulator plays one way to run a pipeline: its best
    return Terms(
        left_out=pipeline.model[1:],
        pool=model.pool,
        share=model.cores,
        weight=pipeline.weight,
        floor=pipeline.floor,
        cap=pipeline.cap,
        rank=RANKS[pipeline.priority],
        slots=model.slots,
        queue=pipeline.queue,
        memory_bytes=profile.memory_bytes,
        warm_s=pipeline.warm_s,
        first_token_s=pipeline.slo.first_token_ms / 1e3,
        start_s=profile.load_s,
        seconds=profile.service_s,
        slow=profile.slow_by_slot(model.slots),
        prefill_tokens_per_s=profile.prefill_tokens_per_s,
        decode_tokens_per_s=next((speed for count, speed in profile.decode_tokens_per_s if count == 1), None),
    )


def _rent(settings: Settings, pool: PoolSettings) -> Rent:
    control = settings.control
    return Rent(price_per_hour=pool.price_per_hour, money=control.money, promised=control.slo_minutes)


def _memory(settings: Settings, name: str) -> int:
    """Bytes that all replicas of a pool of cores may take, as a house would reckon them here."""
    from headgate.workers.hardware import load_hardware

    told = settings.pools[name].memory
    return int(load_hardware().memory_bytes_total * (1 - settings.control.memory_reserve)) if told == "auto" else told


def _devices(pool: PoolSettings) -> float:
    from headgate.workers.hardware import load_hardware

    if isinstance(pool.cores, int):
        return float(pool.cores)
    if isinstance(pool.cores, tuple):
        return float(len(pool.cores))
    hardware = load_hardware()
    return hardware.cores if pool.kind == "cpu" else float(len(hardware.gpus))
