"""What headgate.yaml may say of a pipeline: its model, its promise to clients, and its part of the
capacity.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from headgate.core.units import parse_seconds

Seconds = Annotated[
    float,
    BeforeValidator(parse_seconds, json_schema_input_type=float | str),
    Field(gt=0, le=86_400, allow_inf_nan=False),
]
Patience = Annotated[
    float,
    BeforeValidator(parse_seconds, json_schema_input_type=float | str),
    Field(ge=0, le=86_400, allow_inf_nan=False),
]


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


Models = Annotated[
    tuple[str, ...],
    BeforeValidator(_as_list, json_schema_input_type=str | list[str]),
    Field(min_length=1, max_length=16),
]
Milliseconds = Annotated[float, Field(gt=0, le=3_600_000, allow_inf_nan=False)]


class SloSettings(BaseModel):
    """What clients may expect of a pipeline. Capacity follows it; requests that miss it are counted as
    late.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    first_token_ms: Milliseconds = Field(
        default=500.0, description="Milliseconds from the request to the first token of the answer."
    )
    per_token_ms: Milliseconds = Field(
        default=100.0, description="Milliseconds from one token of the answer to the next."
    )


class PipelineSettings(BaseModel):
    """One pipeline: what a client names as `model`. Durations in seconds, or with a unit such as 500ms
    or 2m.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Models = Field(
        description="The model that answers, by its name under `models`; or several, best first, such as one on a GPU "
        "and one on cores: replicas of each come and go with load and room, and all answer the same requests."
    )
    slo: SloSettings = Field(default_factory=SloSettings, description="What clients may expect.")
    weight: float = Field(
        default=1.0,
        gt=0,
        le=1000,
        allow_inf_nan=False,
        description="How much its load counts beside that of other pipelines when capacity is short.",
    )
    priority: Literal["guaranteed", "burst", "best_effort"] = Field(
        default="burst",
        description="Whose load is served first when capacity is short; within one class, weight decides.",
    )
    floor: int = Field(default=0, ge=0, le=1024, description="Replicas that are always kept; 0 may sleep.")
    cap: int = Field(default=4, ge=0, le=1024, description="The most replicas it ever gets.")
    queue: int = Field(
        default=64, ge=0, le=100_000, description="Requests that may wait in one gateway before 429 is answered."
    )
    idle_s: Patience = Field(
        default=30.0, description="How long replicas above what the load needs are kept when nobody asks for them."
    )
    warm_s: Patience = Field(
        default=600.0,
        description="How long a replica that gave its devices up stays loaded in memory that nobody else asks for: it "
        "serves again at once. 0 ends it.",
    )
    timeout_s: Seconds = Field(default=120.0, description="The longest a request may take, waiting included.")

    @field_validator("model")
    @classmethod
    def check_models(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        """Each once."""
        if len(set(value)) != len(value):
            raise ValueError("a model is named twice; name each once, best first")
        return value

    @model_validator(mode="after")
    def check_floor(self) -> PipelineSettings:
        """The cap must hold the floor."""
        if self.cap < self.floor:
            raise ValueError(f"cap is {self.cap} and floor is {self.floor}; raise cap or lower floor")
        return self
