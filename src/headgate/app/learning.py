"""What the running node learns of its models, written to their profiles: how long they take to wake."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from headgate.app.plan import describe_subject
from headgate.control.node_plan import NodePlan
from headgate.core.clock import Clock
from headgate.core.errors import HeadgateError
from headgate.evaluation.profiles import learn_wake
from headgate.store.database import Database
from headgate.workers.hardware import HardwareFacts

log = logging.getLogger(__name__)

_EVERY_S = 300.0


class Learning:
    """Writes what changed every few minutes, and when the node ends."""

    def __init__(self, database: Database, clock: Clock, hardware: HardwareFacts) -> None:
        self._database, self._clock, self._hardware = database, clock, hardware
        self._written: dict[str, float] = {}
        self._look: Callable[[], tuple[NodePlan, Mapping[str, float]]] | None = None

    def watch(self, look: Callable[[], tuple[NodePlan, Mapping[str, float]]]) -> None:
        """`look` tells the plan in force, and the wake seconds that were seen by configuration key."""
        self._look = look

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                await self._clock.sleep(_EVERY_S)
                await asyncio.to_thread(self.write)
        finally:
            self.write()

    def write(self) -> None:
        """Write the wakes that have changed. Blocks; a database that does not answer is left alone."""
        if self._look is None:
            return
        plan, wakes = self._look()
        for model in plan.models.values():
            wake_s = wakes.get(model.key)
            if wake_s is None or self._written.get(model.key) == wake_s:
                continue
            try:
                learn_wake(self._database, self._clock, describe_subject(model, self._hardware), wake_s)
            except HeadgateError as error:
                log.warning("what was learned of %s could not be kept: %s", model.name, error.message)
                return
            self._written[model.key] = wake_s
