"""What an operator may set about models: sizes, where they may come from, which licences are welcome."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from headgate.core.units import parse_bytes, parse_seconds

SourceKind = Literal["local", "hf", "https", "bundled", "fake", "endpoint"]
Bytes = Annotated[int, BeforeValidator(parse_bytes, json_schema_input_type=int | str), Field(gt=0)]
Seconds = Annotated[float, BeforeValidator(parse_seconds, json_schema_input_type=float | str), Field(gt=0)]


class RegistrySettings(BaseModel):
    """Settings of the registry. Hosts are exact names or `*.` and a domain; sizes in bytes, times in seconds.

    Nothing outside this machine is spoken to unless its host is named here (or a source in headgate.yaml names it).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_model_bytes: Bytes = Field(default=200 * 2**30, description="largest model that is taken, in bytes")
    sources: frozenset[SourceKind] = Field(
        default=frozenset({"local", "hf", "https", "bundled", "fake", "endpoint"}),
        description="kinds of source that models may be added from",
    )
    hub_hosts: tuple[str, ...] = Field(
        default=("huggingface.co", "*.huggingface.co", "*.hf.co"),
        description="hosts that hf: sources may be fetched from, the hub's own delivery hosts included",
    )
    allowed_hosts: tuple[str, ...] = Field(
        default=(), description="hosts that https: and endpoint: sources may name, and redirects may lead to"
    )
    plain_http_hosts: tuple[str, ...] = Field(
        default=(), description="hosts of endpoint: sources that may be spoken to without TLS"
    )
    licences_allowed: tuple[str, ...] | None = Field(
        default=None, description="licence ids that are taken; all when left out, and then unknown ones too"
    )
    licences_denied: tuple[str, ...] = Field(default=(), description="licence ids that are refused")
    connect_timeout_s: Seconds = Field(default=30.0, description="longest silence of a server, in seconds")
    download_timeout_s: Seconds = Field(default=24 * 3600.0, description="longest download, in seconds")
    template_timeout_s: Seconds = Field(default=5.0, description="longest rendering of a chat template, in seconds")
