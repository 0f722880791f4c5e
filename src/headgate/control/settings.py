"""What headgate.yaml may say of pools and of the loop that gives them out."""

from __future__ import annotations

from typing import Annotated, Literal, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from headgate.core.units import parse_bytes, parse_seconds

Seconds = Annotated[
    float,
    BeforeValidator(parse_seconds, json_schema_input_type=float | str),
    Field(gt=0, le=86_400, allow_inf_nan=False),
]


def _auto_or_bytes(value: object) -> object:
    return value if value == "auto" or not isinstance(value, str | int) else parse_bytes(value)


class PoolSettings(BaseModel):
    """One pool: devices of one kind on this machine. Sizes in bytes, or with a unit such as 8GiB."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["cpu", "gpu"] = Field(default="cpu", description="What its devices are.")
    cores: Literal["auto"] | tuple[Annotated[int, Field(ge=0, le=65_535)], ...] | Annotated[int, Field(ge=1)] = Field(
        default="auto",
        description="Devices of the pool: auto (all that this process may use), how many, or their numbers.",
    )
    memory: Annotated[
        Literal["auto"] | Annotated[int, Field(gt=0)], BeforeValidator(_auto_or_bytes, json_schema_input_type=int | str)
    ] = Field(default="auto", description="Memory for all its replicas; auto is what the machine or its limit gives.")
    price_per_hour: float = Field(
        default=0.0, ge=0, allow_inf_nan=False, description="Money that one device costs for an hour."
    )
    elastic: bool = Field(
        default=False,
        description="Whether only devices in use are paid for; then holding one has to be worth its price_per_hour.",
    )
    watts: float = Field(
        default=0.0, ge=0, allow_inf_nan=False, description="Power that one device draws when it is busy."
    )

    @field_validator("cores")
    @classmethod
    def check_cores(cls, value: object) -> object:
        """Numbers once each, at least one."""
        named = cast("tuple[int, ...]", value) if isinstance(value, tuple) else (0,)
        if not named or len(set(named)) != len(named):
            raise ValueError("cores must name at least one core, and none of them twice, such as [0, 1]")
        return named if isinstance(value, tuple) else value


class ControlSettings(BaseModel):
    """The reconcile loop. Durations in seconds, or with a unit such as 250ms."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tick_s: Seconds = Field(
        default=0.1,
        description="Between two looks at demand, or more where a look takes long; a waiting request is seen at once.",
    )
    drain_s: Seconds = Field(
        default=60.0, description="The longest a replica may take to finish its requests before it is stopped anyway."
    )
    ready_s: Seconds = Field(default=120.0, description="The longest a replica may take to its first token.")
    backoff_first_s: Seconds = Field(default=1.0, description="Wait before a crashed replica is started again.")
    backoff_limit_s: Seconds = Field(default=30.0, description="The longest such wait; it doubles with each crash.")
    healthy_s: Seconds = Field(default=10.0, description="A run this long starts the backoff anew.")
    block_after: int = Field(
        default=5, ge=1, le=100, description="Crashes in a row after which a pipeline counts as blocked."
    )
    block_retry_s: Seconds = Field(default=60.0, description="Between tries to start a replica of a blocked pipeline.")
    fairness: float = Field(
        default=0.0,
        ge=0,
        le=10,
        allow_inf_nan=False,
        description="0 keeps most requests on time in all, 1 weighs what is lost relative to what a pipeline has, "
        "more looks at whoever is served worst.",
    )
    money: float = Field(
        default=0.01, ge=0, allow_inf_nan=False, description="Utility that one unit of money an hour must bring."
    )
    slo_minutes: float = Field(
        default=0.99,
        gt=0,
        lt=1,
        description="Part of a pipeline's minutes in which 99 % of its requests shall be in time: as much capacity of "
        "elastic pools is held as that takes.",
    )
    energy: float = Field(default=0.0, ge=0, allow_inf_nan=False, description="Utility that one watt must bring.")
    watts: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="The most that all devices in use may draw together."
    )
    exact_every_s: Seconds | None = Field(
        default=30.0,
        description="Between two decisions that are solved exactly in the background, where the extra sim is "
        "installed; null: none is.",
    )
    exact_limit_s: Seconds = Field(
        default=10.0, description="The longest that the exact solution of a decision is searched for, in each class."
    )
    decisions_kept: int = Field(
        default=2_000, ge=100, le=10_000_000, description="Decisions kept in the database, newest first."
    )
    memory_reserve: float = Field(
        default=0.1, ge=0, lt=1, description="Part of an auto pool's memory that replicas leave to everything else."
    )
