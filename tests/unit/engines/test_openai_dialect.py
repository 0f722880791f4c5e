"""Chunks, bodies and errors of the OpenAI wire."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.core.chat import Call
from headgate.core.errors import BadRequest, ContextOverflow, UpstreamFailed
from headgate.core.usage import Usage
from headgate.engines.openai_dialect import AnswerReader, build_body, read_embeddings, read_error, wants_logprobs


def chunk(text: str | None = None, **more: object) -> bytes:
    choice = {"index": 0, "delta": {"content": text} if text is not None else {}, "finish_reason": None, **more}
    return orjson.dumps({"id": "x", "created": 7, "choices": [choice]})


def logprobs(*entries: tuple[int, str, bytes]) -> dict[str, object]:
    content = [
        {
            "id": number,
            "token": text,
            "bytes": list(text.encode()),
            "logprob": -0.5,
            "top_logprobs": [
                {"id": number, "token": text, "bytes": list(own), "logprob": -0.5},
                {"id": 9, "token": "z", "bytes": [122], "logprob": -3.0},
            ],
        }
        for number, text, own in entries
    ]
    return {"content": content}


@given(st.lists(st.text(min_size=1), min_size=1, max_size=12), st.integers(1, 5))
def test_reads_the_same_text_however_chunks_arrive(texts: list[str], together: int) -> None:
    reader = AnswerReader("chat")
    payloads = [chunk(text) for text in texts]
    found = ""
    for start in range(0, len(payloads), together):
        deltas = reader.read_all(payloads[start : start + together])
        assert len(deltas) == 1, "text that arrives together is one piece"
        found += deltas[0].text
    assert found == "".join(texts)


def test_a_text_with_quotes_goes_through_the_parser() -> None:
    reader = AnswerReader("chat")
    texts = ["plain", 'a"b', "back\\slash", "", "tab\t", "grün", '"}},{"content":"']
    assert "".join(d.text for d in reader.read_all([chunk(text) for text in texts])) == "".join(texts)


def test_reads_end_usage_progress_and_tools() -> None:
    reader = AnswerReader("chat")
    progress = orjson.dumps(
        {"choices": [{"delta": {"content": None}}], "prompt_progress": {"total": 9, "processed": 4}}
    )
    assert reader.read_all([progress])[0].progress == (4, 9)
    call = {"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}
    tools = orjson.dumps({"choices": [{"delta": {"tool_calls": [call]}}]})
    assert reader.read_all([tools])[0].tool_calls == [call]
    assert not reader.finished
    assert reader.read_all([chunk(finish_reason="tool_calls")])[0].finish == "tool_calls"
    assert reader.finished
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 3}}
    last = reader.read_all([orjson.dumps({"choices": [], "usage": usage})])[0]
    assert last.usage == Usage(prompt_tokens=5, cached_tokens=3, output_tokens=2)
    assert reader.read_all([chunk("")]) == []


def test_gives_ids_with_their_text_and_reports_gaps() -> None:
    reader = AnswerReader("chat", ids=True)
    whole = reader.read_all([chunk("ab", logprobs=logprobs((1, "ab", b"ab")))])
    assert whole[0].token_ids == (1,)
    assert not whole[0].logprobs
    kept_back = reader.read_all([chunk(None, logprobs=logprobs((2, "", b"L")))])
    assert kept_back == []
    later = reader.read_all([chunk("Lily", logprobs=logprobs((3, "Lily", b"ily")))])
    assert later[0].token_ids == (2, 3)
    gap = reader.read_all([chunk("€", logprobs=logprobs((4, "€", b"\xac")))])
    assert gap[0].token_ids == ()
    assert reader.gaps == [(gap[0], (4,))]


def test_shapes_logprobs_as_openai_does() -> None:
    reader = AnswerReader("chat", logprobs=True, top=1)
    told = reader.read_all([chunk("ab", logprobs=logprobs((1, "ab", b"ab")))])[0].logprobs
    assert told is not None
    entry = {"token": "ab", "logprob": -0.5, "bytes": [97, 98]}
    assert told["content"] == [{**entry, "top_logprobs": [entry]}]
    reader = AnswerReader("completion", logprobs=True, top=2, offset=10)
    payload = orjson.dumps({"choices": [{"text": "ab", "logprobs": logprobs((1, "ab", b"ab"))}]})
    assert reader.read_all([payload])[0].logprobs == {
        "tokens": ["ab"],
        "token_logprobs": [-0.5],
        "top_logprobs": [{"ab": -0.5, "z": -3.0}],
        "text_offset": [10],
    }


@pytest.mark.parametrize("payload", [b"{", b"[]", b'{"choices":[{}]}', b'{"choices":7}'])
def test_a_senseless_chunk_is_a_broken_replica(payload: bytes) -> None:
    with pytest.raises(UpstreamFailed):
        AnswerReader("chat").read_all([payload])


def test_an_error_in_mid_stream_is_raised() -> None:
    with pytest.raises(UpstreamFailed):
        AnswerReader("chat").read_all([b'{"error":{"code":500,"message":"secretword","type":"server_error"}}'])


@pytest.mark.parametrize(
    ("status", "error", "kind", "code"),
    [
        (400, {"type": "exceed_context_size_error", "n_prompt_tokens": 9, "n_ctx": 4}, ContextOverflow, None),
        (400, {"code": "context_length_exceeded", "message": "secretword"}, ContextOverflow, None),
        (500, {"message": "input (602 tokens) is too large to process. secretword"}, ContextOverflow, None),
        (400, {"type": "invalid_request_error", "message": "failed to parse grammar secretword"}, BadRequest, None),
        (400, {"type": "invalid_request_error", "message": "secretword"}, BadRequest, None),
        (501, {"type": "not_supported_error", "message": "does not support embeddings"}, BadRequest, None),
        (401, {"type": "authentication_error", "message": "secretword"}, UpstreamFailed, "replica_refused"),
        (503, {"type": "unavailable_error", "message": "Loading model"}, UpstreamFailed, "replica_failed"),
        (500, {"message": "secretword"}, UpstreamFailed, "replica_failed"),
    ],
)
def test_errors_say_what_to_do_and_quote_nothing(status: int, error: object, kind: type, code: str | None) -> None:
    found = read_error(status, orjson.dumps({"error": error}))
    assert type(found) is kind
    assert "secretword" not in found.message
    assert code is None or found.code == code


@pytest.mark.parametrize("body", [b"", b"<html>secretword", b"[1]", b'{"error":"secretword"}'])
def test_errors_of_any_shape_are_read(body: bytes) -> None:
    assert "secretword" not in read_error(502, body).message


def test_the_body_of_an_attempt() -> None:
    call = Call(kind="chat", pipeline="p", body={"messages": [], "seed": 4, "max_completion_tokens": 9}, max_tokens=7)
    body = build_body(call, "m", 2)
    assert body["max_tokens"] == 7 and "max_completion_tokens" not in body
    assert (body["seed"], body["stream"], body["model"]) == (6, True, "m")
    assert call.body["seed"] == 4
    schema = {"type": "object"}
    asked = build_body(Call(kind="chat", pipeline="p", body={"messages": []}, schema=schema), "")
    assert asked["response_format"]["json_schema"]["schema"] == schema


def test_what_of_logprobs_is_wanted() -> None:
    def of(kind: str, **body: object) -> tuple[bool, int]:
        return wants_logprobs(Call(kind=kind, pipeline="p", body=body))  # type: ignore[arg-type]

    assert of("chat") == (False, 0)
    assert of("chat", logprobs=True, top_logprobs=3) == (True, 3)
    assert of("completion", logprobs=0) == (True, 0)
    assert of("completion", logprobs=2) == (True, 2)
    assert of("completion") == (False, 0)


def test_embeddings_come_in_the_order_of_their_inputs() -> None:
    data = [{"index": 1, "embedding": [2.0]}, {"index": 0, "embedding": [1.0]}]
    delta = read_embeddings(orjson.dumps({"data": data, "usage": {"prompt_tokens": 4}}))
    assert delta.embeddings == [[1.0], [2.0]]
    with pytest.raises(UpstreamFailed):
        read_embeddings(b"{}")
