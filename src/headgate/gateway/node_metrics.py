"""What the node decides, as metrics: made of the state that it tells. A fact it does not tell has no sample."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from headgate.core.clock import Clock
from headgate.core.errors import HeadgateError

Told = Mapping[str, Any]
"""The node's state, as `headgate status --json` shows it."""
Look = Callable[[], Awaitable[Told]]
"""Asks the node for its state. Raises HeadgateError while there is none."""
Samples = Iterator[tuple[tuple[str, ...], Any]]
"""Label values and the number, None where it is not known."""

_PATIENCE_S = 1.0  # a scrape waits no longer for the node: Prometheus itself gives up after ten seconds
_STAGES = ("ready", "starting", "draining", "warm")


async def load_node_metrics(look: Look, clock: Clock) -> bytes:
    """The node's metrics in Prometheus' text format; nothing when it is away or does not answer within a second."""
    asked = asyncio.ensure_future(look())
    timer = asyncio.ensure_future(clock.sleep(_PATIENCE_S))
    try:
        await asyncio.wait((asked, timer), return_when=asyncio.FIRST_COMPLETED)
        return render(asked.result()) if asked.done() else b""
    except HeadgateError:
        return b""
    finally:
        asked.cancel()
        timer.cancel()


def render(told: Told) -> bytes:
    """`told` in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(NodeFamilies(told))
    return generate_latest(registry)


class NodeFamilies(Collector):
    """Every family, with the samples that `told` has for it."""

    def __init__(self, told: Told) -> None:
        self._told = told

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        for one in _FAMILIES:
            kind = CounterMetricFamily if one.counts else GaugeMetricFamily
            family = kind(one.name, one.text, labels=one.labels)
            for labels, value in one.samples(self._told):
                if value is not None:
                    family.add_metric(labels, value)
            yield family


@dataclass(frozen=True, slots=True, kw_only=True)
class _Family:
    """One family and where its samples are found; `counts` makes it a counter."""

    name: str
    text: str
    labels: tuple[str, ...] = ()
    samples: Callable[[Told], Samples]
    counts: bool = False


def _fact(key: str) -> Callable[[Told], Samples]:
    def samples(told: Told) -> Samples:
        yield (), told.get(key)

    return samples


def _of_pools(key: str) -> Callable[[Told], Samples]:
    def samples(told: Told) -> Samples:
        for one in told.get("pools", ()):
            yield (one["name"],), one.get(key)

    return samples


def _of_pipelines(key: str) -> Callable[[Told], Samples]:
    def samples(told: Told) -> Samples:
        for name, one in told.get("pipelines", {}).items():
            yield (name,), one.get(key)

    return samples


def _replicas(told: Told) -> Samples:
    for name, one in told.get("pipelines", {}).items():
        for stage in _STAGES:
            yield (name, stage), one.get(stage)


def _corrections(told: Told) -> Samples:
    for name, one in told.get("pipelines", {}).items():
        for key, factor in one.get("corrections", {}).items():
            yield (name, key), factor


def _moves(told: Told) -> Samples:
    for kind, count in told.get("moves", {}).items():
        yield (kind,), count


_FAMILIES = (
    _Family(
        name="headgate_gap_to_bound",
        text="How far the allocation may be from the best possible at most, as a part of it.",
        samples=_fact("gap_to_bound"),
    ),
    _Family(
        name="headgate_gap_to_exact",
        text="The same of the last decision that was solved exactly in the background: a tighter bound.",
        samples=_fact("gap_to_exact"),
    ),
    _Family(
        name="headgate_error_budget_minutes",
        text="Minutes of pipelines on elastic pools that may still miss their SLO; below 0: too many did.",
        samples=_fact("error_budget_left"),
    ),
    _Family(
        name="headgate_pool_price",
        text="Utility that one more device of the pool would bring.",
        labels=("pool",),
        samples=_of_pools("price"),
    ),
    _Family(
        name="headgate_pool_cores",
        text="Cores or devices of the pool.",
        labels=("pool",),
        samples=_of_pools("cores"),
    ),
    _Family(
        name="headgate_pool_cores_used",
        text="Cores or devices of the pool that replicas hold.",
        labels=("pool",),
        samples=_of_pools("cores_used"),
    ),
    _Family(
        name="headgate_replicas",
        text="Replicas by stage, as the node sees them.",
        labels=("pipeline", "stage"),
        samples=_replicas,
    ),
    _Family(
        name="headgate_replicas_wanted",
        text="Replicas that the pipeline shall have.",
        labels=("pipeline",),
        samples=_of_pipelines("wanted"),
    ),
    _Family(
        name="headgate_replicas_unmet",
        text="Replicas that the load asks for and that do not fit.",
        labels=("pipeline",),
        samples=_of_pipelines("unmet"),
    ),
    _Family(
        name="headgate_marginal_value",
        text="Utility that one more replica would bring.",
        labels=("pipeline",),
        samples=_of_pipelines("value"),
    ),
    _Family(
        name="headgate_shed_part",
        text="Part of the requests that the replicas cannot serve in the long run.",
        labels=("pipeline",),
        samples=_of_pipelines("shed"),
    ),
    _Family(
        name="headgate_service_correction",
        text="How many times as long as its profile says requests take on replicas of the configuration.",
        labels=("pipeline", "configuration"),
        samples=_corrections,
    ),
    _Family(
        name="headgate_moves",
        text="Replicas started, drained and stopped by decisions since the node started.",
        labels=("kind",),
        samples=_moves,
        counts=True,
    ),
    _Family(
        name="headgate_decisions",
        text="Decisions that changed something.",
        samples=_fact("decisions"),
        counts=True,
    ),
    _Family(
        name="headgate_crashes",
        text="Replicas that crashed since the node started.",
        samples=_fact("crashes"),
        counts=True,
    ),
)
