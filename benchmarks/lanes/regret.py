"""Lane F in a few figures: Headgate, the best Faro variant, equal share and the clairvoyant in the same simulator.

Cold and warm switching, and which part of the way from the best Faro to the clairvoyant Headgate goes
(`lane_f_regret_`). The short form is capacity 32 and one seed; the full one is every capacity with five seeds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.lanes import baselines, faro
from benchmarks.lanes.clairvoyant import Clairvoyant
from benchmarks.lanes.headgate_policy import Headgate
from benchmarks.lanes.lane_f import CAPACITIES, SEEDS, PolicyFactory, measure

POLICIES: dict[str, PolicyFactory] = {
    "headgate": Headgate,
    "faro_sum": lambda lane: faro.Faro(lane, "sum"),
    "faro_fair_sum": lambda lane: faro.Faro(lane, "fair_sum"),
    "equal_share": baselines.EqualShare,
    "clairvoyant": Clairvoyant,
}


def run(
    policies: Sequence[str], capacities: Sequence[int], modes: Sequence[str], seeds: Sequence[int]
) -> dict[str, float]:
    """Violations of each policy ('lane_f_CAPACITY_MODE' is Headgate's own), and what of the regret is closed."""
    result: dict[str, float] = {}
    for mode in modes:
        closed: list[float] = []
        for capacity in capacities:
            seen: dict[str, float] = {}
            for name in policies:
                runs = [measure(POLICIES[name], capacity, seed, mode) for seed in seeds]
                seen[name] = float(np.mean([one["violations"] for one in runs]))
                lost = float(np.mean([one["lost_utility"] for one in runs]))
                moves = float(np.mean([one["moves_per_hour"] for one in runs]))
                key = f"lane_f_{capacity}_{mode}" + ("" if name == "headgate" else f"_{name}")
                result |= {key: round(seen[name], 5), f"{key}_lost_utility": round(lost, 4)}
                print(f"{mode:5} {capacity:3} {name:16} {seen[name]:.4f} {lost:7.3f} {moves:6.0f} moves/h", flush=True)
            best = min((value for name, value in seen.items() if name.startswith("faro")), default=None)
            if best is not None and "clairvoyant" in seen and best > seen["clairvoyant"]:
                part = (best - seen["headgate"]) / (best - seen["clairvoyant"])
                result[f"lane_f_regret_{mode}_{capacity}"] = round(part, 3)
                closed.append(part)
        if closed:
            result[f"lane_f_regret_{mode}_min"] = round(min(closed), 3)
    return result


def figures(*, full: bool) -> dict[str, float]:
    """The lane's figures."""
    capacities, seeds = (CAPACITIES, SEEDS) if full else ((32,), SEEDS[:1])
    return run(tuple(POLICIES), capacities, ("cold", "warm"), seeds)
