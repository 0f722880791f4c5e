"""Lane H: several kinds of hardware. Dollars and joules for 1,000 tokens at equal SLO, over a sweep of budgets.

ServeGen's clients are pipelines here. By lot each has a small model (1.24 B parameters) or a larger one (8.03 B); they
rent CPU cores, L40S and H100 GPUs or slices of those. Every ten minutes a policy decides, from the rates of the last
window and how far such guesses were off on days 1 to 5; days 6 and 7 are reported. A window is then judged in steady
state by queueing formulas with its true rates: no starts and no transients, for all policies alike. On time is a
request whose first token comes within 2 s, the others within 0.1 s each.
Source of the speeds, prices and watts: hardware.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from benchmarks.lanes import serve_gen
from benchmarks.lanes.hardware import FIRST_TOKEN_S, KINDS, POOLS, TOKEN_S, Kind, first_token_s, tokens_per_s
from headgate.allocation.arrays import Floats, Ints
from headgate.allocation.forecast import PROBABILITIES, WEIGHTS
from headgate.allocation.limits import Limit, Limited, solve_within
from headgate.allocation.problem import Problem
from headgate.allocation.settings import DEFAULTS

SMALL, LARGE = 1.24, 8.03
BUSIEST = 20.0  # requests per second, on the mean of days 1 to 5: more than that is nobody's own hardware
ACTIVE = 0.25  # of the windows of days 1 to 5 in which something must have come
PROMPT_PART = 0.5  # of the time to the first token that a prompt may take alone; what is left is slack to wait
FEW = 8  # a kind is offered where so many of it carry the pipeline's peak; the largest always
POINTS = 97
RENTED = {"cpu": 4096.0, "l40s": 64.0, "h100": 7 * 16.0}
"""Units that may be rented of each pool."""

TARGET = 0.99
BUDGETS = (0.06, 0.09, 0.12, 0.16, 0.2, 0.25, 0.32, 0.4, 0.5, 0.65, 0.9, 1.3, 1.8, 2.5, 4.0)
"""Dollars an hour for each pipeline."""

LEAST_RATE = 1e-4  # requests per second that are none


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenants:
    """Pipelines [P] and what they ask in windows [P, W].

    `rate` is requests per second, `outputs` tokens of an answer, `variation` the squared coefficient of variation of
    gaps and lengths together; `billions` [P] parameters, `prompts` [P] tokens; `peak` [P] requests per second.
    """

    rate: Floats
    outputs: Floats
    variation: Floats
    billions: Floats
    prompts: Floats
    peak: Floats

    def take(self, chosen: Ints) -> Tenants:
        """Only these pipelines."""
        names = ("rate", "outputs", "variation", "billions", "prompts", "peak")
        return Tenants(**{name: getattr(self, name)[chosen] for name in names})

    @property
    def hold_s(self) -> Floats:
        """Seconds that a request holds a stream [P, W]: a stream gives a token in TOKEN_S."""
        return self.outputs * TOKEN_S


@lru_cache(maxsize=4)
def load_tenants(count: int, seed: int, days: tuple[int, int]) -> Tenants:
    """`count` of ServeGen's clients, drawn by seed; what is known of them beforehand is from days 1 to 5."""
    trace = serve_gen.load()
    tuning = trace.days(serve_gen.TUNING)
    mean = tuning.rate.mean(axis=1)
    able = np.flatnonzero(((tuning.rate > LEAST_RATE).mean(axis=1) > ACTIVE) & (mean < BUSIEST))
    chosen = np.sort(np.random.default_rng([seed, 7]).choice(able, count, replace=False))
    here, past = trace.days(days).take(chosen), tuning.take(chosen)
    sigma = np.log(np.maximum(here.outputs[:, :, serve_gen.P95] / here.outputs[:, :, serve_gen.P50], 1.0)) / 1.645
    lengths = np.expm1(np.minimum(sigma, 1.2) ** 2)
    return Tenants(
        rate=here.rate,
        outputs=here.outputs[:, :, serve_gen.MEAN],
        variation=0.5 * (np.clip(here.cv, 0.5, 3.0) ** 2 + lengths),
        billions=np.random.default_rng([seed, 8]).choice([SMALL, LARGE], count),
        prompts=past.inputs[:, :, serve_gen.MEAN].mean(axis=1),
        peak=np.quantile(past.rate * past.outputs[:, :, serve_gen.MEAN], 0.999, axis=1),
    )


def on_time(rate: Floats, hold_s: Floats, variation: Floats, most: int) -> Floats:
    """The part on time [N, 0..most streams] where `rate` [N] requests per second hold a stream for `hold_s` each.

    Erlang's C formula with the correction of Allen and Cunneen, as in allocation.punctuality; an overload is all late.
    Requests that need no stream at all are on time.
    """
    busy = np.maximum(rate * hold_s, 1e-12)
    blocked = np.ones_like(busy)
    parts = np.zeros((len(busy), most + 1))
    slack = FIRST_TOKEN_S * (1.0 - PROMPT_PART)
    for streams in range(1, most + 1):
        blocked = busy * blocked / (streams + busy * blocked)
        load = np.minimum(busy / streams, 1.0)
        waits = blocked / np.maximum(1.0 - load * (1.0 - blocked), 1e-12)
        decay = streams * (1.0 - load) / hold_s * 2.0 / (1.0 + variation)
        parts[:, streams] = np.where(busy < streams, 1.0 - waits * np.exp(-decay * slack), 0.0)
    return np.maximum.accumulate(parts, axis=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Menu:
    """What may be held: options [K] of the solver. `streams` is how many requests at once one replica serves."""

    pipeline: Ints
    kinds: tuple[Kind, ...]
    streams: Floats
    usd: Floats

    @classmethod
    def of(cls, tenants: Tenants, kinds: Sequence[Kind]) -> Menu:
        """Those of `kinds` that suit each pipeline: quick enough with a prompt, not too small, large enough."""
        rows = []
        for number, billions in enumerate(tenants.billions):
            fit = [
                kind
                for kind in kinds
                if first_token_s(kind, billions, tenants.prompts[number]) <= FIRST_TOKEN_S * PROMPT_PART
                and 1.1 * billions <= kind.memory_gb
                and tokens_per_s(kind, billions) * TOKEN_S >= 1.0
            ]
            few = [kind for kind in fit if FEW * tokens_per_s(kind, billions) >= tenants.peak[number]]
            rows += [(number, kind, tokens_per_s(kind, billions) * TOKEN_S) for kind in few or fit[-1:]]
        return cls(
            pipeline=np.array([row[0] for row in rows], np.int64),
            kinds=tuple(row[1] for row in rows),
            streams=np.array([row[2] for row in rows]),
            usd=np.array([row[1].usd_per_hour for row in rows]),
        )

    @property
    def watts_most(self) -> Floats:
        """What one replica of each option draws at most [K]."""
        return np.array([kind.watts_most for kind in self.kinds])

    def problem(self, loads: Floats, values: Floats) -> Problem:
        """The solver's problem with these value curves [P, G]; money has the worth that the settings give it."""
        none = np.zeros(len(self.kinds))
        each = np.zeros(len(loads))
        return Problem(
            capacity=np.array([RENTED[pool] for pool in POOLS]),
            pipeline=self.pipeline,
            pool=np.array([POOLS.index(kind.pool) for kind in self.kinds]),
            units=np.array([kind.units for kind in self.kinds]),
            speed=self.streams,
            cost=DEFAULTS.money * self.usd,
            now=none,
            start_cost=none,
            stop_cost=none,
            loads=loads,
            values=values,
            floor=each,
            cap=each + 512,
            rank=each,
        )


@lru_cache(maxsize=1)
def _changes() -> tuple[Floats, Floats]:
    """At PROBABILITIES, on days 1 to 5: the ratio of a window's rate to the last one's; rates after one without any."""
    rate = serve_gen.load().days(serve_gen.TUNING).rate
    before, after = rate[:, :-1], rate[:, 1:]
    some = before > LEAST_RATE
    lively = np.broadcast_to(some.any(axis=1)[:, None], some.shape)
    return (
        np.quantile((after[some] + LEAST_RATE) / before[some], PROBABILITIES),
        np.quantile(after[~some & lively], PROBABILITIES),
    )


def guess_rates(last: Floats) -> Floats:
    """The rates [quantile, P] to be expected after a window with rates `last` [P]."""
    ratio, anew = _changes()
    guess = np.where(last > LEAST_RATE, ratio[:, None] * last, anew[:, None])
    return np.maximum(guess, LEAST_RATE)


class Judge:
    """Value curves beforehand and what came of it afterwards, for one set of tenants."""

    def __init__(self, tenants: Tenants) -> None:
        self.tenants = tenants
        peak = (tenants.rate * tenants.hold_s).max(axis=1)
        self._most = int(np.ceil(2.0 * peak.max() + 8.0))
        widest = np.minimum(np.ceil(3.0 * peak + 8.0), self._most)
        self.loads = widest[:, None] * np.linspace(0.0, 1.0, POINTS)
        self._values: dict[int, Floats] = {}
        self._told: dict[int, Floats] = {}

    def values(self, window: int) -> Floats:
        """What streams are worth [P, G] as expected before `window` (1 or later): the part on time, 0 where nobody
        may come."""
        if window not in self._values:
            tenants, last, ways = self.tenants, window - 1, len(WEIGHTS)
            rates = guess_rates(tenants.rate[:, last])
            hold_s, variation = (np.tile(told[:, last], ways) for told in (tenants.hold_s, tenants.variation))
            told = on_time(rates.ravel(), hold_s, variation, self._most)
            asked = 1.0 - np.exp(-rates * serve_gen.WINDOW_S)
            parts = self._read(told, np.tile(self.loads, (ways, 1))).reshape(ways, *self.loads.shape)
            values = np.einsum("q,qp,qpg->pg", np.array(WEIGHTS), asked, parts)
            # Why rounded: more streams for the last hundred-thousandth need not be looked at.
            self._values[window] = np.round(np.maximum.accumulate(values, axis=1), 5)
        return self._values[window]

    def outcome(self, window: int, menu: Menu, counts: Ints) -> Floats:
        """What came of `counts` [K]: parts on time [P] (NaN: nothing came), then dollars, joules and tokens in all."""
        tenants = self.tenants
        rate, hold_s = tenants.rate[:, window], tenants.hold_s[:, window]
        streams = np.bincount(menu.pipeline, menu.streams * counts, len(rate))
        part = np.where(rate > LEAST_RATE, self._read(self._true(window), streams[:, None])[:, 0], np.nan)
        load = np.minimum(rate * hold_s / np.maximum(streams, 1e-9), 1.0)[menu.pipeline]
        held = np.flatnonzero(counts)
        watts = sum(float(counts[k] * menu.kinds[k].watts(load[k])) for k in held)
        tokens = np.nansum(part * rate * tenants.outputs[:, window]) * serve_gen.WINDOW_S
        usd = float(menu.usd @ counts) * serve_gen.WINDOW_S / 3600.0
        return np.concatenate([part, [usd, watts * serve_gen.WINDOW_S, tokens]])

    def _true(self, window: int) -> Floats:
        """The parts on time [P, whole streams] at the rates that came."""
        if window not in self._told:
            rate, hold_s, variation = self.tenants.rate, self.tenants.hold_s, self.tenants.variation
            self._told[window] = on_time(rate[:, window], hold_s[:, window], variation[:, window], self._most)
        return self._told[window]

    def mean_by_streams(self) -> Floats:
        """The mean part on time [P, whole streams] over the windows in which anything came, every twelfth of them."""
        windows = range(0, self.tenants.rate.shape[1], 12)
        asked = (self.tenants.rate[:, windows] > LEAST_RATE).astype(float)
        total = sum(asked[:, number, None] * self._true(window) for number, window in enumerate(windows))
        return total / np.maximum(asked.sum(axis=1), 1.0)[:, None]

    def _read(self, told: Floats, streams: Floats) -> Floats:
        """Parts on time [P, N] of `told` [P, whole streams] at `streams` [P, N], with lines between whole ones."""
        at = np.minimum(streams, self._most - 1e-9)
        low = at.astype(np.int64)
        below, above = np.take_along_axis(told, low, axis=1), np.take_along_axis(told, low + 1, axis=1)
        return below + (above - below) * (at - low)


class Renter:
    """Equal marginal utility, by the product's solver, within a budget of dollars an hour and perhaps of watts."""

    def __init__(self, judge: Judge, kinds: Sequence[Kind], usd_per_hour: float, watts: float | None = None) -> None:
        self._judge = judge
        self.menu = Menu.of(judge.tenants, kinds)
        self._limits = [Limit(use=self.menu.usd, most=usd_per_hour)]
        if watts is not None:
            self._limits.append(Limit(use=self.menu.watts_most, most=watts))
        self._last: Limited | None = None

    def decide(self, window: int) -> Ints:
        """The counts [K] for a window."""
        judge = self._judge
        problem = self.menu.problem(judge.loads, judge.values(window))
        self._last = solve_within(problem, self._limits, last=self._last)
        return self._last.solution.counts


class EqualShare:
    """The budget in equal parts; each pipeline holds the one kind, in the number, that suited days 1 to 5 best.

    That is the highest mean part on time within its part of the budget, then the cheapest; it stays.
    """

    def __init__(self, judge: Judge, past: Judge, kinds: Sequence[Kind], usd_per_hour: float) -> None:
        self.menu = menu = Menu.of(judge.tenants, kinds)
        part, streams = usd_per_hour / len(judge.tenants.peak), past.mean_by_streams()
        self._counts = np.zeros(len(menu.kinds), np.int64)
        for pipeline in range(len(judge.tenants.peak)):
            best = (0.0, 0.0, -1, 0)
            for k in np.flatnonzero(menu.pipeline == pipeline):
                for count in range(1, int(part / menu.usd[k] + 1e-9) + 1):
                    held = min(int(count * menu.streams[k]), streams.shape[1] - 1)
                    best = max(best, (round(float(streams[pipeline, held]), 4), -count * menu.usd[k], int(k), count))
            if best[2] >= 0:
                self._counts[best[2]] = best[3]

    def decide(self, window: int) -> Ints:
        """The counts [K] for a window."""
        del window
        return self._counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A policy at a budget.

    `slo` is the mean part on time over pipelines and windows; `usd` and `joules` are for 1,000 tokens on time;
    `watts_most` is what the hardware that was held could draw, on the mean.
    """

    slo: float
    usd_per_hour: float
    usd: float
    joules: float
    watts_most: float


def measure(judge: Judge, policy: Renter | EqualShare, windows: Sequence[int]) -> Row:
    """What came of a policy in these windows."""
    menu = policy.menu
    held = [policy.decide(window) for window in windows]
    came = np.array([judge.outcome(window, menu, counts) for window, counts in zip(windows, held, strict=True)])
    usd, joules, tokens = came[:, -3:].sum(axis=0)
    thousands = max(float(tokens) / 1e3, 1e-9)
    return Row(
        slo=float(np.nanmean(came[:, :-3])),
        usd_per_hour=float(usd) * 3600.0 / (len(windows) * serve_gen.WINDOW_S),
        usd=float(usd) / thousands,
        joules=float(joules) / thousands,
        watts_most=float(np.mean([menu.watts_most @ counts for counts in held])),
    )


def at_slo(rows: Sequence[Row], slo: float) -> Row:
    """What `slo` takes: on the line between the last budget that misses it and the first that reaches it; one must."""
    reached = next(number for number, row in enumerate(rows) if row.slo >= slo)
    if reached == 0:
        return rows[0]
    low, high = rows[reached - 1], rows[reached]
    part = (slo - low.slo) / (high.slo - low.slo)
    return Row(**{name: (1 - part) * getattr(low, name) + part * getattr(high, name) for name in Row.__slots__})


GPUS = tuple(kind for kind in KINDS if kind.pool != "cpu")
MENUS = {
    "Headgate": KINDS,
    "GPU-only": GPUS,
    "GPU-only, whole": tuple(kind for kind in GPUS if kind.name != "H100 slice"),
    "CPU-only": tuple(kind for kind in KINDS if kind.pool == "cpu"),
    "equal share": KINDS,
}
"""What each policy may rent. All but equal share are the product's solver, each with its own kinds alone."""


def figures(*, full: bool) -> dict[str, float]:
    """Print the sweeps and what equal SLO costs; 60 pipelines and 48 windows of two days if `full`, else 20 and 16."""
    count, step = (60, 6) if full else (20, 18)
    budgets = BUDGETS if full else BUDGETS[2::2]
    tenants, past = (load_tenants(count, 1, days) for days in (serve_gen.REPORTED, serve_gen.TUNING))
    windows = range(1, tenants.rate.shape[1], step)
    judge = Judge(tenants)
    found = _sweep(judge, Judge(past), tuple(name for name in MENUS if name != "CPU-only"), budgets, windows)
    # Why apart: nobody compares at equal SLO with what cannot do the work at all.
    able = np.unique(Menu.of(tenants, MENUS["CPU-only"]).pipeline)
    print(f"the {len(able)} pipelines alone that CPU cores can serve:")
    cheap = _sweep(Judge(tenants.take(able)), Judge(past.take(able)), ("Headgate", "CPU-only"), budgets, windows)
    capped = _cap_power(judge, found["Headgate"][-1], budgets[-1] * count, windows)
    return _compare(found) | {key: value for key, value in _compare(cheap).items() if "cpu_only" in key} | capped


def _sweep(
    judge: Judge, past: Judge, names: Sequence[str], budgets: Sequence[float], windows: Sequence[int]
) -> dict[str, list[Row]]:
    """Each policy at each budget; printed are part on time and dollars an hour that were spent."""
    found: dict[str, list[Row]] = {}
    print("USD/h by pipeline  " + "".join(f"{budget:14.2f}" for budget in budgets))
    for name in names:
        rows = found[name] = []
        for budget in budgets:
            share, kinds = budget * len(judge.loads), MENUS[name]
            policy = EqualShare(judge, past, kinds, share) if name == "equal share" else Renter(judge, kinds, share)
            rows.append(measure(judge, policy, windows))
        print(f"{name:18} " + "".join(f"{row.slo:7.4f} {row.usd_per_hour:6.2f}" for row in rows), flush=True)
    return found


def _compare(found: dict[str, list[Row]]) -> dict[str, float]:
    """What each policy's tokens cost at the SLO that Headgate's have: TARGET, or the best that a policy reaches."""
    result: dict[str, float] = {}
    print(f"{'at equal SLO':18}    SLO  USD / 1k tokens  J / 1k tokens   Headgate there")
    for name, rows in found.items():
        slo = min(TARGET, max(row.slo for row in rows), max(row.slo for row in found["Headgate"]))
        theirs, ours = at_slo(rows, slo), at_slo(found["Headgate"], slo)
        print(f"{name:18} {slo:.4f} {theirs.usd:16.5f} {theirs.joules:14.1f}   {ours.usd:.5f} USD {ours.joules:.1f} J")
        key = name.lower().replace(", ", "_").replace("-", "_").replace(" ", "_")
        if name == "Headgate":
            told = {"slo": slo, "usd_per_1k_tokens": ours.usd, "joules_per_1k_tokens": ours.joules}
        else:
            told = {f"{key}_slo": slo, f"{key}_usd_per_1k_tokens": theirs.usd}
            told |= {f"vs_{key}_usd": ours.usd / theirs.usd, f"vs_{key}_joules": ours.joules / theirs.joules}
        result |= {f"lane_h_{one}": value for one, value in told.items()}
    return result


def _cap_power(judge: Judge, free: Row, usd_per_hour: float, windows: Sequence[int]) -> dict[str, float]:
    """The same with a cap on power at half of what the hardware draws at most that is held without one."""
    cap = 0.5 * free.watts_most
    capped = measure(judge, Renter(judge, KINDS, usd_per_hour, cap), windows)
    print(f"power capped at {cap:.0f} W, half of what is held else: {capped.slo:.4f} on time")
    return {"lane_h_capped_slo": capped.slo, "lane_h_capped_usd_per_1k_tokens": capped.usd}
