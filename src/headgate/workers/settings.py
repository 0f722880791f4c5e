"""Settings of processes and their logs, as headgate.yaml gives them under `workers`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from headgate.core.units import parse_bytes, parse_seconds

Seconds = Annotated[
    float, BeforeValidator(parse_seconds, json_schema_input_type=float | str), Field(gt=0, allow_inf_nan=False)
]
Bytes = Annotated[int, BeforeValidator(parse_bytes, json_schema_input_type=int | str), Field(gt=0)]


def _name_switch(value: object) -> object:
    """'on' and 'off' for the booleans that YAML makes of the bare words."""
    return ("off", "on")[value] if isinstance(value, bool) else value


Switch = Annotated[
    Literal["auto", "on", "off"],
    BeforeValidator(_name_switch, json_schema_input_type=Literal["auto", "on", "off"] | bool),
]


class WorkerSettings(BaseModel):
    """How processes are run on this machine. Durations in seconds ('10s'), sizes in bytes ('16MiB')."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    isolate: Switch = Field(
        default="auto",
        description="replicas get a network of their own without a way out: where possible, always, never",
    )
    listen: Literal["unix", "loopback"] = Field(
        default="unix",
        description="where replicas listen: a Unix socket in a folder of this user's alone, or, for an engine build "
        "that has none, a loopback port (any user of the machine may connect; the secret still guards it)",
    )
    grace_s: Seconds = Field(default=10.0, description="between asking a process to end and killing it")
    ready_s: Seconds = Field(default=60.0, description="how long a process may take to become ready")
    backoff_first_s: Seconds = Field(default=0.1, description="wait before the first restart after a crash")
    backoff_limit_s: Seconds = Field(default=30.0, description="the longest wait between restarts")
    healthy_s: Seconds = Field(default=10.0, description="a run this long starts the backoff anew")
    log_bytes: Bytes = Field(default=16 * 2**20, description="size at which a log file is rotated")
    log_keep: int = Field(default=3, ge=0, le=99, description="rotated log files kept, beside the present one")
    log_replicas: int = Field(default=50, ge=0, description="logs kept of replicas that have ended")
    smoke_s: Seconds = Field(default=60.0, description="the longest a smoke inference of a new model may take")

    @model_validator(mode="after")
    def check_isolation(self) -> WorkerSettings:
        """Nobody would reach a port in a network of its own."""
        if self.listen == "loopback" and self.isolate == "on":
            raise ValueError("isolate: on goes with listen: unix, and only with it; set isolate to auto")
        return self
