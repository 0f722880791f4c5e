"""The table of lane F: every policy at every capacity, published figures beside where there are any."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.lanes import baselines, clairvoyant, faro, faro_rules, headgate_policy, traces, wva
from benchmarks.lanes.lane_f import PolicyFactory, measure

POLICIES: dict[str, tuple[PolicyFactory, str | None]] = {
    "Headgate": (headgate_policy.Headgate, None),
    "clairvoyant": (clairvoyant.Clairvoyant, None),
    "equal share": (baselines.EqualShare, "FairShare"),
    "load-proportional": (baselines.LoadProportional, None),
    "HPA 70 %": (baselines.HPA, None),
    "Knative KPA": (baselines.KPA, None),
    "Ray Serve": (baselines.RayServe, None),
    "Wallaroo": (baselines.Wallaroo, None),
    "llm-d WVA": (wva.WVA, None),
    "Oneshot": (faro_rules.Oneshot, "Oneshot"),
    "AIAD": (faro_rules.AIAD, "AIAD"),
    "MArk": (faro.MArk, "MArk/Cocktail/Barista"),
    "Faro-Sum": (lambda lane: faro.Faro(lane, "sum"), "Faro-Sum"),
    "Faro-Fair": (lambda lane: faro.Faro(lane, "fair"), "Faro-Fair"),
    "Faro-FairSum": (lambda lane: faro.Faro(lane, "fair_sum"), "Faro-FairSum"),
    "Faro-FairSum, foresight": (lambda lane: faro.Faro(lane, "fair_sum", foresight=True), None),
}
"""Name -> (how it is made, its name in Faro's published results)."""


def print_table(
    names: Sequence[str] | None, capacities: Sequence[int], modes: Sequence[str], seeds: Sequence[int], path: str | None
) -> None:
    """Measure and print violations / lost utility / moves per hour; write all figures as JSON to `path`."""
    published = traces.load_published()
    rows: list[dict[str, Any]] = []
    for mode in modes:
        print(f"\n{mode}: SLO violations, lost utility (of 10), moves per hour; [published by Faro's authors]")
        for name in names or POLICIES:
            make, known_as = POLICIES[name]
            for capacity in capacities:
                runs = [measure(make, capacity, seed, mode) for seed in seeds]
                rows += [{"policy": name, **one} for one in runs]
                known = published.get((known_as or "", capacity)) if mode == "cold" else None
                print(f"{name:24} {capacity:3}  {_line(runs)}  {_beside(runs, known)}", flush=True)
    if path:
        Path(path).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def _mean(runs: Sequence[dict[str, Any]], key: str) -> float:
    return float(np.mean([one[key] for one in runs]))


def _line(runs: Sequence[dict[str, Any]]) -> str:
    return (
        f"{_mean(runs, 'violations'):.4f} {_mean(runs, 'lost_utility'):7.3f} {_mean(runs, 'moves_per_hour'):6.0f}"
        f" {_mean(runs, 'seconds'):6.1f} s"
    )


def _beside(runs: Sequence[dict[str, Any]], known: tuple[float, float] | None) -> str:
    if known is None:
        return ""
    violations, lost = known
    off = [_mean(runs, "faro_violations") / violations - 1.0, _mean(runs, "faro_lost_utility") / lost - 1.0]
    return f"[{violations:.4f} {lost:7.3f}]  ours, reckoned alike: {off[0]:+.1%} {off[1]:+.1%}"
