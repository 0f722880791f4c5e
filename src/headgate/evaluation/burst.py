"""A bursty load whose centre of gravity moves from one pipeline to another, as a plan of arrivals.

Pure: the same seed gives the same arrivals. Who sends them is load_probe's part; what they measured is samples'.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from headgate.core.chance import Chance

_BURST_S = 1.2  # mean length of a burst
_LULL_S = 1.8  # mean length of the time between two bursts
_BURST_FACTOR = 1.75  # times the mean rate, and 0.5 in a lull: over one burst and one lull the mean is 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A stretch of time: from `from_s` until `until_s` each pipeline gets its mean `rates`, in requests a second.

    `hot` is the pipeline that it is about.
    """

    from_s: float
    until_s: float
    rates: Mapping[str, float]
    hot: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One request to send `at_s` seconds after the beginning, whatever became of those before it (open loop)."""

    number: int
    at_s: float
    pipeline: str


def plan_phases(
    order: Sequence[str],
    *,
    seconds: float,
    hot_per_s: Mapping[str, float],
    cold: float = 0.1,
    steady_per_s: Mapping[str, float] | None = None,
) -> tuple[Phase, ...]:
    """Phases of equal length, in each the next of `order` hot: at its own `hot_per_s`, the others at `cold` of theirs.

    The pipelines of `steady_per_s` are asked as much in all phases. Raises ValueError when there is nothing to plan.
    """
    if not order or seconds <= 0 or any(hot_per_s[name] <= 0 for name in order):
        raise ValueError("a load needs pipelines with rates above 0 and some seconds")
    length_s = seconds / len(order)
    return tuple(
        Phase(
            from_s=index * length_s,
            until_s=(index + 1) * length_s,
            rates={name: rate * (1.0 if name == hot else cold) for name, rate in hot_per_s.items()}
            | dict(steady_per_s or {}),
            hot=hot,
        )
        for index, hot in enumerate(order)
    )


def plan_arrivals(phases: Sequence[Phase], chance: Chance) -> tuple[Arrival, ...]:
    """The arrivals of all phases in order of time: Poisson within bursts and lulls, each pipeline's its own.

    Source: Lewis and Shedler 1979, thinning: arrivals at the highest rate, each kept with the rate's part of it.
    """
    end_s = max(phase.until_s for phase in phases)
    found: list[tuple[float, str]] = []
    for name in sorted({name for phase in phases for name in phase.rates}):
        highest = max(phase.rates.get(name, 0.0) for phase in phases) * _BURST_FACTOR
        bursts = _plan_bursts(end_s, chance)
        at_s = 0.0
        while highest > 0:
            at_s += _exponential(1.0 / highest, chance)
            if at_s >= end_s:
                break
            phase = next(phase for phase in phases if phase.from_s <= at_s < phase.until_s)
            burst = any(begin <= at_s < end for begin, end in bursts)
            rate = phase.rates.get(name, 0.0) * (_BURST_FACTOR if burst else _lull_factor())
            if chance.uniform(0.0, highest) < rate:
                found.append((at_s, name))
    return tuple(Arrival(number=number, at_s=at_s, pipeline=name) for number, (at_s, name) in enumerate(sorted(found)))


def _plan_bursts(end_s: float, chance: Chance) -> list[tuple[float, float]]:
    bursts: list[tuple[float, float]] = []
    at_s = chance.uniform(0.0, _LULL_S)
    while at_s < end_s:
        length_s = _BURST_S * chance.uniform(0.5, 1.5)
        bursts.append((at_s, at_s + length_s))
        at_s += length_s + _LULL_S * chance.uniform(0.5, 1.5)
    return bursts


def _lull_factor() -> float:
    return (_BURST_S + _LULL_S - _BURST_FACTOR * _BURST_S) / _LULL_S


def _exponential(mean: float, chance: Chance) -> float:
    return -mean * math.log(1.0 - chance.uniform(0.0, 1.0 - 1e-12))
