"""POST /v1/completions: what a request may hold, and the Calls it becomes (one per prompt)."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field

from headgate.core.chat import Call
from headgate.core.table import PipelineRoute
from headgate.gateway.wire.body import validate
from headgate.gateway.wire.chat import Sampling, read_schema
from headgate.gateway.wire.limits import check_fits, check_ids, text_bytes

MAX_PROMPTS = 128  # each is a call of its own
TokenIds = Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1, fail_fast=True)]


class CompletionRequest(Sampling):
    """The body of POST /v1/completions."""

    prompt: (
        str
        | TokenIds
        | Annotated[list[str], Field(min_length=1, max_length=MAX_PROMPTS, fail_fast=True)]
        | Annotated[list[TokenIds], Field(min_length=1, max_length=MAX_PROMPTS, fail_fast=True)]
    )
    logprobs: int | None = Field(default=None, ge=0, le=20)


OWN_FIELDS = frozenset({"model", "stream", "stream_options", "n", "user", "max_tokens"})


def read_completion(
    parsed: dict[str, Any], route: PipelineRoute, honoured: frozenset[str]
) -> tuple[CompletionRequest, list[Call]]:
    """The request and one Call per prompt. Raises BadRequest or ContextOverflow with field and cure."""
    check_ids(parsed.get("prompt"), route, "prompt")
    request = validate(CompletionRequest, parsed)
    body = {key: value for key, value in parsed.items() if key in honoured and value is not None}
    body.pop("max_tokens", None)
    if request.response_format is None or request.response_format.type == "text":
        body.pop("response_format", None)
    whole = Call(
        kind="completion",
        pipeline=route.name,
        body=body,
        choices=request.n or 1,
        max_tokens=request.max_tokens,
        schema=read_schema(request) if "response_format" in honoured else None,
    )
    calls: list[Call] = []
    for prompt in _prompts(request):
        size = text_bytes(prompt) if isinstance(prompt, str) else 0
        check_fits(route, size, 1 if isinstance(prompt, str) else len(prompt), request.max_tokens, "prompt")
        calls.append(replace(whole, body=body | {"prompt": prompt}, prompt_bytes=size))
    return request, calls


def _prompts(request: CompletionRequest) -> list[str] | list[list[int]] | list[Any]:
    prompt = request.prompt
    if isinstance(prompt, str) or isinstance(prompt[0], int):
        return [prompt]
    return prompt
