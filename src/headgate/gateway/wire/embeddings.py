"""POST /v1/embeddings: what a request may hold, and the Call it becomes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from headgate.core.chat import Call
from headgate.core.table import PipelineRoute
from headgate.gateway.wire.body import validate
from headgate.gateway.wire.chat import Wire
from headgate.gateway.wire.completions import TokenIds
from headgate.gateway.wire.limits import check_fits, check_ids, text_bytes

MAX_INPUTS = 2048
MAX_DIMENSIONS = 16384


class EmbeddingRequest(Wire):
    """The body of POST /v1/embeddings."""

    model: str = Field(min_length=1, max_length=256)
    input: (
        Annotated[str, Field(min_length=1)]
        | TokenIds
        | Annotated[
            list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=MAX_INPUTS, fail_fast=True)
        ]
        | Annotated[list[TokenIds], Field(min_length=1, max_length=MAX_INPUTS, fail_fast=True)]
    )
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = Field(default=None, ge=1, le=MAX_DIMENSIONS)
    user: str | None = Field(default=None, max_length=512)


OWN_FIELDS = frozenset({"model", "input", "user", "encoding_format"})


def read_embedding(
    parsed: dict[str, Any], route: PipelineRoute, honoured: frozenset[str]
) -> tuple[EmbeddingRequest, Call]:
    """The request and its Call. Raises BadRequest or ContextOverflow with field and cure."""
    check_ids(parsed.get("input"), route, "input", room=False)
    request = validate(EmbeddingRequest, parsed)
    texts = (
        request.input if isinstance(request.input, list) and not isinstance(request.input[0], int) else [request.input]
    )
    size = 0
    for text in texts:
        length = text_bytes(text) if isinstance(text, str) else 0
        tokens = 1 if isinstance(text, str | int) else len(text)
        check_fits(route, length, tokens, None, "input", room=False)
        size += length
    body = {key: value for key, value in parsed.items() if key in honoured and value is not None}
    body["input"] = parsed["input"]
    body.pop("encoding_format", None)
    return request, Call(kind="embedding", pipeline=route.name, body=body, prompt_bytes=size)
