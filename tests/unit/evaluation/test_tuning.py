"""The search for better settings, on a bench whose speed is known: what wins, what stays, what noise may not do."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from headgate.core.chance import SeededChance
from headgate.core.chat import Call
from headgate.core.clock import ManualClock
from headgate.core.errors import BadRequest, DoesNotFit
from headgate.engines.engine import Knob, ModelOptions
from headgate.evaluation import tuning
from headgate.evaluation.bench import Answer, Footprint, Served
from headgate.evaluation.profiling import measure_profile
from headgate.evaluation.requests import RequestWriter, Shape
from headgate.evaluation.tuning import Outcome, Promise, Search, lower_bound

PRESENT = ModelOptions(context=1024, slots=4)
BATCH = Knob(name="batch", values=(32, 64, 128, 256), default=64)
SLOTS = Knob(name="slots", values=(1, 2, 4, 8, 16), default=1)
THREADS = Knob(name="threads", values=(1, 2, 4), default=1)
KV_TYPE = Knob(name="kv_type", values=("f16", "q8_0"), default="f16", effect="answers")
CONTEXT = Knob(name="context", values=(256, 512, 1024), default=1024, effect="limits")
PROMISE = Promise(first_token_s=0.5, per_token_s=0.1)


@dataclass
class SpeedBench:
    """A bench whose requests take `cost(options)` core-seconds each; time passes only on its clock."""

    clock: ManualClock
    cost: Callable[[ModelOptions], float]
    noise: float = 0.0
    first_s: Callable[[ModelOptions], float] = lambda _: 0.01
    text: Callable[[ModelOptions], str] = lambda _: "same"
    chance: SeededChance = field(default_factory=lambda: SeededChance(7))
    drift: float = 1.0
    rests: int = 0
    context: int = 10**6
    served: int = 0

    async def serve(self, options: ModelOptions, calls: Sequence[Call], at_once: int) -> Served:
        longest = max(len(call.body["messages"][0]["content"].split()) for call in calls)
        if longest * 2 > self.context:
            raise BadRequest("too long")
        self.served += 1
        self.drift *= 1.01  # the machine gets slower all the time, as a hot one does
        each = self.cost(options) * self.drift * self.chance.uniform(1 - self.noise, 1 + self.noise)
        core_s = each * len(calls)
        await self.clock.advance(core_s / options.threads)
        answer = Answer(
            first_s=self.first_s(options),
            end_s=self.first_s(options) + at_once * each,
            prompt_tokens=2 * longest,
            output_tokens=32,
            text=self.text(options),
        )
        return Served(seconds=core_s / options.threads, core_s=core_s, at_once=at_once, answers=(answer,) * len(calls))

    async def load(self, options: ModelOptions, *, cold: bool = False) -> float | None:
        return 0.4 if cold else 0.1

    async def rest(self) -> None:
        self.rests += 1

    def footprint(self, options: ModelOptions) -> Footprint:
        return Footprint(warm=10, peak=20)

    async def watts(self, options: ModelOptions, calls: Sequence[Call]) -> float | None:
        return None


def look(bench: SpeedBench, *knobs: Knob, seconds: float = 60.0, cores: int = 2) -> Outcome:
    writer = RequestWriter("chat", Shape(), SeededChance(1))
    search = Search(bench=bench, writer=writer, promise=PROMISE, clock=bench.clock, cores=cores)
    return asyncio.run(search.run(PRESENT, knobs, look_until=0.6 * seconds, until=seconds))


def by_batch(costs: dict[int, float]) -> Callable[[ModelOptions], float]:
    return lambda options: costs[int(BATCH.read(options))]


def test_a_knob_is_turned_on_while_that_helps() -> None:
    bench = SpeedBench(ManualClock(), by_batch({32: 0.012, 64: 0.010, 128: 0.009, 256: 0.0095}), noise=0.02)
    outcome = look(bench, BATCH)
    assert outcome.chosen.settings == {"batch": 128}
    assert [(one.value, one.verdict) for one in outcome.tried] == [(128, "better"), (256, "no better")]
    assert outcome.confirmation is not None and outcome.confirmation.better
    assert outcome.confirmation.gain == pytest.approx(0.010 / 0.009, rel=0.03)
    assert bench.rests == 6, "it is confirmed with new processes"


def test_the_other_way_is_looked_at_when_one_does_not_help() -> None:
    bench = SpeedBench(ManualClock(), lambda options: 0.01 * (1 + abs(options.slots - 1) / 10), noise=0.02)
    assert look(bench, SLOTS).chosen.slots == 1


def test_noise_alone_changes_nothing() -> None:
    """Twenty searches among settings that are all the same: the present ones stay in nearly all of them."""
    moved = 0
    for seed in range(20):
        bench = SpeedBench(ManualClock(), lambda _: 0.01, noise=0.2, chance=SeededChance(seed))
        moved += look(bench, BATCH, SLOTS).chosen != PRESENT
    assert moved <= 2


def test_a_slowing_machine_favours_nobody() -> None:
    bench = SpeedBench(ManualClock(), lambda _: 0.001)
    outcome = look(bench, BATCH)
    assert outcome.chosen == PRESENT and bench.drift > 1.2


def test_what_breaks_the_promise_does_not_win() -> None:
    bench = SpeedBench(ManualClock(), lambda options: 0.04 / options.slots, first_s=lambda options: 0.1 * options.slots)
    outcome = look(bench, SLOTS)
    assert outcome.chosen == PRESENT
    assert ("slots", 8, "late") in [(one.knob, one.value, one.verdict) for one in outcome.tried]


def test_what_alone_keeps_the_promise_wins_though_slower() -> None:
    bench = SpeedBench(ManualClock(), lambda options: 0.01 * options.threads, first_s=lambda o: 0.8 / o.threads)
    outcome = look(bench, THREADS)
    assert outcome.chosen.threads == 2
    assert outcome.confirmation is not None and outcome.confirmation.rescues


def test_more_threads_than_cores_are_not_tried() -> None:
    bench = SpeedBench(ManualClock(), lambda options: 0.01 / options.threads)
    assert look(bench, THREADS, cores=2).chosen.threads == 2
    alone = look(SpeedBench(ManualClock(), lambda options: 0.01 / options.threads), THREADS, cores=1)
    assert alone.tried == alone.untried == ()


def test_what_changes_answers_is_left_out() -> None:
    bench = SpeedBench(
        ManualClock(),
        lambda options: 0.005 if options.settings else 0.01,
        text=lambda options: "another" if options.settings else "same",
    )
    outcome = look(bench, KV_TYPE)
    assert outcome.chosen == PRESENT
    assert [(one.verdict, one.comparison) for one in outcome.tried] == [("other answers", None)]
    same = SpeedBench(ManualClock(), lambda options: 0.005 if options.settings else 0.01)
    assert look(same, KV_TYPE).chosen.settings == {"kv_type": "q8_0"}


def test_a_shorter_context_is_measured_and_never_chosen() -> None:
    bench = SpeedBench(ManualClock(), lambda options: 0.01 * options.context / 1024)
    outcome = look(bench, CONTEXT)
    assert outcome.chosen == PRESENT
    [one] = outcome.tried
    assert (one.value, one.verdict) == (512, "measured only")
    assert one.comparison is not None and one.comparison.gain > 1.5


def test_settings_that_cannot_run_are_told() -> None:
    class Small(SpeedBench):
        async def serve(self, options: ModelOptions, calls: Sequence[Call], at_once: int) -> Served:
            if options.slots > 4:
                raise DoesNotFit("needs 2 GiB and 1 GiB are free.")
            return await super().serve(options, calls, at_once)

    outcome = look(Small(ManualClock(), lambda options: 0.01 * options.slots**0.0), SLOTS)
    assert outcome.tried[0].verdict == "cannot run" and "free" in outcome.tried[0].why


def test_settings_that_a_machine_cannot_bear_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stuck(SpeedBench):
        async def serve(self, options: ModelOptions, calls: Sequence[Call], at_once: int) -> Served:
            if options.threads > 1:
                await asyncio.Event().wait()
            return await super().serve(options, calls, at_once)

    monkeypatch.setattr(tuning, "_SLICE_S", 1e-3)  # so that a comparison may take some hundredths of a second
    bench = Stuck(ManualClock(), lambda _: 1e-5)
    writer = RequestWriter("chat", Shape(), SeededChance(1))
    search = Search(bench=bench, writer=writer, promise=PROMISE, clock=bench.clock, cores=2)
    outcome = asyncio.run(search.run(PRESENT, [THREADS], look_until=2.0, until=3.0))
    assert outcome.tried == () and outcome.untried == ("threads",)


def test_time_that_is_short_leaves_knobs_untried() -> None:
    outcome = look(SpeedBench(ManualClock(), lambda _: 1.0), BATCH, SLOTS, seconds=30.0)
    assert outcome.untried == ("batch", "slots") and outcome.chosen == PRESENT


def test_the_bound_is_below_the_median_and_says_nothing_of_few() -> None:
    assert lower_bound([1.1] * 4) == 0.0
    assert lower_bound([1.1, 1.2, 1.3, 1.4, 1.5]) == 1.1
    chance = SeededChance(3)
    wrong = 0
    for _ in range(400):  # drawn around a median of 1: the bound may pass it in one case of twenty
        drawn = [chance.uniform(0.5, 1.5) for _ in range(16)]
        assert lower_bound(drawn) <= statistics.median(drawn)
        wrong += lower_bound(drawn) > 1.0
    assert wrong <= 32


def test_a_profile_says_how_busy_replicas_slow_down() -> None:
    clock = ManualClock()
    bench = SpeedBench(clock, lambda _: 0.01)
    writer = RequestWriter("chat", Shape(prompt_tokens=100), SeededChance(1))
    profile = asyncio.run(measure_profile(bench, PRESENT, writer, clock, file_bytes=5, until=60.0))
    assert (profile.load_cold_s, profile.load_s, profile.file_bytes) == (0.4, 0.1, 5)
    assert (profile.warm_bytes, profile.memory_bytes, profile.watts) == (10, 20, None)
    assert [count for count, _ in profile.slow] == [1, 2, 4]
    assert profile.slow[2][1] > 1.5 > profile.slow[0][1] == 1.0
    assert [count for count, _ in profile.decode_tokens_per_s] == [1, 2, 4]


def test_a_profile_without_time_knows_what_one_request_takes() -> None:
    clock = ManualClock()
    writer = RequestWriter("chat", Shape(), SeededChance(1))
    bench = SpeedBench(clock, lambda _: 0.01)
    profile = asyncio.run(measure_profile(bench, PRESENT, writer, clock, file_bytes=5, until=0.0))
    assert profile.service_s is not None and profile.slow == ((1, 1.0),)


def test_requests_are_shortened_to_what_the_context_holds() -> None:
    bench = SpeedBench(ManualClock(), lambda _: 0.001, context=60)
    writer = RequestWriter("chat", Shape(prompt_tokens=200, output_tokens=8), SeededChance(1))
    options = ModelOptions(context=60, slots=1)
    asyncio.run(writer.fit(bench, options))
    assert writer.shape.prompt_tokens <= 52
    served = asyncio.run(bench.serve(options, writer.write(3), 1))
    assert served.answers[0].prompt_tokens == pytest.approx(writer.shape.prompt_tokens, abs=2)


def test_no_two_requests_are_the_same() -> None:
    calls = RequestWriter("chat", Shape(), SeededChance(1)).write(50)
    assert len({call.body["messages"][0]["content"] for call in calls}) == 50
    [embedding] = RequestWriter("embedding", Shape(), SeededChance(1)).write(1)
    assert embedding.kind == "embedding" and set(embedding.body) == {"input"}
