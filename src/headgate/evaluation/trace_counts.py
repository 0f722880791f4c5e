"""Traces that tell only sums: requests per minute, or rate and burstiness in windows. Moments are drawn by a seed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from headgate.allocation.arrays import Floats
from headgate.evaluation.trace_rows import ALL
from headgate.evaluation.traces import Gathered, Reading, Rows, Trace

MINUTE_S = 60.0
WINDOW_S = 600.0
"""Source: ServeGen's windows of ten minutes (github.com/alibaba/ServeGen)."""

_MOST_IN_STEP = 10_000_000
_NUMBERS = ("minute", "index")  # columns that count rows


def load_counts(rows: Rows, header: Sequence[str], reading: Reading) -> Trace:
    """A trace with a row for each minute: requests come at moments drawn evenly within it. Raises BadRequest."""
    names = [one.strip() for one in header]
    if len(set(names)) != len(names) or not all(names):
        rows.refuse("its header names a column twice or not at all", "Give each pipeline a column and a name.")
    step_s = reading.step_s or MINUTE_S
    chance = np.random.default_rng([reading.seed, 1])
    gathered = Gathered(rows, reading.pipelines)
    number = 0
    for number, row in enumerate(rows.cells(len(names))):
        begin = number * step_s
        if reading.until_s is not None and begin >= reading.until_s:
            break
        for name, text in zip(names, row, strict=True):
            if name.lower() in _NUMBERS:
                continue
            count = rows.count(text.strip() or "0", name)
            if count != int(count) or count > _MOST_IN_STEP:
                rows.refuse(f"{name} is {text[:60]!r}", "Write how many requests came, a whole number.")
            # Every draw is made, so that a pipeline's arrivals do not depend on which others are asked for.
            gathered.add_all(name, begin + step_s * np.sort(chance.random(int(count))))
    note = f"{step_s:g} s in each row; moments within it drawn evenly with seed {reading.seed}"
    return gathered.build("counts", [note], begin=0.0, step_s=step_s)


def load_windows(rows: Rows, header: Sequence[str], reading: Reading) -> Trace:
    """A trace of ServeGen: in each window a client's requests come with Gamma or Weibull gaps. Raises BadRequest.

    The pipeline is 'model/client'. A window has just as many requests as its rate says (a part of one by chance), its
    gaps have the shape of its distribution (p1) and fill it.
    Why not the scale (p2) as well: the fits miss the measured rate by up to half, and load is what capacity answers to.
    """
    names = [one.strip().lower() for one in header]
    missing = [one for one in ("t_s", "rate_rps", "dist", "p1") if one not in names]
    if missing:
        rows.refuse(f"columns are missing: {', '.join(missing)}", "Name them in the header, or say another --format.")
    place = {name: number for number, name in enumerate(names)}
    who = [place[one] for one in ("model", "client") if one in place]
    step_s = reading.step_s or WINDOW_S
    gathered = Gathered(rows, reading.pipelines)
    for number, row in enumerate(rows.cells(len(names))):
        begin = rows.count(row[place["t_s"]].strip(), "t_s")
        rate = rows.count(row[place["rate_rps"]].strip(), "rate_rps")
        if math.isnan(begin) or math.isnan(rate) or rate * step_s > _MOST_IN_STEP:
            rows.refuse("t_s or rate_rps is empty or too large", "Write seconds, and requests per second.")
        if reading.until_s is not None and begin >= reading.until_s:
            continue
        # A generator of its own for each row: what is drawn for it does not depend on which others are read.
        chance = np.random.default_rng([reading.seed, 2, number])
        count = int(rate * step_s + chance.random())
        at = begin + step_s * _arrive(rows, chance, count, row[place["dist"]].strip(), row[place["p1"]].strip())
        gathered.add_all("/".join(row[one].strip() for one in who) or ALL, at)
    note = f"windows of {step_s:g} s; gaps of their distributions drawn with seed {reading.seed}"
    return gathered.build("windows", [note], begin=0.0, step_s=step_s)


def _arrive(rows: Rows, chance: np.random.Generator, count: int, family: str, shape: str) -> Floats:
    """The moments of `count` requests in a window of 1, in order."""
    if not count:
        return np.zeros(0)
    told = rows.count(shape, "p1") if shape else 1.0
    kind = family.lower()
    if kind not in ("gamma", "weibull", "exponential", "exp") or not 1e-3 <= told <= 1e4:
        rows.refuse(
            f"dist is {family[:40]!r} with p1 {shape[:40]!r}", "Write Gamma, Weibull or Exponential and a shape."
        )
    if kind == "gamma":
        gaps = chance.gamma(told, 1.0, count + 1)
    elif kind == "weibull":
        gaps = chance.weibull(told, count + 1)
    else:
        gaps = chance.exponential(1.0, count + 1)
    total = gaps.sum()
    if not 0.0 < total < math.inf:  # a shape so small that all gaps vanish: everything comes at once
        return np.zeros(count)
    return np.cumsum(gaps[:-1]) / total
