"""Which pipelines may not start replicas now, because theirs failed: backoff first, then blocked with a reason."""

from __future__ import annotations

from dataclasses import dataclass, field

from headgate.control.settings import ControlSettings
from headgate.core.chance import Chance
from headgate.workers.backoff import Backoff


@dataclass(slots=True)
class _Fault:
    configuration: str
    backoff: Backoff
    until: float = 0.0
    why: str = ""


@dataclass(slots=True)
class FaultBook:
    """Failures by pipeline. Times are monotonic seconds."""

    settings: ControlSettings
    chance: Chance
    _faults: dict[str, _Fault] = field(default_factory=dict[str, _Fault])

    def count(self, pipeline: str, configuration: str, why: str, ran_s: float, now: float) -> float:
        """Seconds until the pipeline may start a replica again, after one of `configuration` failed."""
        fault = self._faults.get(pipeline)
        if fault is None or fault.configuration != configuration:
            fault = self._faults[pipeline] = _Fault(configuration, self._make_backoff())
        wait_s = fault.backoff.delay_after(ran_s)
        if fault.backoff.failures >= self.settings.block_after:
            wait_s = self.settings.block_retry_s
        fault.until = now + wait_s
        fault.why = why
        return wait_s

    def clear(self, pipeline: str) -> None:
        """Forget the failures of a pipeline."""
        self._faults.pop(pipeline, None)

    def settle(self, configurations: dict[str, str]) -> None:
        """Forget pipelines that are no more, and those whose configuration is another one now."""
        for name in [name for name, one in self._faults.items() if configurations.get(name) != one.configuration]:
            del self._faults[name]

    def held(self, now: float) -> dict[str, str]:
        """Pipelines that may not start a replica now, with the reason."""
        return {name: fault.why for name, fault in self._faults.items() if now < fault.until}

    def failures(self, pipeline: str) -> int:
        """Failures in a row."""
        fault = self._faults.get(pipeline)
        return fault.backoff.failures if fault else 0

    def blocked(self, pipeline: str) -> str | None:
        """Why a pipeline is blocked; None when it is not."""
        fault = self._faults.get(pipeline)
        if fault is None or fault.backoff.failures < self.settings.block_after:
            return None
        return f"its replicas failed {fault.backoff.failures} times in a row, the last one {fault.why}"

    def next_retry(self, now: float) -> float | None:
        """Seconds until the first hold ends; None when there is none."""
        return min((fault.until - now for fault in self._faults.values() if now < fault.until), default=None)

    def _make_backoff(self) -> Backoff:
        settings = self.settings
        return Backoff(
            self.chance,
            first_s=settings.backoff_first_s,
            limit_s=settings.backoff_limit_s,
            healthy_s=settings.healthy_s,
        )
