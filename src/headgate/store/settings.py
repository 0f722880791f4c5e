"""Settings of the store: which database."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, SecretStr

DATABASE_FILE = "headgate.db"


class StoreSettings(BaseModel):
    """Where Headgate keeps its rows. Without a url: an SQLite file in the state folder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: SecretStr | None = Field(
        default=None,
        description="Database URL: sqlite:////absolute/path.db or postgresql://user:password@host/database. "
        "Default: headgate.db in the state folder.",
    )
    busy_timeout_s: float = Field(
        default=5.0, gt=0, le=60, description="Seconds a writer waits for another writer before it gives up."
    )

    def resolve(self, state: Path) -> str:
        """The URL to open, given the state folder. Holds a password when the setting does: do not log it."""
        if self.url is not None:
            return self.url.get_secret_value()
        # Why not sqlite_url(): reading the configuration must not import SQLAlchemy.
        return f"sqlite:///{(state / DATABASE_FILE).absolute()}"
