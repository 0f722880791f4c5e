"""What the allocation is worth: `python -m benchmarks.allocation --json FILE [--lane LANE] [--full]`.

Lanes are F, S, H, X, live, decision and turn. Without `--lane` a short form of all is checked, in about a minute;
`--full` does everything: whole curves over capacity, five seeds and every baseline, and takes hours. Each lane is a
module with `figures(full)`.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.running import side_by_side, write_json

LANES = {
    "F": "benchmarks.lanes.regret",
    "S": "benchmarks.lanes.lane_s",
    "H": "benchmarks.lanes.lane_h",
    "X": "benchmarks.lanes.lane_x",
    "live": "benchmarks.lanes.live",
    "decision": "benchmarks.decision",
    "turn": "benchmarks.turn",
}
TIMED = ("decision", "turn")  # nothing else may run beside them


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", help="write the result here")
    parser.add_argument("--lane", choices=tuple(LANES), help="only this one")
    parser.add_argument("--full", action="store_true", help="whole curves, five seeds, every baseline: hours")
    asked = parser.parse_args()
    if asked.lane or asked.full:
        result = {}
        for lane in [asked.lane] if asked.lane else LANES:
            result |= run_lane(lane, full=asked.full)
    else:
        result = run_lane("F", full=False)
        result |= side_by_side([partial(run_lane, lane, full=False) for lane in LANES if lane not in ("F", *TIMED)])
        for lane in TIMED:
            result |= run_lane(lane, full=False)
    write_json(asked.json, result)


def run_lane(lane: str, *, full: bool) -> dict[str, float]:
    """The figures of one lane, printed under its name."""
    print(f"\n== lane {lane}", flush=True)
    return import_module(LANES[lane]).figures(full=full)


if __name__ == "__main__":
    main()
