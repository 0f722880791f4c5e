"""How fast the simulator is: 2.7 million requests of ten pipelines in six hours, as many as lane F has.

    python -m benchmarks.simulator --json benchmarks/results/simulator.json

The trace is synthetic and seeded: Poisson arrivals whose rates swing in waves, pipelines of log-normal size. One run is
under a fixed split, which costs the simulator alone (`simulate_s`), one under the product's policy, which decides every
five seconds (`simulate_policy_s`, with --full only). Seconds are processor time of one thread, with compiled code at
hand (with --full the least of three runs); `simulate_first_s` is what a first short run takes, with loading that code.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.running import write_json
from headgate.evaluation.simulation import PolicyName, simulate
from headgate.evaluation.traces import Stream, Trace
from headgate.evaluation.what_if import Case, Terms, build_cases

SPAN_S = 6 * 3600.0
PIPELINES = 10
REQUESTS = 2_700_000
WORK_S = 0.15
DEVICES = 32.0


def make_trace(requests: int, seed: int = 1) -> Trace:
    """About so many requests: each pipeline has a wave of its own, log-normal in size."""
    chance = np.random.default_rng([seed, 9])
    size = chance.lognormal(0.0, 0.5, PIPELINES)
    streams = []
    for number, part in enumerate(size / size.sum()):
        count = int(part * requests)
        # Thinning of even arrivals by the wave, so that the count is exact.
        at = np.zeros(0)
        phase = chance.uniform(0.0, 2.0 * np.pi)
        while len(at) < count:
            drawn = chance.uniform(0.0, SPAN_S, 2 * count)
            wave = 0.6 + 0.4 * np.sin(drawn / 3600.0 * 2.0 * np.pi / 2.0 + phase)
            at = np.concatenate([at, drawn[chance.random(len(drawn)) < wave]])
        nothing = np.full(count, np.nan)
        streams.append(
            Stream(
                pipeline=f"p{number}",
                at=np.sort(at[:count]),
                prompt_tokens=nothing,
                output_tokens=nothing,
                seconds=chance.gamma(4.0, WORK_S / 4.0, count),
            )
        )
    return Trace(name="synthetic", format="requests", streams=tuple(streams), span_s=SPAN_S)


def make_case(requests: int) -> Case:
    """The trace on 32 replicas, three seconds to start one."""
    trace = make_trace(requests)
    terms = {one.pipeline: Terms(answer_s=0.75) for one in trace.streams}
    return build_cases(trace, terms, {"cpu": DEVICES})[0]


def timed(case: Case, policy: PolicyName, repeats: int) -> tuple[float, float]:
    """The least processor seconds of `repeats` runs, and the part of the requests that was late."""
    least, late = np.inf, 0.0
    for _ in range(repeats):
        begin = time.process_time()
        late = simulate(case, [policy])[0].late_requests
        least = min(least, time.process_time() - begin)
    return float(least), late


def figures(*, full: bool) -> dict[str, float]:
    """Print the table; the short form has one run, of the simulator alone."""
    repeats = 3 if full else 1
    runs: list[tuple[PolicyName, str]] = [("equal", "simulate_s")]
    if full:
        runs.append(("headgate", "simulate_policy_s"))
    first, _ = timed(make_case(20_000), "equal", 1)
    case = make_case(REQUESTS)
    count = sum(len(one.at) for one in case.served)
    result = {"simulate_requests": float(count), "simulate_first_s": first}
    print("policy                 requests   seconds   million/s     late")
    for policy, key in runs:
        seconds, late = timed(case, policy, repeats)
        result[key] = seconds
        print(f"{policy:20} {count:10,} {seconds:9.2f} {count / seconds / 1e6:11.2f} {100 * late:7.2f}%", flush=True)
    return result


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", help="write the result here")
    parser.add_argument("--full", action="store_true", help="also under the policy, and the least of three runs")
    asked = parser.parse_args()
    write_json(asked.json, dict(figures(full=asked.full)))


if __name__ == "__main__":
    main()
