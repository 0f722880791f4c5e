"""Settings of the ledger."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class MeteringSettings(BaseModel):
    """How long the ledger's rows are kept, and how many may wait while the database cannot be written."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    retention_days: float = Field(
        default=90.0,
        gt=0,
        description="Days after which settled requests and calls are deleted from the ledger.",
    )
    waiting_rows: int = Field(
        default=20_000,
        ge=100,
        description="Ledger entries that may wait for a slow disk before a gateway refuses new requests.",
    )
