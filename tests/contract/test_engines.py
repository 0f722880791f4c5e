"""One suite for all engines: what serving may rely on, whichever software answers."""

from __future__ import annotations

import asyncio
import json
import math
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import xllamacpp

from headgate.core.chat import Call, Delta
from headgate.core.clock import SystemClock
from headgate.core.errors import BadRequest, ContextOverflow, UpstreamFailed
from headgate.core.model import Version
from headgate.core.secret import Secret
from headgate.engines.engine import Engine, Launch, ModelOptions, Upstream
from headgate.engines.http import HttpClient
from headgate.engines.settings import FakeModelSettings
from headgate.registry.gguf import read_gguf
from headgate.registry.gguf_facts import header_facts
from tests.helpers.replicas import (
    SECRET,
    engines_for,
    find_port,
    make_version,
    running_endpoint,
    running_replica,
    wait_ready,
    write_classic,
    write_llama_server,
)
from tests.helpers.tiny_gguf import Shape, write_bert, write_llama, write_lora

CONTEXT = 4096
FAKE = {"magic": True, "answer_tokens": 40, "seed": 3}
SHAPE = Shape(embedding=128, layers=4, feed_forward=256, context=CONTEXT)
SCHEMA = {
    "type": "object",
    "properties": {"label": {"type": "string", "maxLength": 8}, "confidence": {"type": "number"}},
    "required": ["label", "confidence"],
    "additionalProperties": False,
}
TOOL = {
    "type": "function",
    "function": {
        "name": "set_gate",
        "parameters": {
            "type": "object",
            "properties": {"open": {"type": "boolean"}},
            "required": ["open"],
            "additionalProperties": False,
        },
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One engine with a replica that runs, and what it can do."""

    name: str
    engine: str
    upstream: Upstream
    version: Version
    options: ModelOptions
    embedder: Upstream | None = None
    binary: Path | None = None
    tools: bool = True
    long: bool = True
    resumes: bool = True
    samples: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A subject with an engine object in the test's own event loop."""

    subject: Subject
    engine: Engine
    client: HttpClient

    async def ask(self, call: Call, seed_offset: int = 0) -> list[Delta]:
        return [delta async for delta in self.engine.stream(self.subject.upstream, call, seed_offset)]

    async def busy_slots(self) -> int:
        address = self.subject.upstream.address.partition("/base")[0]
        headers = (("Authorization", f"Bearer {SECRET}"),)
        async with self.client.request("GET", address, "/slots", headers) as response:
            return sum(slot["is_processing"] for slot in json.loads(await response.read()))


def _fake_settings(**more: object) -> dict[str, object]:
    return FakeModelSettings.model_validate(FAKE | more).model_dump()


@pytest.fixture(scope="module", params=["llamacpp", "llama-server", "classic", "fake", "remote"])
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    folder = tmp_path_factory.mktemp("versions")
    name: str = request.param
    with ExitStack() as stack:
        if name in ("llamacpp", "llama-server"):
            binary = write_llama_server(folder / "llama-server") if name == "llama-server" else None
            path = write_llama(folder / "tiny.gguf", SHAPE)
            header = header_facts(read_gguf(path))
            version = make_version("gguf", path, context=CONTEXT, parameters=10**6, header=header)
            options = ModelOptions(context=CONTEXT, slots=2)
            encoder = make_version("gguf", write_bert(folder / "bert.gguf"), "embed", context=128)
            embedder = stack.enter_context(
                running_replica("llamacpp", encoder, ModelOptions(context=128, slots=2), binary)
            )
            running = stack.enter_context(running_replica("llamacpp", version, options, binary))
            yield Subject(
                name=name,
                engine="llamacpp",
                upstream=running.upstream,
                version=version,
                options=options,
                embedder=embedder.upstream,
                binary=binary,
            )
        elif name == "classic":
            version = make_version("classic", write_classic(folder / "classic"))
            options = ModelOptions(context=CONTEXT, slots=1)
            running = stack.enter_context(running_replica("classic", version, options))
            yield Subject(
                name=name,
                engine="classic",
                upstream=running.upstream,
                version=version,
                options=options,
                tools=False,
                long=False,
                samples=False,
            )
        elif name == "fake":
            version, options = make_version("fake"), ModelOptions(context=CONTEXT, slots=2, settings=FAKE)
            running = stack.enter_context(running_replica("fake", version, options))
            yield Subject(
                name=name,
                engine="fake",
                upstream=running.upstream,
                version=version,
                options=options,
                embedder=running.upstream,
            )
        else:
            os.environ["TEST_ENDPOINT_KEY"] = SECRET
            address = stack.enter_context(running_endpoint(_fake_settings(), CONTEXT))
            version = make_version("endpoint", origin=f"endpoint:{address}")
            options = ModelOptions(
                context=CONTEXT, slots=2, settings={"model": "theirs/m 1", "key_from": "TEST_ENDPOINT_KEY"}
            )
            launch = Launch(replica="r", version=version, options=options, address="", secret=Secret(""))
            upstream = engines_for(HttpClient(SystemClock()))["remote"].upstream(launch)
            yield Subject(
                name=name,
                engine="remote",
                upstream=upstream,
                version=version,
                options=options,
                embedder=upstream,
                resumes=False,
            )


@pytest.fixture
async def bench(subject: Subject) -> AsyncIterator[Bench]:
    client = HttpClient(SystemClock())
    yield Bench(subject=subject, engine=engines_for(client, subject.binary)[subject.engine], client=client)
    assert not client._busy, "a test left a connection in use"
    await client.close()


def chat(content: str = "my parcel is late", max_tokens: int | None = 12, **body: object) -> Call:
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": content}]
    return Call(kind="chat", pipeline="p", body={"messages": messages, **body}, max_tokens=max_tokens)


def completion(prompt: str = "my parcel is late", max_tokens: int | None = 12, **body: object) -> Call:
    return Call(kind="completion", pipeline="p", body={"prompt": prompt, **body}, max_tokens=max_tokens)


def text_of(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


def finish_of(deltas: list[Delta]) -> str | None:
    finishes = [delta.finish for delta in deltas if delta.finish]
    assert len(finishes) == 1, "an answer ends once"
    return finishes[0]


def unending(subject: Subject) -> Call:
    """A call whose answer takes long: the tiny model may not stop, the fake engine is slow."""
    bias = {"logit_bias": {"2": -100}, "seed": 1, "temperature": 1} if subject.engine == "llamacpp" else {}
    return chat("[[slow]] tell me all", 3500, **bias)


async def test_checks_and_names_what_it_serves(bench: Bench) -> None:
    subject = bench.subject
    bench.engine.check(subject.version, subject.options)
    assert bench.engine.supports(subject.version) >= {"chat", "completion"}
    assert bench.engine.leaves_walls == (subject.name == "remote")
    assert {"messages", "max_tokens", "stop"} <= bench.engine.honours("chat")
    assert "prompt" in bench.engine.honours("completion")


async def test_is_ready_after_a_real_token(bench: Bench) -> None:
    await bench.engine.check_ready(bench.subject.upstream, bench.subject.version)


async def test_is_not_ready_where_nothing_listens(bench: Bench, tmp_path: Path) -> None:
    nobody = Upstream(address=f"unix:{tmp_path}/none.sock", secret=Secret(SECRET))
    with pytest.raises(UpstreamFailed) as raised:
        await bench.engine.check_ready(nobody, bench.subject.version)
    assert raised.value.code == "replica_unreachable"


@pytest.mark.parametrize("call", [chat(temperature=0), completion(temperature=0)], ids=["chat", "completion"])
async def test_streams_an_answer_with_usage(bench: Bench, call: Call) -> None:
    deltas = await bench.ask(call)
    assert text_of(deltas)
    assert finish_of(deltas) in ("stop", "length")
    usages = [delta.usage for delta in deltas if delta.usage]
    assert len(usages) == 1
    assert usages[0].prompt_tokens > 3
    assert 1 <= usages[0].output_tokens <= 12
    if bench.subject.name != "remote":
        ids = [number for delta in deltas for number in delta.token_ids]
        silent = finish_of(deltas) == "stop"  # the token that ends an answer has no text
        assert len(ids) in (usages[0].output_tokens, usages[0].output_tokens - silent)


async def test_stops_at_max_tokens(bench: Bench) -> None:
    if not bench.subject.long:
        pytest.skip("a label is one token")
    deltas = await bench.ask(chat(max_tokens=3, temperature=0))
    assert finish_of(deltas) == "length"
    assert [delta.usage.output_tokens for delta in deltas if delta.usage] == [3]


async def test_stops_at_a_text(bench: Bench) -> None:
    whole = text_of(await bench.ask(chat(max_tokens=24, temperature=0)))
    stop = whole[len(whole) // 2 : len(whole) // 2 + 3]
    deltas = await bench.ask(chat(max_tokens=24, temperature=0, stop=[stop]))
    assert text_of(deltas) == whole[: whole.find(stop)]
    assert finish_of(deltas) == "stop"


async def test_repeats_with_a_seed(bench: Bench) -> None:
    call = chat(max_tokens=20, seed=11, temperature=1)
    first = text_of(await bench.ask(call))
    assert text_of(await bench.ask(call)) == first
    if bench.subject.samples:
        assert text_of(await bench.ask(call, seed_offset=1)) != first


async def test_gives_logprobs_in_the_shape_of_openai(bench: Bench) -> None:
    deltas = await bench.ask(chat(max_tokens=4, temperature=0, logprobs=True, top_logprobs=2))
    entries = [entry for delta in deltas if delta.logprobs for entry in delta.logprobs["content"]]
    assert len(entries) == next(delta.usage.output_tokens for delta in deltas if delta.usage)
    for entry in entries:
        assert set(entry) == {"token", "logprob", "bytes", "top_logprobs"}
        assert entry["logprob"] <= 0
        assert len(entry["top_logprobs"]) == 2
        assert all(set(other) == {"token", "logprob", "bytes"} for other in entry["top_logprobs"])
    assert not any(delta.logprobs for delta in await bench.ask(chat(max_tokens=4, temperature=0)))


async def test_gives_logprobs_of_completions_in_their_own_shape(bench: Bench) -> None:
    deltas = await bench.ask(completion(max_tokens=4, temperature=0, logprobs=2))
    parts = [delta.logprobs for delta in deltas if delta.logprobs]
    assert parts
    offset = 0
    for part in parts:
        assert set(part) == {"tokens", "token_logprobs", "top_logprobs", "text_offset"}
        assert len(part["tokens"]) == len(part["token_logprobs"]) == len(part["top_logprobs"])
        assert part["text_offset"][0] == offset
        offset += sum(map(len, part["tokens"]))


async def test_fits_a_json_schema(bench: Bench) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA, "strict": True}}
    deltas = await bench.ask(chat(max_tokens=300, response_format=form, temperature=0, seed=1))
    if bench.subject.engine == "llamacpp" and finish_of(deltas) == "length":
        assert text_of(deltas).lstrip().startswith("{")  # noise may draw out a number for ever
        return
    answer = json.loads(text_of(deltas))
    assert set(answer) == {"label", "confidence"}


async def test_calls_a_tool(bench: Bench) -> None:
    call = chat(max_tokens=400, tools=[TOOL], tool_choice="required", temperature=0)
    if not bench.subject.tools:
        with pytest.raises(BadRequest):
            await bench.ask(call)
        return
    deltas = await bench.ask(call)
    calls = [part for delta in deltas if delta.tool_calls for part in delta.tool_calls]
    name = "".join(part.get("function", {}).get("name") or "" for part in calls)
    arguments = "".join(part.get("function", {}).get("arguments") or "" for part in calls)
    assert name == "set_gate"
    assert finish_of(deltas) == "tool_calls"
    assert isinstance(json.loads(arguments)["open"], bool)


async def test_makes_embeddings_or_says_that_it_does_not(bench: Bench) -> None:
    call = Call(kind="embedding", pipeline="p", body={"input": ["one text", "another"]})
    if bench.subject.embedder is None:
        with pytest.raises(BadRequest):
            await bench.ask(call)
        return
    deltas = [delta async for delta in bench.engine.stream(bench.subject.embedder, call)]
    assert len(deltas) == 1
    rows = deltas[0].embeddings
    assert rows is not None and len(rows) == 2 and rows[0] != rows[1]
    assert math.isclose(sum(value * value for value in rows[0]), 1.0, rel_tol=1e-3)
    assert deltas[0].usage is not None and deltas[0].usage.prompt_tokens >= 2
    again = [delta async for delta in bench.engine.stream(bench.subject.embedder, call)]
    assert again[0].embeddings == rows
    too_long = Call(kind="embedding", pipeline="p", body={"input": "long words " * 5000})
    with pytest.raises(ContextOverflow):
        [_ async for _ in bench.engine.stream(bench.subject.embedder, too_long)]


async def test_refuses_embeddings_of_a_chat_model(bench: Bench) -> None:
    if bench.subject.engine != "llamacpp":
        pytest.skip("this engine does both or neither")
    with pytest.raises(BadRequest):
        await bench.ask(Call(kind="embedding", pipeline="p", body={"input": "one text"}))
    assert bench.subject.embedder is not None
    with pytest.raises(BadRequest):
        [_ async for _ in bench.engine.stream(bench.subject.embedder, chat())]


async def test_names_a_context_overflow(bench: Bench) -> None:
    with pytest.raises(ContextOverflow) as raised:
        await bench.ask(chat("secretword " * 6000))
    assert "secretword" not in raised.value.message


async def test_quotes_nothing_of_a_bad_request(bench: Bench) -> None:
    if bench.subject.engine not in ("llamacpp", "classic"):
        pytest.skip("this engine looks at no schema so closely")
    with pytest.raises(BadRequest) as raised:
        await bench.ask(
            chat(response_format={"type": "json_schema", "json_schema": {"schema": {"type": "secretword"}}})
        )
    assert "secretword" not in raised.value.message


async def test_refuses_a_wrong_secret(bench: Bench) -> None:
    wrong = Upstream(address=bench.subject.upstream.address, secret=Secret("guess"), model=bench.subject.upstream.model)
    with pytest.raises(UpstreamFailed) as raised:
        [_ async for _ in bench.engine.stream(wrong, chat())]
    assert raised.value.code == "replica_refused"


async def test_frees_the_slot_when_the_caller_leaves(bench: Bench) -> None:
    if not bench.subject.long:
        pytest.skip("a label is there at once")
    stream = bench.engine.stream(bench.subject.upstream, unending(bench.subject))
    async for delta in stream:
        if delta.text:
            break
    assert await bench.busy_slots() == 1
    await stream.aclose()  # type: ignore[attr-defined]
    left = time.monotonic()
    while await bench.busy_slots():
        assert time.monotonic() - left < 1.5, "the slot is still busy"
        await asyncio.sleep(0.01)


async def test_frees_the_slot_when_the_caller_is_cancelled(bench: Bench) -> None:
    if not bench.subject.long:
        pytest.skip("a label is there at once")
    task = asyncio.create_task(bench.ask(unending(bench.subject)))
    while not await bench.busy_slots():
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    end = time.monotonic() + 1.5
    while await bench.busy_slots():
        assert time.monotonic() < end, "the slot is still busy"
        await asyncio.sleep(0.01)


async def test_works_on_as_many_streams_as_slots(bench: Bench) -> None:
    if not bench.subject.long:
        pytest.skip("a label is there at once")
    streams = [bench.engine.stream(bench.subject.upstream, unending(bench.subject)) for _ in range(2)]
    for stream in streams:
        async for delta in stream:
            if delta.text:
                break
    assert await bench.busy_slots() == 2
    for stream in streams:
        await stream.aclose()  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["chat", "completion"])
async def test_continues_a_greedy_answer_without_gap_or_repeat(bench: Bench, kind: str) -> None:
    call = chat(max_tokens=40, temperature=0) if kind == "chat" else completion(max_tokens=40, temperature=0)
    if not bench.subject.resumes:
        with pytest.raises(UpstreamFailed):
            [_ async for _ in bench.engine.resume(bench.subject.upstream, call, "", ())]
        return
    deltas = await bench.ask(call)
    pieces = [delta for delta in deltas if delta.text]
    whole, finish = text_of(deltas), finish_of(deltas)
    for count in sorted({0, 1, len(pieces) // 2, len(pieces) - 1, len(pieces)}):
        begin = text_of(pieces[:count])
        ids = tuple(number for piece in pieces[:count] for number in piece.token_ids)
        rest = [delta async for delta in bench.engine.resume(bench.subject.upstream, call, begin, ids)]
        assert begin + text_of(rest) == whole, f"continued after {count} pieces"
        assert finish_of(rest) == finish


async def test_does_not_continue_what_is_not_its_own(bench: Bench) -> None:
    call = chat(max_tokens=40, temperature=0)
    with pytest.raises(UpstreamFailed):
        [_ async for _ in bench.engine.resume(bench.subject.upstream, call, "this was never said", (5, 6))]


async def test_an_adapter_changes_the_answer(bench: Bench, tmp_path: Path) -> None:
    subject = bench.subject
    if subject.engine != "llamacpp":
        pytest.skip("this engine takes no adapters")
    adapter = str(write_lora(tmp_path / "lora.gguf", SHAPE))
    options = replace(subject.options, adapters=(adapter,))
    bench.engine.check(subject.version, options)
    assert bench.engine.estimate_memory(subject.version, options).total > Path(adapter).stat().st_size
    plain = text_of(await bench.ask(chat(max_tokens=20, temperature=0)))
    with running_replica(subject.engine, subject.version, options, subject.binary, wait=False) as running:
        await wait_ready(subject.engine, running)
        changed = [d async for d in bench.engine.stream(running.upstream, chat(max_tokens=20, temperature=0))]
    assert text_of(changed) != plain


async def test_ends_cleanly_when_told_while_callers_are_connected(bench: Bench) -> None:
    subject = bench.subject
    if subject.name == "remote":
        pytest.skip("no process of ours")
    with running_replica(subject.engine, subject.version, subject.options, subject.binary, wait=False) as running:
        await wait_ready(subject.engine, running)
        await bench.engine.check_ready(running.upstream, subject.version)
        running.process.terminate()
        assert await asyncio.to_thread(running.process.wait, 10) == 0
        assert subject.binary or not Path(running.launch.host).exists()
        with pytest.raises(UpstreamFailed):
            await bench.engine.check_ready(running.upstream, subject.version)


async def test_serves_at_a_loopback_port_to_who_has_the_secret(bench: Bench) -> None:
    subject = bench.subject
    if subject.name == "remote":
        pytest.skip("no process of ours")
    with running_replica(
        subject.engine, subject.version, subject.options, subject.binary, wait=False, port=find_port()
    ) as running:
        await wait_ready(subject.engine, running)
        assert running.upstream.address.startswith("http://127.0.0.1:")
        answer = [one async for one in bench.engine.stream(running.upstream, chat(max_tokens=4, temperature=0))]
        assert answer[-1].usage is not None or any(one.finish for one in answer)
        stranger = replace(running.upstream, secret=Secret("another"))
        with pytest.raises(UpstreamFailed):
            await bench.engine.check_ready(stranger, subject.version)
        running.process.terminate()
        assert await asyncio.to_thread(running.process.wait, 10) == 0


async def test_a_broken_model_ends_with_its_own_exit_code(bench: Bench, tmp_path: Path) -> None:
    subject = bench.subject
    if subject.name == "remote":
        pytest.skip("no process of ours")
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + b"\xff" * 100)
    version = replace(subject.version, path=str(tmp_path / "broken.gguf"))
    options = replace(subject.options, settings={"refuse_load": True}) if subject.name == "fake" else subject.options
    with running_replica(subject.engine, version, options, subject.binary, wait=False) as running:
        code = await asyncio.to_thread(running.process.wait, 30)
    assert code == 3 or (subject.binary and code != 0)


async def test_layers_for_a_gpu_that_is_not_there_are_refused(bench: Bench) -> None:
    subject = bench.subject
    if subject.name != "llamacpp" or any("CPU" not in str(d["type"]) for d in xllamacpp.get_device_info()):
        pytest.skip("there is a GPU, or another program looks for it")
    options = replace(subject.options, gpu_layers=2)
    with running_replica(subject.engine, subject.version, options, wait=False) as running:
        assert await asyncio.to_thread(running.process.wait, 30) == 3


async def test_a_broken_replica_is_an_error_and_no_end(bench: Bench) -> None:
    subject = bench.subject
    if not subject.long or subject.name == "remote":
        pytest.skip("nothing to break in mid answer")
    with running_replica(subject.engine, subject.version, subject.options, subject.binary, wait=False) as running:
        await wait_ready(subject.engine, running)
        with pytest.raises(UpstreamFailed):
            async for delta in bench.engine.stream(running.upstream, unending(subject)):
                if delta.text:
                    running.process.kill()
