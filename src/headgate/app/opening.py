"""Which house a command speaks of: from what its user named to settings and a state folder."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from headgate.app.house import House, Places
from headgate.workers.supervisor_state import load_state

if TYPE_CHECKING:
    from headgate.config import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """What the user named: a configuration file, a state folder, both or neither."""

    config: Path | None = None
    state: Path | None = None

    def places(self) -> Places:
        """The state folder. Works while the configuration file is broken. Raises ConfigError."""
        from headgate.config import find_state

        return Places(state=(self.state or find_state(self.config)).absolute())

    def settings(self) -> tuple[Settings, bytes]:
        """The settings in the file, and its text. Raises ConfigError."""
        from headgate.config import read_settings

        settings, text = read_settings(self.config)
        return (settings if self.state is None else settings.model_copy(update={"state": self.state})), text

    def settings_in_force(self) -> Settings:
        """What a running Headgate serves by; the settings in the file when none runs. Raises ConfigError."""
        from headgate.config import read_settings

        places = self.places()
        if self.config is None and places.applied.exists() and load_state(places.run / "supervisor.json"):
            return read_settings(places.applied)[0].model_copy(update={"state": places.state})
        return self.settings()[0]

    def file(self) -> Path | None:
        """The configuration file, None when there is none and the bundled models are meant."""
        from headgate.config import DEFAULT_FILE

        return self.config or (DEFAULT_FILE if DEFAULT_FILE.exists() else None)

    @contextmanager
    def house(self) -> Generator[House]:
        """The house, its tables up to date. Works with the server up or down. Raises ConfigError, StoreRefused."""
        house = House(self.settings_in_force())
        try:
            house.prepare()
            yield house
        finally:
            house.close()
