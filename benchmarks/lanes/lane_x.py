"""Lane X: a place at its worst. Steps, bursts, lost nodes, wrong profiles, no forecasts, noise.

Eight pipelines of one request at a time share 24 replicas; 1 s is the SLO, 35 s a start unless the case says otherwise.
The loads are made up here and drawn anew by seed; nothing is tuned on them. Every policy begins with equal shares.
`late` is the mean over pipelines and minutes of the requests answered late, dropped or not at all, as in lane F.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from benchmarks.lanes import baselines
from benchmarks.lanes.lane_f import score
from headgate.allocation.arrays import Floats
from headgate.allocation.forecast import PROBABILITIES, Window
from headgate.allocation.punctuality import Service
from headgate.allocation.settings import DEFAULTS
from headgate.allocation.simulator.pilot import Charge, Pilot
from headgate.allocation.simulator.run import Change, Policy, Rules, run
from headgate.allocation.simulator.world import Discipline, Requests, World

PIPELINES, BUDGET = 8, 24
WORK_S, VARIATION, LATE_S = 0.2, 0.5, 1.0
DISCIPLINE = Discipline(queue=50, late_s=LATE_S)
EVENT_S, LOST_S, BURST_S = 600.0, 600.0, 180.0
SECONDS = 2400
STEP_S = 10.0  # how finely recovery is told
RECOVERED = 0.05  # of the requests of a step may be late
BLOCK_S = 15  # how long a whim of the load lasts
NOISE_MOVES_MOST = 6.0 * PIPELINES  # moves an hour that noise may cost: one for each pipeline every ten minutes
SHORT = ("step", "node_loss", "noise")
LEAST_LATE = 1e-3  # what counts as equally good beside equal share


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One load and what goes wrong. `rates` [second, pipeline] are requests per second.

    The pilot takes a request for `told` times as long as it is, and forecasts nothing if it is `blind`. Recovery is
    counted from `event_s`. `capacity` and `jobs` are what the policies of others ask a lane for.
    """

    title: str
    rates: Floats
    event_s: float | None = None
    start_s: float = 35.0
    changes: tuple[Change, ...] = ()
    told: float = 1.0
    blind: bool = False
    capacity: int = BUDGET
    jobs: int = PIPELINES


def _uneven(chance: np.random.Generator, part: float, whims: float = 0.15) -> Floats:
    """Rates [second, pipeline] of unequal pipelines that together keep `part` of the budget busy."""
    shares = chance.lognormal(0.0, 0.6, PIPELINES)
    return _with_whims(chance, np.tile(shares / shares.sum() * part * BUDGET / WORK_S, (SECONDS, 1)), whims)


def _with_whims(chance: np.random.Generator, rates: Floats, deviation: float) -> Floats:
    """`rates` that go up and down from block to block without any meaning."""
    blocks = chance.gamma(deviation**-2, deviation**2, (SECONDS // BLOCK_S, PIPELINES))
    return rates * np.repeat(blocks, BLOCK_S, axis=0)


def _opposed(chance: np.random.Generator) -> Floats:
    """Half of the pipelines rise while the others fall, every twenty minutes."""
    wave = 0.8 * np.sin(np.arange(SECONDS)[:, None] * 2.0 * np.pi / 1200.0 + np.pi * (np.arange(PIPELINES) % 2))
    level = 0.55 * BUDGET / WORK_S / PIPELINES
    return _with_whims(chance, level * (1.0 + wave), 0.1)


def _step(chance: np.random.Generator) -> Floats:
    rates = _uneven(chance, 0.5)
    rates[:, 0] = 0.4 / WORK_S
    rates[int(EVENT_S) :, 0] *= 10.0
    return rates


def _burst(chance: np.random.Generator) -> Floats:
    rates = _uneven(chance, 0.5)
    rates[int(EVENT_S) : int(EVENT_S + BURST_S)] *= 2.2
    return rates


@lru_cache(maxsize=4)
def make_cases(seed: int) -> dict[str, Case]:
    """Every case, by its name in the figures."""

    def chance(kind: int) -> np.random.Generator:
        return np.random.default_rng([seed, kind])

    opposed, even = _opposed(chance(0)), np.full((SECONDS, PIPELINES), 0.6 * BUDGET / WORK_S / PIPELINES)
    back = Change(at_s=EVENT_S + LOST_S, budget=BUDGET)
    fewer = Change(at_s=EVENT_S, budget=BUDGET * 2 // 3)
    loss = _uneven(chance(3), 0.45)
    return {
        "step": Case(title="one pipeline x 10", rates=_step(chance(1)), event_s=EVENT_S),
        "burst": Case(title="all x 2.2 for 3 min", rates=_burst(chance(2)), event_s=EVENT_S + BURST_S),
        "node_loss": Case(
            title="a third lost, 10 min", rates=loss, event_s=EVENT_S, changes=(replace(fewer, sudden=True), back)
        ),
        "node_drain": Case(title="a third drained, 10 min", rates=loss, event_s=EVENT_S, changes=(fewer, back)),
        "opposed": Case(title="anti-phased", rates=opposed),
        "told_less": Case(title="anti-phased, told -30 %", rates=opposed, told=0.7),
        "told_more": Case(title="anti-phased, told +30 %", rates=opposed, told=1.3),
        "no_forecast": Case(title="anti-phased, no forecast", rates=opposed, blind=True),
        "start_3": Case(title="anti-phased, start 3 s", rates=opposed, start_s=3.0),
        "start_120": Case(title="anti-phased, start 120 s", rates=opposed, start_s=120.0),
        "noise": Case(title="equal load, noisy", rates=_with_whims(chance(4), even, 0.3)),
    }


def draw(rates: Floats, seed: int) -> list[Requests]:
    """The requests of each pipeline: as many in each second as chance has it, with work of gamma distribution."""
    chance = np.random.default_rng([seed, 9])
    requests: list[Requests] = []
    for row in chance.poisson(rates).T:
        second = np.repeat(np.arange(len(row)), row)
        at = np.sort(second + chance.random(len(second)))
        requests.append(Requests(at=at, work=chance.gamma(1.0 / VARIATION, VARIATION * WORK_S, len(at))))
    return requests


@lru_cache(maxsize=4)
def service(told: float) -> Service:
    """What the pilot is told of a request: `told` times the work it is."""
    work = np.random.default_rng(0).gamma(1.0 / VARIATION, VARIATION * WORK_S * told, 20_000)
    slack = LATE_S - np.quantile(work, (np.arange(20) + 0.5) / 20)
    return Service(mean_s=WORK_S * told, variation=VARIATION, slack=tuple((0.05, float(one)) for one in slack))


class LastValue:
    """In place of forecasts: what came since the last decision goes on, for certain."""

    def __init__(self) -> None:
        self._rates: dict[str, float] = {}

    def learn(self, arrivals: Mapping[str, float], elapsed_s: float) -> None:
        """What came to each pipeline in the last `elapsed_s` seconds."""
        self._rates = {name: count / elapsed_s if elapsed_s > 0.0 else 0.0 for name, count in arrivals.items()}

    def forecast(self, name: str, windows: Sequence[Window]) -> tuple[tuple[float, ...], ...]:
        """The same rate at all of PROBABILITIES in each window."""
        return ((self._rates[name],) * len(PROBABILITIES),) * len(windows)


class Headgate(Pilot):
    """The product's pilot, told what the case says; its future is not looked at."""

    def __init__(self, case: Case) -> None:
        """`case` says how long requests seem to be and whether there are forecasts."""
        rules = Rules(budget=case.capacity, start_s=case.start_s, decide_s=DEFAULTS.decide_s)
        super().__init__([Charge(service=service(case.told), room=DISCIPLINE.queue)] * case.jobs, rules)
        if case.blind:
            self.forecasts = LastValue()


POLICIES: dict[str, Callable[[Any], Policy]] = {
    "Headgate": Headgate,
    "equal share": baselines.EqualShare,
    "load-proportional": baselines.LoadProportional,
    "HPA 70 %": baselines.HPA,
}


def measure(make: Callable[[Any], Policy], case: Case, seed: int) -> dict[str, float]:
    """One run: late requests, seconds until recovered, moves an hour, seconds over the room there was."""
    policy = make(case)
    world = World([DISCIPLINE] * case.jobs, draw(case.rates, seed), 2 * BUDGET + case.jobs, turns=False)
    rules = Rules(budget=BUDGET, start_s=case.start_s, decide_s=getattr(policy, "decide_s", 10.0), changes=case.changes)
    account = run(world, policy, rules, len(case.rates) + 30.0, (BUDGET // case.jobs,) * case.jobs)
    return {
        "late": score(world, len(case.rates) // 60, LATE_S)["violations"],
        "recover_s": 0.0 if case.event_s is None else recovery(world, case.event_s),
        "moves_per_hour": (account.starts + account.releases) * 3600.0 / len(case.rates),
        "over_kept_s": account.over_kept_s,
        "over_s": account.over_s,
    }


def recovery(world: World, event_s: float) -> float:
    """Seconds from the event until a minute begins in which at most RECOVERED of what came was late.

    As long as the run goes on, where none does.
    """
    steps, minute = round(SECONDS / STEP_S), round(60.0 / STEP_S)
    step = np.minimum(world.at // STEP_S, steps - 1).astype(np.int64)
    came = np.bincount(step, minlength=steps)
    late = np.bincount(step, ~(world.latency <= LATE_S), steps)
    for first in range(round(event_s / STEP_S), steps - minute):
        if late[first : first + minute].sum() <= RECOVERED * came[first : first + minute].sum():
            return first * STEP_S - event_s
    return SECONDS - event_s


def figures(*, full: bool) -> dict[str, float]:
    """Print every case beside the policies of others; some cases beside equal share, one seed, unless `full`."""
    seeds = range(1, 4) if full else range(1, 2)
    names = tuple(POLICIES) if full else ("Headgate", "equal share")
    print(f"{'late requests':26}" + "".join(f"{name:>20}" for name in names) + "    Headgate's recovery, moves")
    result: dict[str, float] = {"lane_x_over_budget": 0.0}
    for name in make_cases(1) if full else SHORT:
        found = {policy: _mean(policy, name, seeds) for policy in names}
        ours, equal = found["Headgate"], found["equal share"]
        case = make_cases(1)[name]
        print(
            f"{case.title:26}"
            + "".join(f"{found[policy]['late']:20.4f}" for policy in names)
            + f"    {ours['recover_s']:6.0f} s {ours['moves_per_hour']:6.0f}/h",
            flush=True,
        )
        result[f"lane_x_{name}_late"] = ours["late"]
        result[f"lane_x_{name}_vs_equal"] = max(ours["late"], LEAST_LATE) / max(equal["late"], LEAST_LATE)
        if case.event_s is not None:
            result |= {f"lane_x_{name}_recover_s": ours["recover_s"]}
            result |= {f"lane_x_{name}_equal_recover_s": equal["recover_s"]}
        if full:
            result |= {f"lane_x_{name}_late_{_key(policy)}": found[policy]["late"] for policy in names[1:]}
        result["lane_x_over_budget"] += ours["over_kept_s"]
        if name == "node_drain":
            result["lane_x_node_drain_over_s"] = ours["over_s"]
        if name == "noise":
            result["lane_x_noise_moves_per_hour"] = ours["moves_per_hour"]
            result["lane_x_noise_moves_most"] = NOISE_MOVES_MOST
    return result


def _mean(policy: str, case: str, seeds: range) -> dict[str, float]:
    runs = [measure(POLICIES[policy], make_cases(seed)[case], seed) for seed in seeds]
    return {key: float(np.mean([one[key] for one in runs])) for key in runs[0]}


def _key(policy: str) -> str:
    return policy.split(" ")[0].lower().replace("-", "_")
