"""Who runs under the supervisor: every name's present run, restarts with backoff, replacement without a gap.

Decides and starts; the supervisor's loop tells it the time and what ended. Knows nothing of sockets beyond
their descriptors, and nothing of the order in which the house is taken down.
"""

from __future__ import annotations

import selectors
import signal
from collections.abc import Callable, Iterator, Mapping

from headgate.core.chance import Chance
from headgate.workers.backoff import Backoff
from headgate.workers.child import Run, start_child
from headgate.workers.exits import Exit
from headgate.workers.spec import Spec, Supervised


class Place:
    """One name that is always to be filled. `candidate` is its next run while a replacement gets ready."""

    def __init__(self, spec: Supervised, backoff: Backoff) -> None:
        self.spec = spec
        self.backoff = backoff
        self.run: Run | None = None
        self.candidate: Run | None = None
        self.start_at: float | None = 0.0
        self.restarts = 0
        self.last_exit: str | None = None


class Places:
    """All children of one house. Times are monotonic seconds."""

    def __init__(
        self, spec: Spec, chance: Chance, selector: selectors.BaseSelector, log: Callable[[str], None]
    ) -> None:
        self._spec = spec
        self._selector = selector
        self._log = log
        self._departing: list[Run] = []
        self._to_replace: list[str] = []
        self.all = [
            Place(
                child,
                Backoff(
                    chance,
                    first_s=spec.backoff_first_s,
                    limit_s=spec.backoff_limit_s,
                    healthy_s=spec.healthy_s,
                ),
            )
            for child in sorted(spec.children, key=lambda child: child.role != "node")
        ]

    def runs(self, role: str | None = None) -> Iterator[Run]:
        """Every process that lives, present, coming or going; of one role if asked."""
        for place in self.all:
            for run in (place.run, place.candidate):
                if run is not None and role in (None, run.spec.role):
                    yield run
        yield from (run for run in self._departing if role in (None, run.spec.role))

    @property
    def ready(self) -> bool:
        """Whether every place is filled by a process that said it is ready."""
        return all(place.run is not None and place.run.ready for place in self.all)

    def due(self) -> Iterator[float]:
        """The moments at which `tick` has something to do."""
        moments = [place.start_at for place in self.all]
        for run in self.runs():
            moments += [run.kill_at, run.ready_by]
        yield from (moment for moment in moments if moment is not None)

    def tick(self, now: float, sockets: Mapping[str, int], environ: Mapping[str, str]) -> bool:
        """Start what is due, kill what is overdue, take the next step of a replacement. True when anything
        changed.
        """
        changed = False
        for place in self.all:
            if place.start_at is not None and place.start_at <= now:
                place.start_at = None
                place.run = self._start(place, sockets, environ, now)
                changed = True
        for run in list(self.runs()):
            if run.kill_at is not None and run.kill_at <= now:
                self._log(f"{run.spec.name} (pid {run.pid}) did not end in time: killed")
                run.kill()
            elif run.ready_by is not None and run.ready_by <= now:
                self._log(f"{run.spec.name} (pid {run.pid}) not ready in {self._spec.ready_s:g} s: killed")
                run.ready_by = None
                run.kill()
        while self._step_replacement(now, sockets, environ):  # no event follows a step that only made room
            changed = True
        return changed

    def bury(self, run: Run, ended: Exit, now: float, *, restart: bool) -> bool:
        """Take note that `run` ended, and plan its next start if `restart`. True when it may be a first start
        failing for good: `start_tries` failures in a row of a child that was never ready.
        """
        if run.ready_fd is not None:
            self._selector.unregister(run.ready_fd)
            run.close()
        if run in self._departing:
            self._departing.remove(run)
            return False
        place = next(place for place in self.all if place.spec is run.spec)
        if run is place.candidate:
            place.candidate = None
            self._to_replace.clear()
            self._log(f"the new {run.spec.name} {ended.describe()}; the old one stays, replacing ends here")
            return False
        place.run = None
        place.last_exit = ended.describe()
        if not restart:
            return False
        if run.leaving:  # it was asked to make room
            place.start_at = now
            return False
        place.restarts += 1
        delay = place.backoff.delay_after(now - run.started)
        place.start_at = now + delay
        self._log(f"{run.spec.name} (pid {run.pid}) {ended.describe()}; next start in {delay:.2f} s")
        return not run.ready and place.backoff.failures >= self._spec.start_tries

    def replace_all(self) -> None:
        """Plan to replace every child: gateways by a new one beside the old one, then the node."""
        if not self._to_replace:
            self._to_replace = [place.spec.name for place in reversed(self.all)]

    def stop(self, role: str, kill_at: float) -> None:
        """Start nothing any more; ask every process of `role` to stop for good."""
        self._to_replace.clear()
        for place in self.all:
            place.start_at = None
        for run in self.runs(role):
            run.leave(signal.SIGTERM, kill_at)

    def _start(self, place: Place, sockets: Mapping[str, int], environ: Mapping[str, str], now: float) -> Run | None:
        try:
            run = start_child(place.spec, sockets, environ, now, now + self._spec.ready_s)
        except OSError as error:
            place.start_at = now + place.backoff.delay_after(0.0)
            self._log(f"{place.spec.name} cannot be started now: {error}")
            return None
        assert run.ready_fd is not None
        self._selector.register(run.ready_fd, selectors.EVENT_READ, run)
        return run

    def _step_replacement(self, now: float, sockets: Mapping[str, int], environ: Mapping[str, str]) -> bool:
        if not self._to_replace:
            return False
        place = next(place for place in self.all if place.spec.name == self._to_replace[0])
        old = place.run
        if place.spec.role == "node":  # there is only one: the old one goes first, its replicas stay
            if old is None:  # it crashed and is started anew anyway
                self._to_replace.pop(0)
                return True
            self._to_replace.pop(0)
            old.leave(signal.Signals[place.spec.leave_signal], now + self._spec.grace_s)
            return True
        if place.candidate is None:
            if old is None:  # it crashed and is started anew by the backoff anyway
                self._to_replace.pop(0)
                return True
            place.candidate = self._start(place, sockets, environ, now)
            if place.candidate is None:
                place.start_at = None
                self._to_replace.clear()
            return True
        if not place.candidate.ready:
            return False
        self._to_replace.pop(0)
        place.run, place.candidate = place.candidate, None
        if old is not None:
            self._departing.append(old)
            leave = signal.Signals[place.spec.leave_signal]
            old.leave(leave, now + self._spec.drain_s + self._spec.grace_s)
        return True
