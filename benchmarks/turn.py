"""How long a whole turn's decision takes: value curves, solver, and a seat on a device for every replica.

    python benchmarks/turn.py --json FILE

`decision.py` times the choice of how many; this times `policy.decide`, which also says where, keeps who sits, and tells
why. Each pipeline has two configurations in two of four pools, nodes have 16 devices, shares are a quarter, a half and
one; the first decision's replicas run, then rates move by about 7 % each turn. Processor time of one thread, the least
of three goes at each turn; of the first one, for which nothing runs and no table is made yet, there is one go.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.running import write_json
from headgate.allocation.capacity import Capacity, Node, Pool
from headgate.allocation.demand import Demand
from headgate.allocation.pipeline import Configuration, PipelineSpec
from headgate.allocation.policy import decide
from headgate.allocation.state import Allocation, Running, State

SIZES = (10, 100, 500)
POOLS, DEVICES = 4, 16
SERVICE_S = 0.5


def make_state(chance: np.random.Generator, pipelines: int) -> State:
    """Pipelines that ask for about as many replicas as there is room for."""
    nodes = [
        Node(name=f"n{number}", devices=tuple(range(DEVICES)), share=float(DEVICES), memory_bytes=10**12)
        for number in range(max(1, pipelines // 25))
    ]
    pools = tuple(Pool(name=f"p{number}", kind="cpu", nodes=tuple(nodes)) for number in range(POOLS))
    specs = tuple(
        PipelineSpec(
            name=f"a{number:04}",
            configurations=tuple(
                Configuration(
                    key=f"{number}-{pool}",
                    pool=f"p{pool}",
                    share=float(chance.choice([0.25, 0.5, 1.0])),
                    slots=4,
                    memory_bytes=10**9,
                    wake_s=0.2,
                )
                for pool in chance.choice(POOLS, 2, replace=False)
            ),
            cap=16,
        )
        for number in range(pipelines)
    )
    rates = dict(zip((spec.name for spec in specs), chance.exponential(6.0, pipelines).tolist(), strict=True))
    return State(at=0.0, capacity=Capacity(pools=pools), pipelines=specs, demands=_demands(rates))


def _demands(rates: dict[str, float]) -> dict[str, Demand]:
    return {
        name: Demand(
            arrivals_per_s=rate, in_flight=int(rate * SERVICE_S), concurrency=rate * SERVICE_S, service_s=SERVICE_S
        )
        for name, rate in rates.items()
    }


def _seated(allocation: Allocation) -> tuple[Running, ...]:
    return tuple(
        Running(
            id=seat.replica or f"r{number:05}-{seat.pipeline}",
            pipeline=seat.pipeline,
            configuration=seat.configuration,
            pool=seat.pool,
            node=seat.node,
            devices=seat.devices,
            share=seat.share,
            memory_bytes=seat.memory_bytes,
            stage="ready",
        )
        for number, seat in enumerate(allocation.seats)
    )


def measure(pipelines: int, cases: int, turns: int) -> tuple[list[float], list[float], int]:
    """Milliseconds of the first turns and of each further one, and the replicas of the last one."""
    firsts: list[float] = []
    found: list[float] = []
    replicas = 0
    for seed in range(cases):
        chance = np.random.default_rng((pipelines, seed))
        state = make_state(chance, pipelines)
        began = time.thread_time()
        allocation = decide(state)
        firsts.append(1e3 * (time.thread_time() - began))
        for turn in range(1, turns + 1):
            rates = {name: one.arrivals_per_s * np.exp(chance.normal(0.0, 0.07)) for name, one in state.demands.items()}
            state = replace(
                state, at=float(turn), demands=_demands(rates), running=_seated(allocation), prices=allocation.prices
            )
            least = np.inf
            for _ in range(3):
                began = time.thread_time()
                allocation = decide(state)
                least = min(least, time.thread_time() - began)
            found.append(1e3 * least)
            replicas = len(allocation.seats)
    return firsts, found, replicas


def figures(*, full: bool) -> dict[str, float]:
    """The table, printed, and its numbers."""
    print("pipelines pools  replicas   turn ms p50      p99  first one")
    result: dict[str, float] = {}
    for pipelines in SIZES:
        firsts, found, replicas = measure(pipelines, *((8, 5) if full else (2, 2)))
        middle, high = (round(float(np.percentile(found, part)), 2) for part in (50, 99))
        first = round(float(np.median(firsts)), 2)
        print(f"{pipelines:9} {POOLS:5} {replicas:9} {middle:13.1f} {high:8.1f} {first:10.1f}", flush=True)
        result |= {f"turn_ms_p50_{pipelines}": middle, f"turn_ms_p99_{pipelines}": high}
        result[f"turn_first_ms_{pipelines}"] = first
    return result


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", help="write the result here")
    asked = parser.parse_args()
    write_json(asked.json, figures(full=True))


if __name__ == "__main__":
    main()
