"""Which configurations may not get replicas now, because theirs failed: backoff first, then blocked with a reason."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from headgate.control.settings import ControlSettings
from headgate.core.chance import Chance
from headgate.workers.backoff import Backoff


@dataclass(slots=True)
class _Fault:
    backoff: Backoff
    until: float = 0.0
    why: str = ""


@dataclass(slots=True)
class FaultBook:
    """Failures by pipeline and configuration: what fails on a GPU may serve on cores. Times are monotonic seconds."""

    settings: ControlSettings
    chance: Chance
    _faults: dict[str, dict[str, _Fault]] = field(default_factory=dict[str, dict[str, _Fault]])

    def count(self, pipeline: str, configuration: str, why: str, ran_s: float, now: float) -> float:
        """Seconds until the pipeline may start a replica of `configuration` again, after one failed."""
        faults = self._faults.setdefault(pipeline, {})
        fault = faults.get(configuration)
        if fault is None:
            fault = faults[configuration] = _Fault(self._make_backoff())
        wait_s = fault.backoff.delay_after(ran_s)
        if fault.backoff.failures >= self.settings.block_after:
            wait_s = self.settings.block_retry_s
        fault.until = now + wait_s
        fault.why = why
        return wait_s

    def settle(self, ways: dict[str, tuple[str, ...]]) -> None:
        """Forget what failed of pipelines and configurations that are no more; `ways` are those there are now."""
        self._faults = {
            name: {key: fault for key, fault in faults.items() if key in ways.get(name, ())}
            for name, faults in self._faults.items()
        }

    def held(self, now: float) -> dict[str, dict[str, str]]:
        """Configurations, by pipeline, that may not get a replica now, with the reason."""
        held = {
            name: {key: fault.why for key, fault in faults.items() if now < fault.until}
            for name, faults in self._faults.items()
        }
        return {name: ways for name, ways in held.items() if ways}

    def failures(self, pipeline: str) -> int:
        """Failures in a row, of the configuration that has most of them."""
        return max((fault.backoff.failures for fault in self._faults.get(pipeline, {}).values()), default=0)

    def blocked(self, pipeline: str, ways: Collection[str]) -> str | None:
        """Why a pipeline is blocked; None while one of its `ways` to run has not failed that often."""
        faults = self._faults.get(pipeline, {})
        failed = [faults[key] for key in ways if key in faults]
        if not failed or len(failed) < len(ways):
            return None
        least = min(failed, key=lambda fault: fault.backoff.failures)
        if least.backoff.failures < self.settings.block_after:
            return None
        return f"its replicas failed {least.backoff.failures} times in a row, the last one {least.why}"

    def next_retry(self, now: float) -> float | None:
        """Seconds until the first hold ends; None when there is none."""
        untils = [fault.until for faults in self._faults.values() for fault in faults.values()]
        return min((until - now for until in untils if now < until), default=None)

    def _make_backoff(self) -> Backoff:
        settings = self.settings
        return Backoff(
            self.chance,
            first_s=settings.backoff_first_s,
            limit_s=settings.backoff_limit_s,
            healthy_s=settings.healthy_s,
        )
