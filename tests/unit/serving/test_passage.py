"""One request from accepted to settled: attempts, continuation, and exactly one terminal state for each row."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.core.chat import Call, Delta
from headgate.core.clock import SystemClock
from headgate.core.errors import (
    BadRequest,
    DeadlineExceeded,
    HeadgateError,
    SchemaViolation,
    StoreUnavailable,
    UpstreamFailed,
)
from headgate.core.principal import LOCAL_ADMIN
from headgate.core.secret import Secret
from headgate.core.table import PipelineRoute, ReplicaRoute, RoutingTable
from headgate.core.usage import Usage
from headgate.serving.dispatch import Dispatcher
from headgate.serving.passage import MAX_ATTEMPTS, Passage, Serving

TEXT = "Wasser läuft über das Wehr 水."
PROMPT = 7


class Book:
    """Stands where the ledger stands and refuses what must not happen."""

    def __init__(self) -> None:
        self.open: dict[str, str] = {}
        self.settled: dict[str, dict[str, Any]] = {}
        self.refuses = False
        self.attempts: list[int] = []
        self.versions: list[str] = []

    def open_request(self, *, request_id: str, **_: Any) -> str:
        if self.refuses:
            raise StoreUnavailable("the disk is full", retry_after_s=1.0)
        self.open[request_id] = "request"
        return request_id

    def open_call(self, request_id: str, *, attempt: int, replica: ReplicaRoute, **_: Any) -> str:
        assert request_id in self.open, "a call belongs to an open request"
        row = f"call{len(self.attempts)}"
        self.attempts.append(attempt)
        self.versions.append(replica.version)
        self.open[row] = "call"
        return row

    def settle_call(self, row: str, **values: Any) -> None:
        assert self.open.pop(row) == "call"
        assert row not in self.settled
        self.settled[row] = values

    def settle_request(self, row: str, **values: Any) -> None:
        assert self.open.pop(row) == "request"
        assert not self.open, "a request settles after its calls"
        self.settled[row] = values

    @property
    def request(self) -> dict[str, Any]:
        return self.settled["r"]

    @property
    def call_states(self) -> list[str]:
        return [values["state"] for row, values in self.settled.items() if row != "r"]


Behaviour = Callable[[Call, str], AsyncGenerator[Delta, None]]


async def speak(
    call: Call, after: str = "", *, text: str = TEXT, stop_at: int | None = None
) -> AsyncGenerator[Delta, None]:
    """`text` after `after`, a character a piece; breaks after `stop_at` pieces."""
    yield Delta(progress=(PROMPT, PROMPT))
    for number, letter in enumerate(text[len(after) :]):
        if number == stop_at:
            raise UpstreamFailed("gone", code="replica_broke")
        yield Delta(text=letter, token_ids=(ord(letter),))
    if stop_at == len(text) - len(after):
        raise UpstreamFailed("gone", code="replica_broke")
    yield Delta(finish="stop")
    yield Delta(usage=Usage(prompt_tokens=PROMPT, output_tokens=len(text) - len(after)))


class Engine:
    """Answers as the list says, attempt by attempt; the last one for good."""

    name = "test"
    leaves_walls = False

    def __init__(self, *behaviours: Behaviour) -> None:
        self.behaviours = list(behaviours)
        self.open = 0
        self.seeds: list[int] = []

    def stream(self, upstream: Any, call: Call, seed_offset: int = 0) -> AsyncGenerator[Delta, None]:
        self.seeds.append(seed_offset)
        return self._run(call, "")

    def resume(self, upstream: Any, call: Call, text: str, ids: tuple[int, ...]) -> AsyncGenerator[Delta, None]:
        assert "".join(map(chr, ids)) == text
        return self._run(call, text)

    async def _run(self, call: Call, after: str) -> AsyncGenerator[Delta, None]:
        behaviour = self.behaviours.pop(0) if len(self.behaviours) > 1 else self.behaviours[0]
        self.open += 1
        try:
            async with aclosing(behaviour(call, after)) as pieces:
                async for delta in pieces:
                    yield delta
        finally:
            self.open -= 1


class World:
    def __init__(
        self, *behaviours: Behaviour, replicas: int = 3, timeout_s: float = 30.0, versions: tuple[str, ...] = ("v",)
    ) -> None:
        self.book = Book()
        self.engine = Engine(*behaviours)
        self.dispatcher = Dispatcher(SystemClock())
        route = PipelineRoute(
            name="p", model="p", version="v", engine="test", task="generate", context=100, queue=4, weight=1.0,
            first_token_s=1.0, per_token_s=0.1, timeout_s=timeout_s, created=1,
        )  # fmt: skip
        one = ReplicaRoute(
            id="a", pipeline="p", version="v", engine="test", address="unix:/x", secret=Secret("s"), epoch=1, slots=8,
            device="cpu:0", pool="cpu", share=1.0, state="ready",
        )  # fmt: skip
        named = {
            f"a{number}": replace(one, id=f"a{number}", version=versions[number % len(versions)])
            for number in range(replicas)
        }
        self.dispatcher.apply(RoutingTable(node="n", number=1, pipelines={"p": route}, replicas=named))
        self.serving = Serving(
            dispatcher=self.dispatcher,
            engines={"test": self.engine},  # type: ignore[dict-item]
            ledger=self.book,  # type: ignore[arg-type]
            clock=SystemClock(),
        )
        self.said: list[Delta] = []

    async def run(self, *calls: Call) -> Passage:
        passage = self.serving.passage(calls, LOCAL_ADMIN, stream=True, request_id="r")
        try:
            async with passage:
                for index in range(passage.choices):
                    async with aclosing(passage.choice(index)) as pieces:
                        async for delta in pieces:
                            self.said.append(delta)
        finally:
            self.check_nothing_left()
        return passage

    def check_nothing_left(self) -> None:
        assert self.book.open == {} and self.engine.open == 0
        lane = self.dispatcher.lane("p")
        assert lane.in_flight == 0 and not lane.waiting and lane.arrivals - lane.settled in (0, int(self.book.refuses))

    @property
    def text(self) -> str:
        return "".join(delta.text for delta in self.said)


def call(**more: Any) -> Call:
    body = more.pop("body", {"messages": [], "temperature": 0})
    return Call(kind="chat", pipeline="p", body=body, **more)


def breaking(at: int, text: str = TEXT) -> Behaviour:
    return lambda asked, after: speak(asked, after, text=text, stop_at=at)


async def test_an_answer_is_settled_once() -> None:
    world = World(speak)
    passage = await world.run(call())
    assert world.text == TEXT and passage.usage == Usage(prompt_tokens=PROMPT, output_tokens=len(TEXT))
    assert world.book.request["state"] == "ok" and world.book.request["usage"] == passage.usage
    assert world.book.call_states == ["ok"] and passage.first_s is not None


async def test_an_answer_goes_on_with_the_version_that_began_it() -> None:
    world = World(breaking(3), speak, replicas=4, versions=("v", "w"))
    passage = await world.run(call())
    assert world.text == TEXT and passage.continued
    assert set(world.book.versions) == {"v"} and len(world.book.versions) == 2


async def test_an_answer_ends_with_an_error_when_no_other_replica_of_its_version_comes(monkeypatch) -> None:
    monkeypatch.setattr("headgate.serving.passage._CONTINUE_S", -2.0)  # with the 2 s of the route's wakes: at once
    world = World(breaking(3), speak, replicas=2, versions=("v", "w"))
    with pytest.raises(UpstreamFailed, match="of the same model version"):
        await world.run(call())
    assert world.text == TEXT[:3] and world.book.request["state"] == "error"


async def test_one_that_gave_nothing_yet_may_go_to_another_version() -> None:
    world = World(breaking(0), speak, replicas=2, versions=("v", "w"))
    await world.run(call())
    assert world.text == TEXT and world.book.versions == ["v", "w"]


@given(st.lists(st.integers(0, len(TEXT)), max_size=MAX_ATTEMPTS - 1))
@settings(max_examples=60, deadline=None)
def test_a_continued_answer_has_no_gap_and_no_repeat(breaks: list[int]) -> None:
    async def scenario() -> None:
        world = World(*(breaking(at) for at in breaks), speak, replicas=MAX_ATTEMPTS)
        passage = await world.run(call())
        assert world.text == TEXT
        assert [delta.finish for delta in world.said if delta.finish] == ["stop"]
        assert passage.usage == Usage(prompt_tokens=PROMPT, output_tokens=len(TEXT))
        assert world.book.request["state"] == "ok" and world.book.call_states[-1] == "ok"
        assert world.book.attempts == list(range(1, len(world.book.attempts) + 1))

    asyncio.run(scenario())


async def test_a_break_after_the_last_word_is_no_failure() -> None:
    async def done_but_broken(asked: Call, after: str) -> AsyncGenerator[Delta, None]:
        yield Delta(text="all", token_ids=(1,))
        yield Delta(finish="stop")
        raise UpstreamFailed("gone", code="replica_broke")

    world = World(done_but_broken)
    await world.run(call())
    assert world.text == "all" and world.book.request["state"] == "ok" and world.book.call_states == ["error"]


@pytest.mark.parametrize(
    "asked",
    [
        call(body={"messages": []}),
        call(body={"messages": [], "temperature": 0, "tools": [{"function": {"name": "x"}}]}),
    ],
)
async def test_what_cannot_be_continued_ends_with_an_error(asked: Call) -> None:
    world = World(breaking(3), speak)
    with pytest.raises(UpstreamFailed):
        await world.run(asked)
    assert world.text == TEXT[:3] and world.book.request["state"] == "error"
    assert world.book.request["usage"] == Usage(prompt_tokens=PROMPT, output_tokens=3), "what was produced counts"


async def test_before_the_first_token_anything_is_tried_again() -> None:
    world = World(breaking(0), breaking(0), speak)
    passage = await world.run(call(body={"messages": []}))
    assert world.text == TEXT and passage.attempts == 3 and not passage.continued
    assert world.book.call_states == ["error", "error", "ok"]


async def test_attempts_are_bounded_and_counted_per_choice() -> None:
    def refusing(asked: Call, after: str) -> AsyncGenerator[Delta, None]:
        async def run() -> AsyncGenerator[Delta, None]:
            raise UpstreamFailed("no", code="replica_failed")
            yield Delta()

        return run()

    world = World(refusing, replicas=1)
    with pytest.raises(UpstreamFailed):
        await world.run(call())
    assert len(world.book.attempts) == MAX_ATTEMPTS
    world = World(*[speak] * 5, breaking(0), speak, replicas=2)
    passage = await world.run(call(body={"messages": []}, choices=6))
    assert world.text == TEXT * 6 and passage.attempts == 7
    assert passage.usage == Usage(prompt_tokens=PROMPT, output_tokens=6 * len(TEXT)), "one prompt, six answers"


async def test_several_prompts_count_each() -> None:
    world = World(speak)
    passage = await world.run(call(choices=2), call(choices=2))
    assert passage.usage == Usage(prompt_tokens=2 * PROMPT, output_tokens=4 * len(TEXT))
    assert world.engine.seeds == [0, 1, 0, 1]


SCHEMA = {"type": "object", "required": ["a"]}


def saying(text: str) -> Behaviour:
    return lambda asked, after: speak(asked, after, text=text)


async def test_a_constrained_answer_is_checked_before_it_is_given() -> None:
    world = World(saying("{}"), saying('{"a": 1}'))
    passage = await world.run(call(body={"messages": []}, schema=SCHEMA))
    assert world.text == '{"a": 1}' and passage.attempts == 2 and len(set(world.engine.seeds)) == 2
    assert passage.usage.output_tokens == len('{"a": 1}'), "what was not delivered is not counted"
    for body in ({"messages": []}, {"messages": [], "temperature": 0}):
        world = World(saying("nonsense"))
        with pytest.raises(SchemaViolation) as caught:
            await world.run(call(body=body, schema=SCHEMA))
        assert world.said == [] and caught.value.status == 502 and "nonsense" not in caught.value.message
        assert len(world.book.attempts) == (1 if "temperature" in body else 2)


async def wrong(asked: Call, after: str) -> AsyncGenerator[Delta, None]:
    raise BadRequest("no", param="messages")
    yield Delta()


async def test_a_refusal_of_the_engine_is_not_tried_again() -> None:
    world = World(wrong)
    with pytest.raises(BadRequest):
        await world.run(call())
    assert world.book.request["state"] == "refused" and len(world.book.attempts) == 1


async def silent(asked: Call, after: str) -> AsyncGenerator[Delta, None]:
    await asyncio.Event().wait()
    yield Delta()


async def broken(asked: Call, after: str) -> AsyncGenerator[Delta, None]:
    raise UpstreamFailed("gone", code="replica_broke")
    yield Delta()


@pytest.mark.parametrize(
    ("behaviour", "late"), [(speak, 0), (silent, 1), (broken, 1), (wrong, 0)], ids=["told", "silent", "broken", "wrong"]
)
async def test_who_waits_in_vain_counts_as_late_and_who_asks_wrongly_does_not(behaviour: Behaviour, late: int) -> None:
    world = World(behaviour, timeout_s=0.05)
    with contextlib.suppress(HeadgateError):
        await world.run(call())
    assert world.dispatcher.lane("p").take_load(0.0).late == late


async def test_a_client_that_leaves_at_once_was_not_kept_waiting() -> None:
    world = World(silent)
    task = asyncio.create_task(world.run(call()))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert world.dispatcher.lane("p").take_load(0.0).late == 0


async def hang(asked: Call, after: str) -> AsyncGenerator[Delta, None]:
    yield Delta(progress=(PROMPT, PROMPT))
    yield Delta(text="a")
    await asyncio.Event().wait()


async def test_deadlines_end_a_request() -> None:
    world = World(hang, timeout_s=0.05)
    with pytest.raises(DeadlineExceeded):
        await world.run(call())
    assert world.book.request["state"] == "error" and world.book.request["status"] == 504
    assert world.book.call_states == ["cancelled"]
    assert world.book.request["usage"] == Usage(prompt_tokens=PROMPT, output_tokens=1)


async def test_a_client_that_leaves_settles_as_cancelled() -> None:
    world = World(hang)
    task = asyncio.create_task(world.run(call()))
    while not world.said:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert world.book.request["state"] == "cancelled" and world.book.call_states == ["cancelled"]


async def test_a_client_that_leaves_while_it_waits_settles_without_a_call() -> None:
    world = World(hang, replicas=0)
    task = asyncio.create_task(world.run(call()))
    await asyncio.sleep(0.01)
    assert len(world.dispatcher.lane("p").waiting) == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert world.book.request["state"] == "cancelled" and world.book.attempts == []


async def test_a_defect_settles_too() -> None:
    async def defect(asked: Call, after: str) -> AsyncGenerator[Delta, None]:
        yield Delta(text="a")
        raise ZeroDivisionError

    world = World(defect)
    with pytest.raises(ZeroDivisionError):
        await world.run(call())
    assert world.book.request["state"] == "error" and world.book.request["status"] == 500


async def test_nothing_is_asked_that_cannot_be_put_on_record() -> None:
    world = World(speak)
    world.book.refuses = True
    with pytest.raises(HeadgateError) as caught:
        await world.run(call())
    assert caught.value.status == 503 and world.engine.seeds == []
