"""The official `openai` client is the contract: what it can ask of the door, and how it reads what comes back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import httpx2
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

from tests.helpers.door import PIPELINES, OpenDoor, Process, open_door

HELLO = [{"role": "user", "content": "hello"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@pytest.fixture(scope="module")
def door() -> Iterator[OpenDoor]:
    with open_door() as opened:
        yield opened


@pytest.fixture
def client(door: OpenDoor) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{door.url}/v1", api_key=door.key, max_retries=0) as made:
        yield made
    door.wait_idle()


@pytest.fixture
async def async_client(door: OpenDoor) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{door.url}/v1", api_key=door.key, max_retries=0) as made:
        yield made
    door.wait_idle()


# -- models ------------------------------------------------------------------------------------------------------------


def test_models_are_listed_and_retrieved(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == sorted(route.name for route in PIPELINES)
    assert client.models.retrieve("chat").owned_by == "headgate"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("nobody")
    assert caught.value.code == "model_not_found"


# -- chat --------------------------------------------------------------------------------------------------------------


def test_chat_whole_and_streamed_say_the_same(client: OpenAI) -> None:
    whole = client.chat.completions.create(model="chat", messages=HELLO, seed=3)
    chunks = list(client.chat.completions.create(model="chat", messages=HELLO, seed=3, stream=True))
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert said == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason == "stop"
    assert len({chunk.id for chunk in chunks}) == 1 and chunks[0].id.startswith("chatcmpl-")
    assert whole.usage is not None and whole.usage.completion_tokens == 8
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + 8


def test_usage_comes_last_in_a_stream_when_asked_for(client: OpenAI) -> None:
    asked = {"include_usage": True}
    chunks = list(client.chat.completions.create(model="chat", messages=HELLO, stream=True, stream_options=asked))
    assert chunks[-1].choices == [] and chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 8
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_several_choices_whole_and_streamed(client: OpenAI) -> None:
    whole = client.chat.completions.create(model="chat", messages=HELLO, seed=3, n=3)
    texts = [choice.message.content for choice in whole.choices]
    assert len(set(texts)) == 3
    one = client.chat.completions.create(model="chat", messages=HELLO, seed=3)
    assert texts[0] == one.choices[0].message.content
    assert whole.usage is not None and one.usage is not None
    assert whole.usage.prompt_tokens == one.usage.prompt_tokens, "a prompt counts once, however many answers"
    assert whole.usage.completion_tokens == 24
    streamed = {0: "", 1: "", 2: ""}
    ends: list[int] = []
    for chunk in client.chat.completions.create(model="chat", messages=HELLO, seed=3, n=3, stream=True):
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
            ends += [choice.index] if choice.finish_reason else []
    assert list(streamed.values()) == texts and sorted(ends) == [0, 1, 2]


def test_seed_stop_and_max_tokens(client: OpenAI) -> None:
    def ask(**more: object) -> tuple[str, str]:
        choice = client.chat.completions.create(model="chat", messages=HELLO, **more).choices[0]  # type: ignore
        return choice.message.content or "", choice.finish_reason

    assert ask(seed=1) == ask(seed=1) != ask(seed=2)
    text, _ = ask(seed=1)
    word = text.split()[3]
    assert ask(seed=1, stop=[word]) == (text[: text.index(word)], "stop")
    short, finish = ask(seed=1, max_tokens=2)
    assert text.startswith(short) and finish == "length"
    assert ask(seed=1, max_completion_tokens=2) == (short, "length")


def test_logprobs(client: OpenAI) -> None:
    choice = client.chat.completions.create(
        model="chat", messages=HELLO, logprobs=True, top_logprobs=2, max_tokens=3
    ).choices[0]
    assert choice.logprobs is not None and choice.logprobs.content is not None
    entries = choice.logprobs.content
    assert "".join(entry.token for entry in entries) == choice.message.content
    assert all(len(entry.top_logprobs) == 2 and entry.logprob <= 0 for entry in entries)
    assert not hasattr(entries[0], "id"), "token ids are the engine's own affair"
    chunks = client.chat.completions.create(
        model="chat", messages=HELLO, logprobs=True, top_logprobs=1, max_tokens=3, stream=True
    )
    logged = [chunk.choices[0].logprobs for chunk in chunks]
    told = [entry for one in logged if one is not None for entry in one.content or ()]
    assert [entry.token for entry in told] == [entry.token for entry in entries]


def test_tools(client: OpenAI) -> None:
    named = {"type": "function", "function": {"name": "weather"}}
    for choice in ("required", named):
        message = client.chat.completions.create(
            model="chat", messages=HELLO, tools=[WEATHER], tool_choice=choice  # type: ignore
        ).choices[0]  # fmt: skip
        assert message.finish_reason == "tool_calls" and message.message.tool_calls
        call = message.message.tool_calls[0]
        assert call.type == "function" and call.function.name == "weather" and '"city"' in call.function.arguments
    with client.chat.completions.stream(
        model="chat", messages=HELLO, tools=[WEATHER], tool_choice="required"  # type: ignore
    ) as stream:  # fmt: skip
        final = stream.get_final_completion()
    assert final.choices[0].message.tool_calls and final.choices[0].message.tool_calls[0].function.name == "weather"
    answer = client.chat.completions.create(model="chat", messages=HELLO, tools=[WEATHER], tool_choice="none")  # type: ignore
    assert answer.choices[0].message.content
    turns = [
        *HELLO,
        {"role": "assistant", "tool_calls": [call.model_dump()]},
        {"role": "tool", "tool_call_id": call.id, "content": "rain"},
    ]
    assert client.chat.completions.create(model="chat", messages=turns).choices[0].message.content  # type: ignore


class Ticket(BaseModel):
    customer: str
    number: int
    urgent: bool


def test_structured_output(client: OpenAI) -> None:
    parsed = client.chat.completions.parse(model="chat", messages=HELLO, response_format=Ticket)  # type: ignore
    assert isinstance(parsed.choices[0].message.parsed, Ticket)
    with client.chat.completions.stream(model="chat", messages=HELLO, response_format=Ticket) as stream:  # type: ignore
        assert isinstance(stream.get_final_completion().choices[0].message.parsed, Ticket)
    free = client.chat.completions.create(model="chat", messages=HELLO, response_format={"type": "json_object"})
    assert free.choices[0].message.content == "{}"


def test_what_does_not_fit_its_schema_is_not_delivered(client: OpenAI) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.parse(model="nonsense", messages=HELLO, response_format=Ticket)  # type: ignore
    assert caught.value.status_code == 502 and caught.value.code == "schema_violation"


def test_what_is_not_honoured_is_named(client: OpenAI) -> None:
    answer = client.chat.completions.with_raw_response.create(
        model="chat", messages=HELLO, top_p=0.5, presence_penalty=1, extra_body={"mirostat": 2}  # type: ignore
    )  # fmt: skip
    assert answer.headers["x-headgate-warning"] == "not honoured: mirostat, presence_penalty, top_p"
    assert answer.headers["x-request-id"] and answer.headers["x-headgate-device"] == "cpu:0"
    assert "x-headgate-warning" not in client.models.with_raw_response.list().headers


# -- completions, embeddings -------------------------------------------------------------------------------------------


def test_completions(client: OpenAI) -> None:
    one = client.completions.create(model="chat", prompt="once", seed=1)
    assert one.object == "text_completion" and one.choices[0].text and one.choices[0].finish_reason == "stop"
    several = client.completions.create(model="chat", prompt=["once", "twice"], n=2, seed=1)
    assert [choice.index for choice in several.choices] == [0, 1, 2, 3]
    assert several.choices[0].text == one.choices[0].text
    twice = client.completions.create(model="chat", prompt="twice", seed=1)
    assert several.choices[2].text == twice.choices[0].text
    assert several.usage and one.usage and twice.usage
    assert several.usage.prompt_tokens == one.usage.prompt_tokens + twice.usage.prompt_tokens
    assert client.completions.create(model="chat", prompt=[1, 2, 3]).choices[0].text
    assert len(client.completions.create(model="chat", prompt=[[1, 2], [3]]).choices) == 2
    chunks = list(client.completions.create(model="chat", prompt="once", seed=1, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == one.choices[0].text
    logged = client.completions.create(model="chat", prompt="once", logprobs=2, max_tokens=2).choices[0].logprobs
    assert logged and logged.tokens and logged.token_logprobs and len(logged.tokens) == len(logged.token_logprobs) == 2


def test_embeddings(client: OpenAI) -> None:
    packed = client.embeddings.create(model="embed", input=["one", "two"])  # the client asks for base64 by itself
    floats = client.embeddings.create(model="embed", input=["one", "two"], encoding_format="float")
    for left, right in zip(packed.data, floats.data, strict=True):
        assert left.embedding == pytest.approx(right.embedding, abs=1e-6)
    assert [item.index for item in floats.data] == [0, 1] and len(floats.data[0].embedding) == 32
    single = client.embeddings.create(model="embed", input="one", encoding_format="float")
    assert single.data[0].embedding == floats.data[0].embedding and single.usage.prompt_tokens > 0
    with pytest.raises(openai.BadRequestError):
        client.embeddings.create(model="chat", input="one")
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="embed", messages=HELLO)


# -- responses ---------------------------------------------------------------------------------------------------------


def test_responses(client: OpenAI) -> None:
    whole = client.responses.create(model="chat", input="hello", instructions="be brief")
    assert whole.status == "completed" and whole.output_text and whole.usage and whole.usage.output_tokens == 8
    cut = client.responses.create(model="chat", input="hello", max_output_tokens=2)
    assert cut.status == "incomplete" and cut.incomplete_details
    assert cut.incomplete_details.reason == "max_output_tokens"
    parsed = client.responses.parse(model="chat", input=[{"role": "user", "content": "hello"}], text_format=Ticket)
    assert isinstance(parsed.output_parsed, Ticket)


def test_responses_streamed(client: OpenAI) -> None:
    events = list(client.responses.create(model="chat", input="hello", instructions="be brief", stream=True))
    kinds = [event.type for event in events]
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert kinds[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    said = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert events[-1].type == "response.completed" and events[-1].response.output_text == said
    with client.responses.stream(model="chat", input="hello", text_format=Ticket) as stream:
        assert isinstance(stream.get_final_response().output_parsed, Ticket)


# -- errors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "kind", "status", "code"),
    [
        ("nobody", openai.NotFoundError, 404, "model_not_found"),
        ("full", openai.RateLimitError, 429, "queue_full"),
        ("blocked", openai.InternalServerError, 503, "unavailable"),
        ("broken", openai.InternalServerError, 502, "replica_failed"),
        ("asleep", openai.InternalServerError, 504, "deadline_exceeded"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_errors_by_class(
    client: OpenAI, model: str, kind: type[openai.APIStatusError], status: int, code: str, stream: bool
) -> None:
    with pytest.raises(kind) as caught:
        client.chat.completions.create(model=model, messages=HELLO, stream=stream)  # type: ignore
    assert caught.value.status_code == status and caught.value.code == code
    assert caught.value.request_id
    if status in (429, 503):
        assert int(caught.value.response.headers["retry-after"]) >= 1


def test_wrong_key_role_and_field(door: OpenDoor, client: OpenAI) -> None:
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="hg_wrong").models.list()
    with pytest.raises(openai.PermissionDeniedError):
        client.with_options(api_key=door.keys["scrape"]).chat.completions.create(model="chat", messages=HELLO)
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="chat", messages=HELLO, temperature=7)
    assert caught.value.param == "temperature" and caught.value.code == "invalid_request"
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="chat", messages=[{"role": "user", "content": "x" * 20_000}])
    assert caught.value.code == "context_length_exceeded" and caught.value.param == "messages"


def test_a_revoked_key_is_refused_within_a_second(door: OpenDoor, client: OpenAI) -> None:
    key = door.make_key("user")
    mine = client.with_options(api_key=key)
    mine.models.list()
    door.revoke(key)
    end = time.monotonic() + 3
    with pytest.raises(openai.AuthenticationError):
        while time.monotonic() < end:
            mine.models.list()
            time.sleep(0.1)


# -- leaving -----------------------------------------------------------------------------------------------------------


def freed(door: OpenDoor, name: str) -> float:
    """Seconds until the dispatcher and the replica count nothing in flight."""
    start = time.monotonic()
    door.wait_for(lambda: door.in_flight() == 0)
    door.wait_for(lambda: door.busy_slots(name) == 0)
    return time.monotonic() - start


@pytest.mark.parametrize("choices", [1, 2])
def test_closing_a_stream_frees_its_slots(door: OpenDoor, client: OpenAI, choices: int) -> None:
    took: list[float] = []
    for _ in range(3):
        stream = client.chat.completions.create(model="slow", messages=HELLO, stream=True, n=choices)
        for _, chunk in zip(range(6), stream, strict=False):
            assert chunk.choices
        assert door.in_flight() == choices == door.busy_slots("slow")
        stream.close()
        took.append(freed(door, "slow"))
    print(f"slots freed after {[round(one * 1e3, 1) for one in took]} ms")
    assert min(took) < 0.1, "100 ms is the promise; the best of three, because the machine is shared"
    door.wait_idle()


def test_a_timeout_of_the_client_frees_slot_and_queue(door: OpenDoor, client: OpenAI) -> None:
    with pytest.raises(openai.APITimeoutError):
        client.chat.completions.create(model="slow", messages=HELLO, timeout=0.2)
    freed(door, "slow")
    held = [client.chat.completions.create(model="slow", messages=HELLO, stream=True) for _ in range(2)]
    with pytest.raises(openai.APITimeoutError):
        client.chat.completions.create(model="slow", messages=HELLO, timeout=0.2)
    door.wait_for(lambda: not door.dispatcher.lane("slow").waiting)
    assert door.in_flight() == 2
    for stream in held:
        stream.close()
    freed(door, "slow")


def test_the_queue_is_bounded(door: OpenDoor, client: OpenAI) -> None:
    held = [client.chat.completions.create(model="slow", messages=HELLO, stream=True) for _ in range(2)]
    try:
        with OpenAI(base_url=f"{door.url}/v1", api_key=door.key, max_retries=0, timeout=0.5) as other:
            stuck = httpx2.Client(base_url=door.url, headers={"Authorization": f"Bearer {door.key}"}, timeout=0.3)
            with pytest.raises(httpx2.ReadTimeout), stuck:
                stuck.post("/v1/chat/completions", json={"model": "slow", "messages": HELLO})
            door.wait_for(lambda: not door.dispatcher.lane("slow").waiting)
            assert other.models.list()
    finally:
        for stream in held:
            stream.close()
    freed(door, "slow")


async def test_many_at_once(door: OpenDoor, async_client: AsyncOpenAI) -> None:
    async def ask(number: int) -> str:
        seeded = {"model": "chat", "messages": HELLO, "seed": number}
        if number % 2:
            answer = await async_client.chat.completions.create(**seeded)  # type: ignore
            return answer.choices[0].message.content
        said = ""
        async for chunk in await async_client.chat.completions.create(**seeded, stream=True):  # type: ignore
            said += chunk.choices[0].delta.content or ""
        return said

    texts = await asyncio.gather(*(ask(number) for number in range(60)))
    assert len(set(texts)) == 60
    again = await asyncio.gather(*(ask(number) for number in (7, 8)))
    assert again == [texts[7], texts[8]]


async def test_cancelled_tasks_leave_nothing(door: OpenDoor, async_client: AsyncOpenAI) -> None:
    async def ask() -> None:
        async for _ in await async_client.chat.completions.create(model="slow", messages=HELLO, stream=True):  # type: ignore
            pass

    tasks = [asyncio.create_task(ask()) for _ in range(3)]  # two decode, one waits
    await asyncio.to_thread(door.wait_for, lambda: door.in_flight() == 3)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.to_thread(door.wait_idle)


# -- a replica that breaks ---------------------------------------------------------------------------------------------


def test_a_greedy_stream_survives_its_replica() -> None:
    processes = (
        Process(name="a", pipelines=("chat",), settings={"answer_tokens": 40, "crash_after": 25}),
        Process(name="b", pipelines=("chat",), settings={"answer_tokens": 40}),
    )
    with open_door(processes) as door, OpenAI(base_url=f"{door.url}/v1", api_key=door.key, max_retries=0) as client:
        asked = {"model": "chat", "messages": HELLO, "temperature": 0}
        usage = {"include_usage": True}
        chunks = list(client.chat.completions.create(**asked, stream=True, stream_options=usage))  # type: ignore
        assert door.children["a"].wait(5) != 0, "the first replica was to crash"
        said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        whole = client.chat.completions.create(**asked)  # type: ignore
        assert said == whole.choices[0].message.content, "byte by byte, without gap or repeat"
        assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices].count("stop") == 1
        assert chunks[-1].usage == whole.usage, "the prompt counts once, the parts of the answer add up"
        door.wait_idle()


def test_a_stream_that_cannot_be_continued_ends_with_an_error() -> None:
    processes = (Process(name="a", pipelines=("chat",), settings={"answer_tokens": 40, "crash_after": 25}),)
    with open_door(processes) as door, OpenAI(base_url=f"{door.url}/v1", api_key=door.key, max_retries=0) as client:
        said = ""
        with pytest.raises(openai.APIError) as caught:
            for chunk in client.chat.completions.create(model="chat", messages=HELLO, temperature=1, stream=True):  # type: ignore
                said += chunk.choices[0].delta.content or ""
        assert said and caught.value.code == "replica_failed"
        door.wait_idle()
