"""What an operator asks first, as plain values: pools, pipelines, replicas, moves, decisions. Changes nothing."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from headgate.allocation.demand import Demand
from headgate.control.fleets.fleet import Member
from headgate.control.reconcile import Reconciler


def build_status(reconciler: Reconciler) -> dict[str, Any]:
    """The state of the node now."""
    members = reconciler.members
    allocation = reconciler.allocation
    in_flight = reconciler.demands.in_flight
    return {
        "node": reconciler.table.node,
        "table": reconciler.table.number,
        "gateways": reconciler.demands.gateways,
        "decisions": reconciler.number,
        "moves": dict(reconciler.moves),
        "crashes": reconciler.crashes,
        "gap_to_bound": allocation.gap_to_bound if allocation else None,
        "gap_to_exact": reconciler.refined.gap,
        "exact_decision": reconciler.refined.number,
        "error_budget_left": round(reconciler.demands.rented.budget.left, 2),
        "pools": [_pool_status(reconciler, pool.name, members) for pool in reconciler.plan.capacity.pools],
        "pipelines": {one.name: _pipeline_status(reconciler, one.name, members) for one in reconciler.plan.pipelines},
        "replicas": [_replica_status(one, in_flight(one.id)) for one in members],
    }


def explain_decisions(reconciler: Reconciler, limit: int = 20) -> list[dict[str, Any]]:
    """The newest decisions first, without their states."""
    newest = list(reconciler.decisions)[-limit:][::-1]
    return [
        {
            "number": one.number,
            "at": one.at,
            "trigger": one.trigger,
            "reason": one.reason,
            "moves": list(one.moves),
            "changes": [asdict(change) for change in one.changes],
            "gap_to_bound": one.gap_to_bound,
            "gap_to_exact": reconciler.refined.gaps.get(one.number),
        }
        for one in newest
    ]


def _pool_status(reconciler: Reconciler, name: str, members: tuple[Member, ...]) -> dict[str, Any]:
    pool = reconciler.plan.capacity.pool(name)
    assert pool is not None
    mine = [one for one in members if one.pool == name]
    return {
        "name": name,
        "kind": pool.kind,
        "cores": round(pool.share, 3),
        "cores_used": round(sum(one.share_now for one in mine), 3),
        "memory_bytes": sum(node.memory_bytes for node in pool.nodes),
        "memory_bytes_used": sum(one.memory_bytes for one in mine),
        "price": _price(reconciler, name),
    }


def _price(reconciler: Reconciler, name: str) -> float | None:
    """The utility that one more device of the pool would bring to those who are served last."""
    allocation = reconciler.allocation
    names = [pool.name for pool in reconciler.plan.capacity.pools]
    # Why compared: after a reload the last decision was still made for the pools from before.
    if allocation is None or not allocation.prices or len(allocation.prices[-1]) != len(names):
        return None
    return round(allocation.prices[-1][names.index(name)], 6)


def _pipeline_status(reconciler: Reconciler, name: str, members: tuple[Member, ...]) -> dict[str, Any]:
    demand = reconciler.demands.demands.get(name, Demand())
    route = reconciler.table.pipelines.get(name)
    stages = [one.stage for one in members if one.pipeline == name]
    models = reconciler.plan.models_of(name)
    allocation = reconciler.allocation
    return {
        "models": [model.name for model in models],
        "ready": stages.count("ready"),
        "starting": stages.count("starting"),
        "draining": stages.count("draining"),
        "warm": stages.count("warm"),
        "asleep": bool(allocation and any(model.key in allocation.asleep for model in models)),
        "wanted": allocation.replicas.get(name, 0) if allocation else 0,
        "unmet": allocation.unmet.get(name, 0) if allocation else 0,
        "value": round(allocation.values.get(name, 0.0), 4) if allocation else 0.0,
        "shed": allocation.shed.get(name, 0.0) if allocation else 0.0,
        "queued": demand.queued,
        "in_flight": demand.in_flight,
        "arrivals_per_s": round(demand.arrivals_per_s, 3),
        "service_s": None if demand.service_s is None else round(demand.service_s, 4),
        "corrections": _corrections(reconciler, name, demand),
        "kept": demand.kept,
        "wake_s": route.wake_s if route else None,
        "failures": reconciler.faults.failures(name),
        "blocked": route.blocked if route else None,
    }


def _corrections(reconciler: Reconciler, name: str, demand: Demand) -> dict[str, float]:
    """By configuration, how many times as long as profiled requests take; nothing where nothing was profiled."""
    profiled = {model.key for model in reconciler.plan.models_of(name) if model.profile.service_s is not None}
    return {key: round(factor, 3) for key, factor in demand.corrections.items() if key in profiled}


def _replica_status(member: Member, in_flight: int) -> dict[str, Any]:
    return {
        "id": member.id,
        "pipeline": member.pipeline,
        "configuration": member.configuration,
        "model": member.model,
        "version": member.version,
        "engine": member.engine,
        "device": member.device,
        "share": member.share,
        "slots": member.slots,
        "state": member.stage,
        "in_flight": in_flight,
        "memory_bytes": member.memory_bytes,
        "epoch": member.epoch,
        "pid": member.pid,
        "since": member.since,
        "load_s": member.load_s,
    }
