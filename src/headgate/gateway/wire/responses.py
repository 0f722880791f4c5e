"""POST /v1/responses, text only and stateless: what a request may hold, and the chat request it becomes."""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast

from pydantic import Field, model_validator

from headgate.core.chat import Call
from headgate.core.errors import BadRequest
from headgate.core.table import PipelineRoute
from headgate.gateway.wire.body import validate
from headgate.gateway.wire.chat import TextPart, Wire, read_chat
from headgate.gateway.wire.limits import check_messages


class InputMessage(Wire):
    """One message of the input."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: str | Annotated[list[TextPart], Field(fail_fast=True)]


class TextFormat(Wire):
    """The shape that the answer must have."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    name: str | None = Field(default=None, pattern=r"^[a-zA-Z0-9_-]{1,64}$")
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None

    @model_validator(mode="after")
    def check_schema(self) -> TextFormat:
        """A schema is given exactly when it is asked for."""
        if (self.type == "json_schema") != (self.schema_ is not None):
            raise ValueError("schema goes with type 'json_schema', and only with it")
        return self


class TextOptions(Wire):
    """How the text of the answer is to be."""

    format: TextFormat | None = None


class ResponseRequest(Wire):
    """The body of POST /v1/responses."""

    model: str = Field(min_length=1, max_length=256)
    input: Annotated[str, Field(min_length=1)] | Annotated[list[InputMessage], Field(min_length=1, fail_fast=True)]
    instructions: str | None = None
    max_output_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    stream: bool | None = None
    text: TextOptions | None = None
    user: str | None = Field(default=None, max_length=512)


OWN_FIELDS = frozenset({"model", "input", "instructions", "max_output_tokens", "stream", "text", "user"})
_STATEFUL = ("previous_response_id", "conversation", "background", "prompt")


def read_response(
    parsed: dict[str, Any], route: PipelineRoute, honoured: frozenset[str]
) -> tuple[ResponseRequest, Call]:
    """The request and its Call. Raises BadRequest for anything that needs state, tools or other media."""
    for field in _STATEFUL:
        if parsed.get(field):
            raise BadRequest(
                f"'{field}' needs stored state; this endpoint keeps none. Send the whole conversation in 'input'.",
                param=field,
            )
    if parsed.get("tools"):
        raise BadRequest("'tools' are not served here; use /v1/chat/completions for tool calls.", param="tools")
    if isinstance(told := parsed.get("input"), list):
        check_messages(len(cast("list[object]", told)), "input")
    request = validate(ResponseRequest, parsed)
    chat: dict[str, Any] = {"model": request.model, "messages": _messages(request)}
    for theirs, ours in (
        ("temperature", "temperature"),
        ("top_p", "top_p"),
        ("max_output_tokens", "max_tokens"),
    ):
        if parsed.get(theirs) is not None:
            chat[ours] = parsed[theirs]
    wanted = request.text.format if request.text else None
    if wanted is not None and wanted.type == "json_schema":
        named = {"name": wanted.name or "answer", "schema": wanted.schema_, "strict": wanted.strict}
        chat["response_format"] = {"type": "json_schema", "json_schema": named}
    elif wanted is not None and wanted.type == "json_object":
        chat["response_format"] = {"type": "json_object"}
    _, call = read_chat(chat, route, honoured)
    return request, call


def _messages(request: ResponseRequest) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    if request.instructions:
        messages.append({"role": "system", "content": request.instructions})
    if isinstance(request.input, str):
        return [*messages, {"role": "user", "content": request.input}]
    for item in request.input:
        content = item.content if isinstance(item.content, str) else "".join(part.said for part in item.content)
        messages.append({"role": item.role, "content": content})
    return messages
