"""Learns what `allocation.spread` multiplies by, and writes its table: `python -m benchmarks.lanes.learn_spread`.

ServeGen's days 1 to 5 and nothing else, in groups by which nothing is judged (seeds 17 to 40), played at
several paces, in lines from window to window and in steps. The forecasts run over them; what they saw and how wrong
they were gives three lines by the weighted quantile loss, for windows of several lengths at once. Takes ten minutes.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.lanes.traces import ROOT
from benchmarks.lanes.tune import Ground, draw_ground
from headgate.allocation import spread
from headgate.allocation.arrays import Floats
from headgate.allocation.forecast import DEFAULTS as FORECAST
from headgate.allocation.forecast import PROBABILITIES, WEIGHTS, Forecasts
from headgate.allocation.settings import DEFAULTS

SEEDS = range(17, 41)
WAYS = ((60.0, False), (120.0, False), (60.0, True), (240.0, False), (120.0, True), (30.0, False))  # pace_s, steps
STARTS_S = (3.0, 12.0, 35.0, 90.0)
TICK_S, EVERY, FIRST = 3.0, 8, 4  # what is seen is kept at every eighth tick
EPOCHS, BATCH, PACE, SHRINK = 8, 4096, 0.01, 1e-4
OUTER = 0.002  # of what was seen is beyond the bounds, at each end
TABLE = ROOT / "src" / "headgate" / "allocation" / "spread_table.py"

_NAMES = (
    "always", "own errors above", "own errors below", "middle of own errors", "short moves",
    *(f"{way}, {pair}" for way in ("rise", "fall") for pair in ("10 s beside 30 s", "30 s beside 90 s",
      "90 s beside 5 min", "5 min beside 1 h")),
    "above the least minute", "below the most", "below two hours' most", "young", "counted", "ends at",
)  # fmt: skip


def watch(ground: Ground) -> list[tuple[Floats, Floats, Floats]]:
    """For each window: what was seen [N, F], by how much the logarithm was wrong [N], and how much that counts [N]."""
    windows = [window for start_s in STARTS_S for window in DEFAULTS.windows(start_s)]
    kept: list[tuple[Floats, Floats]] = []
    place = spread.place

    def look_on(seen: Floats, mixed: Floats, begins_s: float, ends_s: float) -> Floats:
        kept.append((place(seen, mixed, begins_s, ends_s), mixed))
        return kept[-1][0]

    ticks = round(ground.minutes * 60.0 / TICK_S)
    edges = np.arange(ticks + 1) * TICK_S
    counts = np.stack([np.histogram(one.at, edges)[0] for one in ground.requests], axis=1)
    total = np.vstack([np.zeros(counts.shape[1]), np.cumsum(counts, axis=0)])
    forecasts, names, asked = Forecasts(), [f"{number:05}" for number in range(counts.shape[1])], list[float]()
    spread.place = look_on
    for tick, row in enumerate(counts):
        forecasts.learn(dict(zip(names, row.tolist(), strict=True)), TICK_S)
        forecasts.forecast(names[0], windows)
        if tick >= FIRST and tick % EVERY == 0:
            asked.append(edges[tick + 1])
        else:
            del kept[-len(windows) :]
    spread.place = place

    def until(moments: Floats) -> Floats:
        return np.stack([np.interp(moments, edges, one, right=np.nan) for one in total.T], axis=1)

    found: list[tuple[Floats, Floats, Floats]] = []
    for number, window in enumerate(windows):
        seen, mixed = (np.stack(each) for each in zip(*kept[number :: len(windows)], strict=True))
        came = until(np.array(asked) + window.ends_s) - until(np.array(asked) + window.begins_s)
        wrong = np.log(came / (window.ends_s - window.begins_s) + FORECAST.floor_rate) - mixed
        there = ~np.isnan(wrong).any(axis=1)
        rows = seen[there].transpose(0, 2, 1).reshape(-1, seen.shape[1])
        found.append((rows, wrong[there].ravel(), np.exp(0.5 * mixed[there]).ravel()))
    return found


def fit(seen: Floats, wrong: Floats, counts: Floats) -> tuple[Floats, Floats, Floats]:
    """Lines [3, F], bounds [2, F] of what was seen, and the shape [Q], by the quantile loss.

    Source: Adam (D. Kingma and J. Ba, 2015).
    """
    bounds = np.quantile(seen[::7], (OUTER, 1.0 - OUTER), axis=0)
    seen = np.clip(seen, bounds[0], bounds[1])
    mean, wide = seen.mean(axis=0), seen.std(axis=0)
    mean[0], wide[0] = 0.0, 1.0
    scaled = (seen - mean) / wide
    upper = np.array(PROBABILITIES) > 0.5
    lines, shape = np.zeros((3, seen.shape[1])), np.array([-2.0, -1.28, -0.67, 0.0, 0.67, 1.28, 2.0])
    lines[1:, 0] = -1.6
    shrink = np.full(lines.shape, SHRINK)
    shrink[:, 0] = 0.0
    first, second = [np.zeros_like(lines), np.zeros_like(shape)], [np.zeros_like(lines), np.zeros_like(shape)]
    chance, batches = np.random.default_rng(0), len(wrong) // BATCH
    order = chance.permutation(len(wrong))
    for step in range(1, EPOCHS * batches + 1):
        if step > 1 and (step - 1) % batches == 0:
            order = chance.permutation(len(wrong))
        some = order[(step - 1) % batches * BATCH :][:BATCH]
        middle, above, below = (scaled[some] @ lines.T).T
        above, below = np.exp(np.clip([above, below], -6.0, 2.0))
        width = np.where(upper, above[:, None], below[:, None])
        beyond = wrong[some, None] > middle[:, None] + width * shape
        pull = np.where(beyond, -np.array(PROBABILITIES), 1.0 - np.array(PROBABILITIES)) * np.array(WEIGHTS)
        pull *= counts[some, None] / BATCH
        by_width = pull * width * shape
        sides = np.stack([pull.sum(axis=1), by_width[:, upper].sum(axis=1), by_width[:, ~upper].sum(axis=1)])
        slopes = (sides @ scaled[some] + shrink * lines, (pull * width).sum(axis=0) * (shape != 0.0))
        pace = PACE * (1.0 - step / (EPOCHS * batches + 1)) + 1e-5
        for number, (value, slope) in enumerate(zip((lines, shape), slopes, strict=True)):
            first[number] = 0.9 * first[number] + 0.1 * slope
            second[number] = 0.99 * second[number] + 0.01 * slope**2
            steep = np.sqrt(second[number] / (1.0 - 0.99**step)) + 1e-8
            value -= pace * (first[number] / (1.0 - 0.9**step)) / steep
    told = lines / wide
    told[:, 0] = lines[:, 0] - (told * mean)[:, 1:].sum(axis=1)
    return told, bounds, shape


def write(path: Path, lines: Floats, bounds: Floats, shape: Floats) -> None:
    """The table as a module."""
    rows = zip(np.vstack([lines, bounds]).T, _NAMES, strict=True)
    told = "\n".join(f"        [{', '.join(_number(one) for one in row)}],  # {name}" for row, name in rows)
    path.write_text(
        '"""What `spread` multiplies by. Written by `python -m benchmarks.lanes.learn_spread`; '
        'not changed by hand."""\n'
        "\nfrom __future__ import annotations\n\nimport numpy as np\n\nLINES, BOUNDS = np.split(\n"
        "    np.array([  # the middle, the logarithm of the width above and below; the least and the most seen\n"
        f"{told}\n    ]).T,\n    (3,),\n)  # fmt: skip\n"
        f"SHAPE = np.array([{', '.join(_number(one) for one in shape)}])\n",
        encoding="utf-8",
    )


def _number(value: float) -> str:
    short = f"{value:.4g}"
    return short if "." in short or "e" in short else f"{short}.0"


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.lanes.learn_spread", description=__doc__)
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="how many groups")
    parser.add_argument("--to", type=Path, default=TABLE)
    asked = parser.parse_args(arguments)
    by_window: list[list[tuple[Floats, Floats, Floats]]] = []
    for number, seed in enumerate(SEEDS[: asked.seeds]):
        pace_s, steps = WAYS[number % len(WAYS)]
        by_window.append(watch(draw_ground(seed, pace_s=pace_s, steps=steps)))
        print(f"group {number + 1} of {asked.seeds}", flush=True)
    parts: list[tuple[Floats, Floats, Floats]] = []
    for each in zip(*by_window, strict=True):
        seen, wrong, counts = (np.concatenate(some) for some in zip(*each, strict=True))
        # Why: all windows count alike, near ones err by much more.
        parts.append((seen, wrong, counts / (np.abs(wrong) * counts).mean()))
    write(asked.to, *fit(*(np.concatenate(some) for some in zip(*parts, strict=True))))


if __name__ == "__main__":
    main()
