"""Settings of the engines: the `engines:` part of headgate.yaml, and what a model's `settings:` may say to each."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from headgate.core.errors import ModelRefused


def _as_written(value: object) -> object:
    """What YAML took for a switch or a number, as it stood: `on`, `off`, `8`."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value) if isinstance(value, int | float) else value


Flag = Annotated[str, BeforeValidator(_as_written, json_schema_input_type=str | bool | int | float)]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LlamaCppSettings(_Settings):
    """llama.cpp for all models of this machine."""

    binary: str | None = Field(
        default=None,
        description="Path of your own llama-server (CUDA, Vulkan, native CPU) instead of the packaged one.",
    )
    flags: tuple[Flag, ...] = Field(
        default=(),
        description="More flags for that llama-server, as they stand, such as ['--numa', 'isolate'].",
    )
    batch: int = Field(
        default=64,
        ge=1,
        le=8192,
        description="Prompt tokens read in one step. Small, so that a client that leaves is noticed soon.",
    )


class EnginesSettings(_Settings):
    """The `engines:` part of headgate.yaml."""

    llamacpp: LlamaCppSettings = Field(default_factory=LlamaCppSettings)


class LlamaCppModelSettings(_Settings):
    """`settings:` of a model that llama.cpp runs."""

    prompt_cache: bool = Field(
        default=False,
        description="Keep a slot's last prompt for the next request with the same beginning. llama.cpp cannot keep "
        "tenants apart in it, so switch it on only where one tenant uses the model.",
    )
    batch: int | None = Field(
        default=None,
        ge=1,
        le=8192,
        description="Prompt tokens of this model read in one step; null takes engines.llamacpp.batch.",
    )
    kv_type: Literal["f16", "q8_0"] = Field(
        default="f16",
        description="How a slot remembers its text: q8_0 takes half the memory, and may change answers a little.",
    )
    pooling: Literal["mean", "cls", "last"] | None = Field(
        default=None,
        description="How an embedding model makes one vector of many; null takes the model's own way.",
    )


class FakeModelSettings(_Settings):
    """`settings:` of a model that the fake engine runs: its speed and its failures."""

    seed: int = 0
    tokens_per_s: float = Field(default=0.0, ge=0, description="Output tokens per second; 0 is as fast as it can.")
    prompt_tokens_per_s: float = Field(default=0.0, ge=0, description="Prompt tokens per second; 0 is at once.")
    load_s: float = Field(default=0.0, ge=0, description="Seconds before it is ready.")
    memory_bytes: int = Field(default=48 * 1024 * 1024, ge=0, description="What it says it needs.")
    answer_tokens: int = Field(default=16, ge=1, description="Length of an answer whose request sets no limit.")
    crash_after: int | None = Field(default=None, ge=0, description="Exit after so many output tokens in all.")
    hang_after: int | None = Field(default=None, ge=0, description="Stop sending after so many output tokens in all.")
    refuse_load: bool = Field(default=False, description="Exit while loading, as a broken model does.")
    error_status: int | None = Field(default=None, ge=400, le=599, description="Answer every request with this.")
    fail_open: bool = Field(default=False, description="Ignore the schema asked for, as llama.cpp may.")
    magic: bool = Field(default=False, description="Obey prompts that hold [[crash]], [[hang]], [[error]] or [[slow]].")
    dimensions: int = Field(default=32, ge=1, description="Length of an embedding.")


class RemoteModelSettings(_Settings):
    """`settings:` of a model that answers at some OpenAI-compatible address."""

    model: str = Field(description="The name by which the endpoint knows the model.")
    key_from: str | None = Field(
        default=None, description="Environment variable that holds the endpoint's API key; null sends none."
    )


def settings_refused(error: ValidationError) -> ModelRefused:
    """What is wrong with a model's `settings:`, by field."""
    first = error.errors()[0]
    field = ".".join(["settings", *map(str, first["loc"])])
    return ModelRefused(f"{field}: {first['msg']}.", param=field)
