"""ServeGen: production clients of language models as pipelines, in windows of ten minutes over seven days.

Owns what the trace says (arrivals and token lengths) and the requests drawn from it. Knows nothing of units, SLOs or
policies. Source: ServeGen (Y. Xiang et al., 2025), github.com/alibaba/ServeGen, Apache-2.0.
"""

from __future__ import annotations

import csv
import gzip
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.lanes.traces import data_path
from headgate.allocation.arrays import Floats, Ints

WINDOW_S, DAY_S = 600.0, 86400.0
TUNING, REPORTED = (1, 5), (6, 7)
"""Days (first and last) on which constants are chosen, and those that figures come from."""

MEAN, P50, P95, P99 = 0, 1, 2, 3
"""Columns of token lengths."""

_WINDOWS = 1008
_PERIOD_S = 21600.0  # of the token lengths
_WAYS = ("in", "out")
_MOST_DRAWN = 4096  # gaps of one window; of busier ones several gaps are drawn as one


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeGen:
    """Pipelines P in windows W of WINDOW_S seconds, of which `first` is counted from the trace's begin.

    `rate` [P, W] is requests per second (0: no requests), `cv` the coefficient of variation of the gaps between them,
    `weibull` the family of the gaps (else Gamma), `shape` that family's shape for that coefficient. `inputs` and
    `outputs` [P, W, 4] are tokens of a request (columns MEAN, P50, P95, P99).
    """

    names: tuple[str, ...]
    first: int
    rate: Floats
    cv: Floats
    weibull: npt.NDArray[np.bool_]
    shape: Floats
    inputs: Floats
    outputs: Floats

    def take(self, pipelines: Sequence[int]) -> ServeGen:
        """Only these pipelines, by number, in this order."""
        chosen = np.asarray(pipelines, np.int64)
        return replace(self, names=tuple(self.names[number] for number in chosen), **self._arrays(chosen))

    def windows(self, begins: int, ends: int) -> ServeGen:
        """Only windows from number `begins` until before `ends`, counted from the first one here."""
        return replace(self, first=self.first + begins, **self._arrays(np.s_[:, begins:ends]))

    def days(self, days: tuple[int, int]) -> ServeGen:
        """Only the days from the first to the last that are named, counted from 1 at the trace's begin."""
        first, last = (round(number * DAY_S / WINDOW_S) - self.first for number in (days[0] - 1, days[1]))
        return self.windows(first, last)

    def _arrays(self, part: Any) -> dict[str, Any]:
        names = ("rate", "cv", "weibull", "shape", "inputs", "outputs")
        return {name: getattr(self, name)[part] for name in names}

    def counts(self, seed: int, step_s: float = 1.0) -> Ints:
        """Requests that come in each step [P, steps]; every window has exactly the number that the trace says.

        `step_s` must divide WINDOW_S, or raises ValueError.
        """
        return np.stack([self.counts_of(number, seed, step_s) for number in range(len(self.names))])

    def counts_of(self, pipeline: int, seed: int, step_s: float = 1.0) -> Ints:
        """Requests of one pipeline in each step [steps], as `counts` has them.

        Each window of each pipeline has its own chance, so a part of the trace has the requests of the whole.
        """
        steps = round(WINDOW_S / step_s)
        if abs(steps * step_s - WINDOW_S) > 1e-9:
            raise ValueError(f"step_s: {step_s} does not divide a window of {WINDOW_S:.0f} s")
        name = self.names[pipeline].encode()
        counts = np.zeros((self.rate.shape[1], steps), np.int64)
        for window in np.flatnonzero(self.rate[pipeline]):
            requests = round(self.rate[pipeline, window] * WINDOW_S)
            chance = np.random.default_rng([seed, self.first + int(window), *name])
            until, came = _knots(requests, self.shape[pipeline, window], bool(self.weibull[pipeline, window]), chance)
            edges = np.interp(np.arange(1, steps + 1) / steps, until, came)
            counts[window] = np.diff(np.floor(edges + 1e-9), prepend=0.0)
        return counts.reshape(-1)


def _knots(requests: int, shape: float, weibull: bool, chance: np.random.Generator) -> tuple[Floats, Floats]:
    """How many `requests` of a window have come (second) until when (first, as a part of the window); lines between.

    Renewal: one gap more than requests, of the family with its shape, stretched to fill the window, for the trace
    counted what came in it. In busy windows m Gamma gaps are drawn as one Gamma gap of m times the shape; for Weibull
    that has the same first two moments.
    """
    together = -(-requests // _MOST_DRAWN)
    size = -(-requests // together)
    if weibull and together == 1:
        gaps = chance.weibull(shape, size + 1)
    else:
        alone = _weibull_cv(shape) ** -2 if weibull else shape
        gaps = chance.standard_gamma(np.append(np.full(size, together * alone), alone))
    if gaps.sum() <= 0.0:  # so uneven that all but one are too small for a number
        gaps[chance.integers(len(gaps))] = 1.0
    came = np.minimum(np.arange(size + 2.0) * together, requests)
    return np.concatenate([[0.0], np.minimum(np.cumsum(gaps[:-1]) / gaps.sum(), 1.0), [1.0]]), came


def _weibull_shape(cv: Floats) -> Floats:
    """The shape of a Weibull distribution of these coefficients of variation."""
    shapes = np.geomspace(20.0, 0.1, 400)
    return np.interp(cv, [_weibull_cv(shape) for shape in shapes], shapes)


def _weibull_cv(shape: float) -> float:
    return math.sqrt(math.gamma(1.0 + 2.0 / shape) / math.gamma(1.0 + 1.0 / shape) ** 2 - 1.0)


@lru_cache(maxsize=1)
def load() -> ServeGen:
    """All seven days of the language clients whose token lengths are known: 290 of the 345 in the file.

    Lengths are those of the period of six hours, or the nearest one that has any. Image clients have no input lengths.
    Why shapes from the coefficient of variation: the file's own are fits, the same for Gamma, but for Weibull they
    miss the rate that was counted by a factor of 2 and more in a tenth of the windows.
    """
    lengths: dict[str, dict[int, tuple[list[float], list[float]]]] = {}
    for row in _rows("traces/servegen_tokens_days1-7.csv.gz"):
        if row["in_mean"] and row["out_mean"]:
            told = [[float(row[f"{way}_{column}"]) for column in ("mean", "p50", "p95", "p99")] for way in _WAYS]
            lengths.setdefault(_name(row), {})[int(float(row["t_s"]) / _PERIOD_S)] = (told[0], told[1])
    windows = list(_rows("traces/servegen_windows_days1-7.csv.gz"))
    names = tuple(sorted({_name(row) for row in windows} & set(lengths)))
    place = {name: number for number, name in enumerate(names)}
    told = np.array(
        [
            (place[_name(row)], float(row["t_s"]) // WINDOW_S, float(row["rate_rps"]), float(row["cv"]),
             row["dist"] == "Weibull")
            for row in windows
            if _name(row) in place
        ]
    ).T  # fmt: skip
    where = told[0].astype(np.int64), told[1].astype(np.int64)
    rate, weibull = np.zeros((2, len(names), _WINDOWS))
    cv = np.ones_like(rate)
    rate[where], cv[where], weibull[where] = told[2:]
    shape = np.where(weibull > 0.0, _weibull_shape(cv), cv**-2.0)
    inputs, outputs = (np.stack([_by_window(lengths[name], way) for name in names]) for way in (0, 1))
    arrays = {"rate": rate, "cv": cv, "weibull": weibull > 0.0, "shape": shape, "inputs": inputs, "outputs": outputs}
    return ServeGen(names=names, first=0, **arrays)


def _rows(name: str) -> Iterator[dict[str, str]]:
    with gzip.open(data_path(name), "rt", newline="", encoding="utf-8") as file:
        yield from csv.DictReader(file)


def _name(row: dict[str, str]) -> str:
    return f"{row['model']}/{row['client']}"


def _by_window(known: dict[int, tuple[list[float], list[float]]], way: int) -> Floats:
    """Token lengths [W, 4] from those of the periods that are known."""
    periods = np.array(sorted(known))
    wanted = (np.arange(_WINDOWS) * WINDOW_S // _PERIOD_S).astype(np.int64)
    nearest = np.abs(wanted[:, None] - periods).argmin(axis=1)
    return np.array([known[int(period)][way] for period in periods])[nearest]
