"""The routing table, made from what is planned and what runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from headgate.control.fleets.fleet import Member
from headgate.control.node_plan import NodePlan, PlannedModel, PlannedPipeline
from headgate.core.table import PipelineRoute, ReplicaRoute


def build_pipelines(
    plan: NodePlan, wakes: Mapping[str, float], blocked: Mapping[str, str | None]
) -> dict[str, PipelineRoute]:
    """The routes of all pipelines; `wakes` are seconds by configuration key, `blocked` reasons by pipeline."""
    return {
        pipeline.name: _build_pipeline(
            pipeline, [plan.models[name] for name in pipeline.models], wakes, blocked.get(pipeline.name)
        )
        for pipeline in plan.pipelines
    }


def build_replicas(members: Iterable[Member]) -> dict[str, ReplicaRoute]:
    """The routes of all replicas that have devices."""
    return {
        member.id: ReplicaRoute(
            id=member.id,
            pipeline=member.pipeline,
            version=member.version,
            engine=member.engine,
            address=member.address,
            secret=member.secret,
            epoch=member.epoch,
            slots=member.slots,
            device=member.device,
            pool=member.pool,
            share=member.share,
            state=member.stage,
        )
        for member in members
        if member.stage != "warm"
    }


def _build_pipeline(
    pipeline: PlannedPipeline, models: Sequence[PlannedModel], wakes: Mapping[str, float], blocked: str | None
) -> PipelineRoute:
    best = models[0]
    return PipelineRoute(
        name=pipeline.name,
        model=best.name,
        version=best.version.digest,
        engine=best.engine.name,
        task=best.version.task,
        context=min(model.options.context for model in models),
        queue=pipeline.queue,
        weight=pipeline.weight,
        first_token_s=pipeline.first_token_s,
        per_token_s=pipeline.per_token_s,
        timeout_s=pipeline.timeout_s,
        created=pipeline.created,
        leaves_walls=any(model.engine.leaves_walls for model in models),
        wake_s=round(wakes.get(best.key, best.wake_s), 3),
        blocked=blocked,
        versions=tuple(model.version.digest for model in models),
        engines=tuple(model.engine.name for model in models),
    )
