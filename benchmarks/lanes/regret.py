"""Lane F in figures: Headgate, the best Faro variant, equal share and the clairvoyant in the same simulator.

Cold and warm switching, and which part of the way from the best Faro to the clairvoyant Headgate goes
(`lane_f_regret_`). First the simulator itself is held against published results (`lane_f_fidelity_`: the largest
relative difference of violations at 20 to 36 replicas). The short form is capacity 32 and one seed, with Faro and the
clairvoyant as the committed full result has them; the full one is every capacity with five seeds and takes hours.

    python -m benchmarks.lanes.regret --json FILE [--policies ...] [--capacities ...] [--modes ...] [--seeds 1]

runs a part of it and adds each figure to FILE as soon as it is there, so that hours of it can be taken in pieces; the
committed result was made so.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.lanes import baselines, faro, faro_rules, traces
from benchmarks.lanes.clairvoyant import Clairvoyant
from benchmarks.lanes.headgate_policy import Headgate, HeadgateBegun
from benchmarks.lanes.lane_f import CAPACITIES, MODES, SEEDS, PolicyFactory, measure
from benchmarks.running import side_by_side, write_json

POLICIES: dict[str, PolicyFactory] = {
    "headgate": Headgate,
    "headgate_begun": HeadgateBegun,
    "faro_sum": lambda lane: faro.Faro(lane, "sum"),
    "faro_fair_sum": lambda lane: faro.Faro(lane, "fair_sum"),
    "equal_share": baselines.EqualShare,
    "clairvoyant": Clairvoyant,
}
FARO = ("faro_sum", "faro_fair_sum")
SLOW = (*FARO, "clairvoyant")
RESULTS = traces.ROOT / "benchmarks" / "results" / "allocation-lane-f.json"

_PUBLISHED = {"equal_share": (baselines.EqualShare, "FairShare"), "additive": (faro_rules.AIAD, "AIAD")}
_COMPARED, _COMPARED_SHORT = (20, 24, 28, 32, 36), (32,)


def key_of(name: str, capacity: int, mode: str) -> str:
    """The key of a policy's violations; Headgate's own have no name in it."""
    return f"lane_f_{capacity}_{mode}" + ("" if name == "headgate" else f"_{name}")


def run(
    policies: Sequence[str], capacities: Sequence[int], modes: Sequence[str], seeds: Sequence[int]
) -> dict[str, float]:
    """Violations, lost utility and moves per hour of each policy, the mean of the seeds."""
    result: dict[str, float] = {}
    for mode in modes:
        for capacity in capacities:
            for name in policies:
                runs = [measure(POLICIES[name], capacity, seed, mode) for seed in seeds]
                late, lost, moves = (
                    float(np.mean([one[kind] for one in runs]))
                    for kind in ("violations", "lost_utility", "moves_per_hour")
                )
                key = key_of(name, capacity, mode)
                result |= {key: round(late, 5), f"{key}_lost_utility": round(lost, 4)}
                if len(runs) > 1:
                    spread = float(np.std([one["violations"] for one in runs], ddof=1))
                    result[f"{key}_ci95"] = round(1.96 * spread / len(runs) ** 0.5, 5)
                print(f"{mode:5} {capacity:3} {name:16} {late:.4f} {lost:7.3f} {moves:6.0f} moves/h", flush=True)
    return result


def close(found: dict[str, float], committed: dict[str, float] | None = None) -> dict[str, float]:
    """Which part of the way from the best Faro to the clairvoyant is gone, by mode and capacity, and the least.

    `committed` has the ends of the way where `found` has not both; what comes of it is named `_ends_as_committed`.
    """
    result: dict[str, float] = {}
    for mode in MODES:
        closed: list[float] = []
        for capacity in CAPACITIES:
            keys = [key_of(name, capacity, mode) for name in SLOW]
            fresh = all(key in found for key in keys)
            source = found if fresh else committed or {}
            mine, best = found.get(key_of("headgate", capacity, mode)), source.get(keys[-1])
            theirs = min((source[key] for key in keys[:-1] if key in source), default=None)
            if mine is None or best is None or theirs is None or theirs <= best:
                continue
            part = round((theirs - mine) / (theirs - best), 3)
            result[f"lane_f_regret_{mode}_{capacity}" + ("" if fresh else "_ends_as_committed")] = part
            closed.append(part)
        if closed:
            result[f"lane_f_regret_{mode}_min"] = min(closed)
    return result


def check_fidelity(capacities: Sequence[int]) -> dict[str, float]:
    """How far the simulator is from what Faro's authors published of theirs, at the worst capacity."""
    published = traces.load_published()
    result: dict[str, float] = {}
    for name, (make, known_as) in _PUBLISHED.items():
        off = [0.0]
        for capacity in capacities:
            known = published.get((known_as, capacity))
            if known is not None:
                off.append(abs(measure(make, capacity)["faro_violations"] / known[0] - 1.0))
        result[f"lane_f_fidelity_{name}_max"] = round(max(off), 4)
        print(f"{name:12} at most {max(off):.1%} from what was published, at {capacities} replicas", flush=True)
    return result


def load_committed() -> dict[str, float]:
    """The committed figures of the lane; none when there are none yet."""
    return json.loads(Path(RESULTS).read_text(encoding="utf-8")) if RESULTS.exists() else {}


def figures(*, full: bool) -> dict[str, float]:
    """The lane's figures."""
    if full:
        found = check_fidelity(_COMPARED) | run(tuple(POLICIES), CAPACITIES, tuple(MODES), SEEDS)
        return found | close(found)
    mine = [partial(run, ("headgate",), (32,), (mode,), SEEDS[:1]) for mode in MODES]
    found = side_by_side([*mine, partial(check_fidelity, _COMPARED_SHORT)])
    print("Faro and the clairvoyant are not run again here: their figures are those of the committed result.")
    closed = close(found, load_committed())
    for name, value in closed.items():
        print(f"{name:44} {value:.1%}")
    return found | closed


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line of a part of the lane."""
    parser = argparse.ArgumentParser(prog="benchmarks.lanes.regret", description=__doc__.partition("\n")[0])
    parser.add_argument("--json", required=True, help="add the figures to this file")
    parser.add_argument("--policies", nargs="*", choices=tuple(POLICIES), default=tuple(POLICIES))
    parser.add_argument("--capacities", nargs="*", type=int, default=CAPACITIES)
    parser.add_argument("--modes", nargs="*", choices=tuple(MODES), default=tuple(MODES))
    parser.add_argument("--seeds", type=int, default=1, help="how many")
    parser.add_argument("--fidelity", action="store_true", help="hold the simulator against published results first")
    asked = parser.parse_args(arguments)
    if asked.fidelity:
        _add(asked.json, check_fidelity(_COMPARED))
    for mode in asked.modes:
        for capacity in asked.capacities:
            for name in asked.policies:
                _add(asked.json, run((name,), (capacity,), (mode,), SEEDS[: asked.seeds]))


def _add(path: str, found: dict[str, float]) -> None:
    """Add figures to those of a file, and say anew what is gone of the way."""
    known = json.loads(Path(path).read_text(encoding="utf-8")) if Path(path).exists() else {}
    known = {key: value for key, value in known.items() if "_regret_" not in key} | found
    write_json(path, known | close(known))


if __name__ == "__main__":
    main()
