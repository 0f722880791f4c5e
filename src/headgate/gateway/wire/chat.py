"""POST /v1/chat/completions: what a request may hold, and the Call it becomes."""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from headgate.core.chat import Call
from headgate.core.errors import BadRequest
from headgate.core.table import PipelineRoute
from headgate.gateway.wire.body import validate
from headgate.gateway.wire.limits import check_fits, check_messages, text_bytes
from headgate.serving.schema import MAX_STEPS_TOGETHER, check_schema


class Wire(BaseModel):
    """A part of a request. Strict: a number in quotes is no number. Unknown fields are kept, to be named later."""

    model_config = ConfigDict(strict=True, extra="allow")


class TextPart(Wire):
    """One part of a message's content; text is the only kind served."""

    type: str
    text: str | None = None
    refusal: str | None = None

    @model_validator(mode="after")
    def check_type(self) -> TextPart:
        """Refuse images, audio and files."""
        if self.type == "refusal" and self.refusal is not None:
            return self
        if self.type not in ("text", "input_text", "output_text"):
            raise ValueError("content parts of this type are not served here; send type 'text' with a text")
        if self.text is None:
            raise ValueError("a content part of this type needs a text")
        return self

    @property
    def said(self) -> str:
        """What the part says."""
        return (self.refusal if self.type == "refusal" else self.text) or ""


class FunctionCall(Wire):
    """A function the assistant called in an earlier turn."""

    name: str
    arguments: str


class ToolCall(Wire):
    """One earlier tool call of the assistant."""

    id: str
    type: Literal["function"] = "function"
    function: FunctionCall


class Message(Wire):
    """One message of the conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | Annotated[list[TextPart], Field(fail_fast=True)] | None = None
    tool_calls: Annotated[list[ToolCall], Field(fail_fast=True)] | None = None
    tool_call_id: str | None = None
    name: str | None = None

    @model_validator(mode="after")
    def check_content(self) -> Message:
        """Only an assistant that called tools may say nothing."""
        if self.content is None and not (self.role == "assistant" and self.tool_calls):
            raise ValueError(f"a {self.role} message needs content: a text")
        if self.role == "tool" and not self.tool_call_id:
            raise ValueError("a tool message needs the tool_call_id that it answers")
        return self


class Function(Wire):
    """A function that the model may call."""

    name: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Wire):
    """A tool that the model may call."""

    type: Literal["function"]
    function: Function


class NamedSchema(Wire):
    """The json_schema part of response_format."""

    name: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")
    schema_: dict[str, Any] = Field(alias="schema")
    description: str | None = None
    strict: bool | None = None


class ResponseFormat(Wire):
    """What shape the answer must have."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: NamedSchema | None = None

    @model_validator(mode="after")
    def check_schema(self) -> ResponseFormat:
        """A schema is given exactly when it is asked for."""
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("json_schema goes with type 'json_schema', and only with it")
        return self


class StreamOptions(Wire):
    """Options of a stream."""

    include_usage: bool | None = None


class ToolChoiceFunction(Wire):
    """The function that tool_choice names."""

    name: str


class ToolChoice(Wire):
    """One function that must be called."""

    type: Literal["function"]
    function: ToolChoiceFunction


LOGIT_BIAS_MAX = 4096
Stop = Annotated[str, Field(min_length=1, max_length=1000)]


class Sampling(Wire):
    """What chat and completion requests have in common."""

    model: str = Field(min_length=1, max_length=256)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=0, le=10_000)
    min_p: float | None = Field(default=None, ge=0, le=1)
    n: int | None = Field(default=None, ge=1)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=16)] | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = None
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    repeat_penalty: float | None = Field(default=None, ge=0, le=10)
    typical_p: float | None = Field(default=None, ge=0, le=1)
    response_format: ResponseFormat | None = None
    user: str | None = Field(default=None, max_length=512)

    @field_validator("logit_bias", mode="before")
    @classmethod
    def check_bias_count(cls, value: Any) -> Any:
        """Few enough to look at each."""
        if isinstance(value, dict) and len(cast("dict[str, Any]", value)) > LOGIT_BIAS_MAX:
            raise ValueError(f"at most {LOGIT_BIAS_MAX} tokens can be biased in one request")
        return cast("Any", value)

    @field_validator("logit_bias")
    @classmethod
    def check_bias(cls, value: dict[str, float] | None) -> dict[str, float] | None:
        """Keys are token ids."""
        if value is not None and not all(key.isascii() and key.isdigit() for key in value):
            raise ValueError('keys must be token ids, such as "1024"')
        return value

    @model_validator(mode="after")
    def check_stream_options(self) -> Sampling:
        """stream_options needs a stream."""
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options goes with stream: true, and only with it")
        return self


class ChatRequest(Sampling):
    """The body of POST /v1/chat/completions."""

    messages: list[Message] = Field(min_length=1, fail_fast=True)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    tools: list[Tool] | None = Field(default=None, max_length=128)
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    reasoning_effort: str | None = Field(default=None, max_length=32)

    @model_validator(mode="after")
    def check_together(self) -> ChatRequest:
        """Fields that make sense only together."""
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs goes with logprobs: true, and only with it")
        names = [tool.function.name for tool in self.tools or ()]
        if len(set(names)) != len(names):
            raise ValueError("two tools have the same name; give each its own")
        if self.tool_choice not in (None, "none", "auto") and not names:
            raise ValueError("tool_choice needs tools to choose from")
        if isinstance(self.tool_choice, ToolChoice) and self.tool_choice.function.name not in names:
            raise ValueError("tool_choice names a function that is not among the tools")
        return self


OWN_FIELDS = frozenset({"model", "stream", "stream_options", "n", "user", "max_tokens", "max_completion_tokens"})


def read_chat(parsed: dict[str, Any], route: PipelineRoute, honoured: frozenset[str]) -> tuple[ChatRequest, Call]:
    """The request and its Call. Raises BadRequest or ContextOverflow with field and cure."""
    _refuse_too_many(parsed.get("messages"), route)
    request = validate(ChatRequest, parsed)
    _read_tools(request)
    schema = read_schema(request)
    body = {key: value for key, value in parsed.items() if key in honoured and value is not None}
    body.pop("max_completion_tokens", None)
    body.pop("max_tokens", None)
    if body.get("response_format", {}).get("type") == "text":
        del body["response_format"]
    if not body.get("tools"):
        for key in ("tools", "tool_choice", "parallel_tool_calls"):
            body.pop(key, None)
    body["messages"] = [_plain_message(message) for message in parsed["messages"]]
    prompt_bytes = sum(text_bytes(message["content"]) for message in body["messages"])
    limit = request.max_completion_tokens or request.max_tokens
    # Why only these: every template shows what users say, and no text makes less than one token.
    said = sum(message["role"] == "user" and bool(message["content"]) for message in body["messages"])
    check_fits(route, prompt_bytes, said, limit, "messages")
    return request, Call(
        kind="chat",
        pipeline=route.name,
        body=body,
        choices=request.n or 1,
        max_tokens=limit,
        schema=schema,
        prompt_bytes=prompt_bytes,
    )


def _refuse_too_many(messages: object, route: PipelineRoute) -> None:
    """Refuse, before each is looked at, more messages than fit in a request or context. Raises ContextOverflow."""
    if not isinstance(messages, list):
        return
    told = cast("list[object]", messages)
    check_messages(len(told), "messages")
    if len(told) >= route.context:
        said = [cast("dict[str, object]", one) for one in told if isinstance(one, dict)]
        texts = [one.get("content") for one in said if one.get("role") == "user"]
        check_fits(route, 0, sum(isinstance(text, str) and bool(text) for text in texts), None, "messages")


def _read_tools(request: ChatRequest) -> None:
    left = MAX_STEPS_TOGETHER
    for index, tool in enumerate(request.tools or ()):
        if tool.function.parameters is not None:
            left -= check_schema(tool.function.parameters, f"tools.{index}.function.parameters", left)


def read_schema(request: Sampling) -> dict[str, Any] | None:
    """The JSON schema that the answer must fit, if one was given. Raises BadRequest when it is none."""
    if request.response_format is None or request.response_format.json_schema is None:
        return None
    schema = request.response_format.json_schema.schema_
    check_schema(schema, "response_format.json_schema.schema")
    return schema


def _plain_message(message: dict[str, Any]) -> dict[str, Any]:
    """A message as chat templates know them: content in one text, 'developer' as 'system'."""
    content = message.get("content")
    if len(message) == 2 and isinstance(content, str) and message["role"] != "developer":
        return message
    if isinstance(content, list):
        parts = cast("list[dict[str, str]]", content)
        content = "".join(part["refusal" if part["type"] == "refusal" else "text"] for part in parts)
    plain = {
        key: message[key] for key in ("role", "tool_calls", "tool_call_id", "name") if message.get(key) is not None
    }
    if plain["role"] == "developer":
        plain["role"] = "system"
    return plain | {"content": content if content is not None else ""}


def check_choices(choices: int, most: int, param: str) -> None:
    """Refuse more answers than one request may ask for. Raises BadRequest."""
    if choices > most:
        raise BadRequest(
            f"'{param}': at most {most} answers per request (prompts times n); send several requests for more.",
            param=param,
        )
