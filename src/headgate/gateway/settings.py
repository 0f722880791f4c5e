"""Settings of the gateway: the `gateway:` part of headgate.yaml."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from headgate.core.units import parse_bytes, parse_seconds

Bytes = Annotated[int, BeforeValidator(parse_bytes, json_schema_input_type=int | str)]
Seconds = Annotated[float, BeforeValidator(parse_seconds, json_schema_input_type=float | str)]


class TlsSettings(BaseModel):
    """Certificate and key for https, both PEM files."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    certificate: Path = Field(description="PEM file with the certificate chain.")
    key: Path = Field(description="PEM file with the private key; must not be readable by others.")


class GatewaySettings(BaseModel):
    """Where the door is and what it lets through."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8080, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    processes: int = Field(default=1, ge=1, le=64, description="Gateway processes sharing the port.")
    tls: TlsSettings | None = Field(default=None, description="Serve https with these files.")
    allow_insecure_bind: bool = Field(
        default=False,
        description="Allow an address that others can reach without TLS. Logged at every start.",
    )
    # Why 4 MiB: the worst body of that size is refused in under 50 ms, and it is a million tokens of text.
    max_body_bytes: Bytes = Field(default=4 * 2**20, ge=1024, description="Largest request body.")
    max_choices: int = Field(default=8, ge=1, le=128, description="Largest n of one request.")
    max_connections: int = Field(default=2048, ge=1, description="Open connections per process.")
    drain_s: Seconds = Field(default=30.0, ge=0, description="Time that streams get to finish at a shutdown.")
    stalled_client_s: Seconds = Field(
        default=60.0, gt=0, description="How long a client may leave its stream unread before it is cut off."
    )

    @model_validator(mode="after")
    def check_bind(self) -> GatewaySettings:
        """Refuse an address that others can reach without TLS."""
        if self.tls is None and not self.allow_insecure_bind and not is_loopback(self.host):
            raise ValueError(
                f"host {self.host} can be reached by others and there is no TLS: set gateway.tls.certificate and "
                "gateway.tls.key, or bind 127.0.0.1, or set gateway.allow_insecure_bind: true if a proxy in front "
                "speaks TLS"
            )
        return self


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
