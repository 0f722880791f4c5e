"""Solves the newest decision exactly in the background, where highspy is installed, and hands back what it finds.

In a process of its own that runs when nobody else wants the core: neither the loop nor a replica waits for it. A turn
never waits; what comes back is part of a later one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import orjson

from headgate.allocation.refine import Refinement
from headgate.control.reconcile import Reconciler
from headgate.core.clock import Clock

log = logging.getLogger(__name__)

Refine = Callable[[Mapping[str, Any], float], Awaitable[Refinement | None]]
"""Refines a recorded state within so many seconds for each class of pipelines. Raises RuntimeError."""

_OFF_S = 5.0  # how often a refiner that is switched off looks whether it is switched on
_PATIENCE_S = 600.0  # on a busy machine, a process that runs only when nobody else wants to takes its time
_PACKAGES = Path(__file__).parents[2]  # the child must find this very package, also when it is not installed


def can_refine() -> bool:
    """Whether the package that solves exactly is installed."""
    return find_spec("highspy") is not None


class Refiner:
    """Looks at the newest decision every so often. `run` it beside the loop."""

    def __init__(self, reconciler: Reconciler, clock: Clock, refine: Refine) -> None:
        self._reconciler = reconciler
        self._clock = clock
        self._refine = refine

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            every_s = self._reconciler.plan.settings.exact_every_s
            await self._clock.sleep(every_s or _OFF_S)
            if every_s is not None:
                await self._look()

    async def _look(self) -> None:
        """Refine the newest decision, unless that was done."""
        book, decisions = self._reconciler.refined, self._reconciler.decisions
        if not decisions or decisions[-1].number == book.number:
            book.drop_proposal()
            return
        decision, found = decisions[-1], None
        try:
            found = await self._refine(decision.state, self._reconciler.plan.settings.exact_limit_s)
        except (OSError, RuntimeError) as error:
            log.warning("decision %d could not be solved exactly: %s", decision.number, error)
        book.take(decision.number, found)
        if found is not None:
            proposed = f"; better for {', '.join(sorted(found.proposal))}" if found.proposal else ""
            log.info("decision %d is at most %.3g %% below the best%s", decision.number, 100 * found.gap, proposed)


async def refine_apart(state: Mapping[str, Any], seconds: float) -> Refinement | None:
    """`refine` of a recorded state, in a child process. Raises OSError, RuntimeError when that breaks or hangs."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-s", "-P", "-m", "headgate.control.refiner_child",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
        env={"PATH": os.environ.get("PATH", ""), "LANG": "C.UTF-8", "PYTHONPATH": str(_PACKAGES),
             "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        request = orjson.dumps({"state": state, "seconds": seconds})
        async with asyncio.timeout(_PATIENCE_S):
            reply, _ = await child.communicate(request)
    except TimeoutError:
        raise RuntimeError("it did not end in time") from None
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()
    if child.returncode:
        raise RuntimeError(f"its process ended with {child.returncode}")
    return _read(orjson.loads(reply))


def _read(told: dict[str, Any] | None) -> Refinement | None:
    if told is None:
        return None
    prices = tuple(tuple(row) for row in told["prices"])
    return Refinement(gap=told["gap"], prices=prices, proposal=told["proposal"])
