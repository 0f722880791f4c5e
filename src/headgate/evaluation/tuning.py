"""Looks for the settings with which a version serves most on this machine, and proves that they beat the present ones.

One knob after another is turned to the neighbouring value and further while that helps. Two settings are compared by
the same requests in turns, within seconds of each other, because a machine's speed moves by more than what is looked
for. What won is compared once more, with new processes; only what wins again is advised.
"""

from __future__ import annotations

import asyncio
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from headgate.core.chat import Call
from headgate.core.clock import Clock
from headgate.core.errors import HeadgateError
from headgate.engines.engine import Knob, ModelOptions
from headgate.evaluation.bench import Bench, Served
from headgate.evaluation.requests import RequestWriter

Verdict = Literal["better", "promising", "no better", "late", "other answers", "cannot run", "measured only"]

# About how long one side of a pair works. Measured on a busy machine: the ratio of a pair of 0.6 s spreads as much as
# that of one of 0.15 s, so many short pairs tell more in the same time.
_SLICE_S = 0.15
_PAIRS_LEAST, _PAIRS_MOST = 6, 12
_PAIRS_HOPELESS = 4
_PAIRS_CONFIRM = 24
_PATIENCE = 4.0  # times the shortest comparison's time
_PAIRS_RENEWED = 4  # pairs after which new processes take over
_CLEARLY = 1.02  # a smaller gain is not worth another setting
_SURE, _LIKELY = 0.95, 0.8  # to advise something; to go on with it until it is confirmed
_GREEDY_PROMPTS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """What clients may expect, in seconds: the first token, and from one token to the next."""

    first_token_s: float
    per_token_s: float

    def strain(self, served: Served) -> float:
        """What 95 of 100 of these requests took, as a part of what was promised; above 1 they are late."""
        return max(served.first_token_s / self.first_token_s, served.per_token_s / self.per_token_s)

    def kept_by(self, served: Sequence[Served]) -> bool:
        """Whether requests are in time in most of the stretches."""
        return statistics.median(self.strain(one) for one in served) <= 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Other settings beside the present ones. `gain` is the median ratio of requests a second a core, of `pairs` pairs;
    that of the truth is above `low` with 95 % certainty; with 80 %, it is above 1 when `likely`, below when `unlikely`.
    `kept` is whether the others keep the promise, `alone` whether the present ones do not, `rescues` whether that is
    beyond noise. Where neither does, `by` says that it was compared how late they are.
    """

    gain: float
    low: float
    likely: bool
    unlikely: bool
    pairs: int
    kept: bool
    alone: bool = False
    rescues: bool = False
    by: Literal["speed", "lateness"] = "speed"

    @property
    def better(self) -> bool:
        """Whether the others are better: alone in time, or faster by more than noise and more than a trifle."""
        return self.rescues or (self.kept and self.low > 1.0 and self.gain >= _CLEARLY)

    @property
    def promising(self) -> bool:
        """Whether the others are worth to be gone on with and compared again, as a comparison cut short may be."""
        unsure = self.likely or self.pairs < _PAIRS_LEAST
        return self.better or (self.kept and unsure and self.gain >= _CLEARLY)

    def settled(self, least: int) -> bool:
        """Whether more pairs would hardly change what is thought. A win by luck is found out when it is confirmed."""
        if self.alone:
            return self.rescues and self.pairs >= least
        if self.pairs < least:
            return self.pairs >= _PAIRS_HOPELESS and self.unlikely
        return self.better or self.gain < 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """One value of a knob, and what came of it."""

    knob: str
    value: int | str
    verdict: Verdict
    comparison: Comparison | None = None
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a search found. `confirmation` compares `chosen` with `present`, None when nothing was better at first."""

    present: ModelOptions
    chosen: ModelOptions
    tried: tuple[Tried, ...] = ()
    untried: tuple[str, ...] = ()
    confirmation: Comparison | None = None


@dataclass(slots=True, kw_only=True)
class Search:
    """One search. `cores` is how many the version may use; `tell` hears what is done, for people."""

    bench: Bench
    writer: RequestWriter
    promise: Promise
    clock: Clock
    cores: int
    tell: Callable[[str], None] = field(default=lambda _: None)
    _rate: float = 0.0
    _tried: list[Tried] = field(default_factory=list[Tried])
    _skipped: list[str] = field(default_factory=list[str])

    async def run(self, present: ModelOptions, knobs: Sequence[Knob], *, look_until: float, until: float) -> Outcome:
        """Look until `look_until`, confirm until `until` (monotonic seconds).

        Raises what the present settings make the bench raise.
        """
        first = await self.bench.serve(present, self.writer.write(2 * present.slots), present.slots)
        self._rate = 2 * present.slots / max(first.seconds, 1e-6)
        best, confirmation = present, None
        for knob in knobs:
            best = await self._turn(knob, best, look_until)
        if best != present:
            self.tell("confirming with new processes")
            confirmation = await self.compare(
                present, best, pairs=(_PAIRS_CONFIRM, _PAIRS_CONFIRM), until=until, renew=_PAIRS_RENEWED
            )
        known = {one.knob for one in self._tried}
        return Outcome(
            present=present,
            chosen=best if confirmation is not None and confirmation.better else present,
            tried=tuple(self._tried),
            untried=tuple(name for name in self._skipped if name not in known),
            confirmation=confirmation,
        )

    async def compare(
        self, ours: ModelOptions, theirs: ModelOptions, *, pairs: tuple[int, int], until: float, renew: int = 0
    ) -> Comparison | None:
        """`theirs` beside `ours`, in at least and at most so many `pairs`; None when time was up too soon.

        With `renew`, new processes take over after so many pairs: how one's memory happens to lie makes some percent.

        Raises what the bench raises.
        """
        calls = self._write(ours, theirs)
        # Why as many for both: one that waits for its only caller would idle, and look frugal where others use its
        # core meanwhile. What exceeds the slots waits in the replica, and counts into the first token's time.
        at_once = max(ours.slots, theirs.slots)
        mine, others = list[Served](), list[Served]()
        try:
            # Why: settings that a machine cannot bear, such as threads that wait for each other on busy cores, may take
            # a hundred times as long as others.
            async with asyncio.timeout(max(0.0, until - self.clock.monotonic())):
                while len(mine) < pairs[1] and self.clock.monotonic() < until:
                    if not mine or (renew and len(mine) % renew == 0):
                        if renew:
                            await self.bench.rest()
                        for options in (ours, theirs):  # what a new process does only once is not compared
                            await self.bench.serve(options, calls[:at_once], at_once)
                    # In turns ABBA, so that a machine that gets slower favours neither.
                    turns = [(ours, mine), (theirs, others)]
                    for options, served in turns if len(mine) % 2 == 0 else turns[::-1]:
                        served.append(await self.bench.serve(options, calls, at_once))
                    if pairs[0] < pairs[1] and judge(self.promise, mine, others).settled(pairs[0]):
                        break
        except TimeoutError:
            pass
        whole = min(len(mine), len(others))
        return judge(self.promise, mine[:whole], others[:whole]) if whole else None

    async def _turn(self, knob: Knob, best: ModelOptions, until: float) -> ModelOptions:
        """Turn one knob up while that helps, else down while that does."""
        value = knob.read(best)
        values = sorted({*knob.values, value}, key=lambda one: (isinstance(one, str), one))
        at = values.index(value)
        ways = [values[at + 1 :], values[:at][::-1]]
        if knob.effect == "limits":  # less would refuse requests that are taken now: it is looked at once, not chosen
            ways = [values[:at][::-1][:1]]
        for way in ways:
            won = False
            for candidate in way:
                if knob.name == "threads" and int(candidate) > self.cores:
                    break
                if self.clock.monotonic() + self._cost_s(best, knob.turn(best, candidate)) > until:
                    self._skipped.append(knob.name)
                    return best
                self.tell(f"{knob.name} {candidate}")
                one = await self._try(knob, candidate, best, until)
                if one is not None:
                    self._tried.append(one)
                else:
                    self._skipped.append(knob.name)
                if one is None or one.verdict not in ("better", "promising"):
                    break
                best, won = knob.turn(best, candidate), True
            if won:
                break
        return best

    async def _try(self, knob: Knob, value: int | str, best: ModelOptions, until: float) -> Tried | None:
        theirs = knob.turn(best, value)
        try:
            if knob.effect == "answers" and (others := await self._other_answers(best, theirs)):
                why = f"{others} of {_GREEDY_PROMPTS} greedy answers changed"
                return Tried(knob=knob.name, value=value, verdict="other answers", why=why)
            until = min(until, self.clock.monotonic() + _PATIENCE * self._cost_s(best, theirs))
            comparison = await self.compare(best, theirs, pairs=(_PAIRS_LEAST, _PAIRS_MOST), until=until)
        except HeadgateError as error:
            return Tried(knob=knob.name, value=value, verdict="cannot run", why=error.message)
        if comparison is None:
            return None
        verdict: Verdict = "no better" if comparison.kept else "late"
        if comparison.promising:
            verdict = "better" if comparison.better else "promising"
        if knob.effect == "limits":
            verdict = "measured only"
        return Tried(knob=knob.name, value=value, verdict=verdict, comparison=comparison)

    async def _other_answers(self, ours: ModelOptions, theirs: ModelOptions) -> int:
        """How many greedy answers are not the same."""
        calls = self.writer.write(_GREEDY_PROMPTS)
        mine = await self.bench.serve(ours, calls, 1)
        others = await self.bench.serve(theirs, calls, 1)
        return sum(one.text != other.text for one, other in zip(mine.answers, others.answers, strict=True))

    def _cost_s(self, ours: ModelOptions, theirs: ModelOptions) -> float:
        """About how many seconds the shortest comparison takes."""
        return 2 * (_PAIRS_HOPELESS + 1) * max(_SLICE_S, max(ours.slots, theirs.slots) / self._rate)

    def _write(self, ours: ModelOptions, theirs: ModelOptions) -> Sequence[Call]:
        """Requests for about a slice's time, full rounds of the larger number of slots."""
        slots = max(ours.slots, theirs.slots)
        rounds = max(1, math.ceil(self._rate * _SLICE_S / slots))
        return self.writer.write(rounds * slots)


def judge(promise: Promise, mine: Sequence[Served], others: Sequence[Served]) -> Comparison:
    """What pairs of the same requests say of other settings beside the present ones."""
    in_time, theirs_in_time = promise.kept_by(mine), promise.kept_by(others)
    both = list(zip(mine, others, strict=True))
    eased = [promise.strain(one) / max(promise.strain(other), 1e-9) for one, other in both]
    # Why not speed: where neither is in time, the next step is the one that comes nearer.
    by = "speed" if in_time or theirs_in_time else "lateness"
    ratios = [one.core_s / max(other.core_s, 1e-9) for one, other in both] if by == "speed" else eased
    alone = theirs_in_time and not in_time
    return Comparison(
        gain=statistics.median(ratios),
        low=lower_bound(ratios),
        likely=lower_bound(ratios, _LIKELY) > 1.0,
        unlikely=lower_bound([1.0 / max(ratio, 1e-9) for ratio in ratios], _LIKELY) > 1.0,
        pairs=len(ratios),
        kept=theirs_in_time or by == "lateness",
        alone=alone,
        rescues=alone and lower_bound(eased) > 1.0,
        by=by,
    )


def lower_bound(ratios: Sequence[float], sure: float = _SURE) -> float:
    """The median of what `ratios` are drawn from is above this with certainty `sure`; 0 when they are too few to say.

    Source: the order statistics' bound (W. J. Conover, Practical Nonparametric Statistics, 1999): the k-th smallest of
    n, with k the largest of which a fair coin shows fewer than k heads in n throws in at most 1 - `sure` of all cases.
    """
    ordered, chance = sorted(ratios), 0.0
    count = len(ordered)
    found = 0.0
    for place in range(count):
        chance += math.comb(count, place) / 2**count
        if chance > 1.0 - sure + 1e-12:
            break
        found = ordered[place]
    return found
