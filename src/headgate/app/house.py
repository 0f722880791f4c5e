"""A state folder opened: its places, clock, chance, ids, database, keys and registry. What everything starts from."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from headgate.core.chance import Chance, SystemChance
from headgate.core.clock import SystemClock
from headgate.core.errors import ConfigError, NotRunning
from headgate.core.ids import Ids
from headgate.core.secret import Secret
from headgate.workers.supervisor_state import SupervisorState, load_state

if TYPE_CHECKING:
    from headgate.config import Settings
    from headgate.registry.catalogue import Registry
    from headgate.store.database import Database

_SOCKET_PATH_MOST = 100  # bytes; the kernel takes 107 for a Unix socket's path, replicas add a name
_APPLIED = "applied.yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where things lie in one state folder. Sockets move to a short path when the folder's own is too long."""

    state: Path

    @property
    def run(self) -> Path:
        """Sockets and run-time records (0700)."""
        run = self.state / "run"
        if len(os.fsencode(run)) + 40 <= _SOCKET_PATH_MOST:
            return run
        name = hashlib.sha256(os.fsencode(self.state)).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"headgate-{os.geteuid()}-{name}" / "run"

    @property
    def apart(self) -> bool:
        """Whether sockets lie away from the state folder, in one that goes when the house ends."""
        return self.run.parent != self.state

    @property
    def logs(self) -> Path:
        """Every process's output."""
        return self.state / "logs"

    @property
    def models(self) -> Path:
        """The content-addressed store of model bytes."""
        return self.state / "models"

    @property
    def admin_socket(self) -> Path:
        """The local admin's way in (0600)."""
        return self.run / "admin.sock"

    @property
    def node_socket(self) -> Path:
        """Where gateways find the node (0600)."""
        return self.run / "node.sock"

    @property
    def applied(self) -> Path:
        """The configuration in force: the last good one."""
        return self.state / _APPLIED

    @property
    def source(self) -> Path:
        """Names the file that the configuration in force was read from; SIGHUP reads that again."""
        return self.state / "source.txt"

    def make(self) -> None:
        """Make the folders, for this user only."""
        for folder in (self.state, self.run.parent, self.run, self.logs, self.models):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self.apart and folder == self.run.parent and folder.is_symlink():
                raise ConfigError(f"{folder} is a link; remove it, or choose another state folder.", param="state")
            if folder.stat().st_uid != os.geteuid():
                raise ConfigError(f"{folder} belongs to another user; choose another state folder.", param="state")
        self.run.chmod(0o700)
        if self.apart:
            self.run.parent.chmod(0o700)


class House:
    """A state folder opened: clock, chance, ids and database. What every command and process starts from."""

    def __init__(self, settings: Settings) -> None:
        """Make the folders and open the database; migrations run only in `prepare`."""
        from headgate.store.database import Database

        self.settings = settings
        self.clock = SystemClock()
        self.chance: Chance = SystemChance()
        self.ids = Ids(self.clock, self.chance)
        self.places = Places(state=settings.state.absolute())
        self.places.make()
        store = settings.store
        self.database: Database = Database(store.resolve(self.places.state), busy_timeout_s=store.busy_timeout_s)

    def prepare(self) -> None:
        """Create or upgrade the tables."""
        from headgate.store.migrate import migrate

        migrate(self.database)

    def pepper(self) -> bytes:
        """The secret that keys are hashed with, made on the first start."""
        from headgate.store.pepper import open_pepper

        return open_pepper(self.database, self.places.state, chance=self.chance, clock=self.clock)

    def make_admin_key(self) -> Secret | None:
        """An admin key when there is none that works yet, to be shown once; else None."""
        from headgate.store.keys import create_key, has_admin_key

        pepper = self.pepper()
        if has_admin_key(self.database, self.clock.now()):
            return None
        key, _ = create_key(
            self.database,
            pepper,
            ids=self.ids,
            clock=self.clock,
            chance=self.chance,
            user="admin",
            role="admin",
            name="made at first start",
        )
        return key

    def registry(self) -> Registry:
        """The registry, with the smoke inference that refuses broken models."""
        from headgate.registry.catalogue import Registry

        return Registry(
            folder=self.places.models,
            database=self.database,
            clock=self.clock,
            ids=self.ids,
            smoke=self._smoke,
            in_use=self._pipelines_using,
            settings=self.settings.registry,
        )

    def _smoke(self, version: object) -> None:
        from headgate.core.model import Version
        from headgate.engines.catalogue import build_engines, choose_engine
        from headgate.engines.engine import ModelOptions
        from headgate.engines.http import HttpClient
        from headgate.workers.smoke import try_model

        assert isinstance(version, Version)
        if version.format == "endpoint":
            return  # there is no process to try, and what it is asked with stands in its model's settings
        tried = version

        async def attempt() -> None:
            client = HttpClient(self.clock)
            try:
                engines = build_engines(self.settings.engines, client)
                engine = choose_engine(engines, tried)
                await try_model(
                    engine,
                    tried,
                    ModelOptions(context=min(tried.context or 256, 256), slots=1),
                    settings=self.settings.workers,
                    clock=self.clock,
                    chance=self.chance,
                )
            finally:
                await client.close()

        asyncio.run(attempt())

    def _pipelines_using(self, model: str) -> list[str]:
        return sorted(name for name, pipeline in self.settings.pipelines.items() if model in pipeline.model)

    def running(self) -> SupervisorState | None:
        """The supervisor's account while Headgate runs on this state folder, else None."""
        return load_state(self.places.run / "supervisor.json")

    def close(self) -> None:
        """Close the database. A run folder that lies apart and was made for nothing goes again."""
        self.database.close()
        if self.places.apart:
            with contextlib.suppress(OSError):  # it is in use: not empty
                self.places.run.rmdir()
                self.places.run.parent.rmdir()


def require_running(house: House) -> SupervisorState:
    """The supervisor's account. Raises NotRunning."""
    state = house.running()
    if state is None:
        raise NotRunning(f"Headgate does not run on {house.places.state}. `headgate up` starts it.")
    return state
