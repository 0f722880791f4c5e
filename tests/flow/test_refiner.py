"""A recorded state goes to a process of its own and comes back refined; a process that breaks is told, none stays."""

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import pytest

from headgate.allocation.recording import plain_state
from headgate.allocation.refine import refine
from headgate.control import refiner
from headgate.control.refiner import can_refine, refine_apart
from tests.unit.allocation.test_refine import BETTER, whole

pytest.importorskip("highspy")


def children() -> set[str]:
    """Processes of ours that refine."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes()
            parent = (path.parent / "stat").read_text().rpartition(")")[2].split()[1]
        except OSError:
            continue
        if b"refiner_child" in command and int(parent) == os.getpid():
            found.add(path.parent.name)
    return found


async def test_a_child_says_what_would_be_said_here() -> None:
    assert can_refine()
    state = whole(BETTER[0])
    found = await refine_apart(plain_state(state), 10.0)
    assert found == refine(state, 10.0) and found.proposal and found.prices
    assert await refine_apart(plain_state(replace(state, pipelines=(), demands={})), 1.0) is None
    assert not children()


async def test_a_child_runs_only_when_nobody_else_wants_to_and_ends_with_whoever_asked() -> None:
    state = plain_state(whole(1, pipelines=120, devices=60))
    task = asyncio.ensure_future(refine_apart(state, 60.0))
    while not (running := children()):
        await asyncio.sleep(0.005)
    (pid,) = running
    for _ in range(400):
        if os.sched_getscheduler(int(pid)) == os.SCHED_IDLE:
            break
        await asyncio.sleep(0.005)
    assert os.sched_getscheduler(int(pid)) == os.SCHED_IDLE
    assert os.getpriority(os.PRIO_PROCESS, int(pid)) == 19
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert not children()


async def test_what_is_no_state_and_what_does_not_end_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match="ended with 1"):
        await refine_apart({"nonsense": 1}, 1.0)
    monkeypatch.setattr(refiner, "_PATIENCE_S", 0.01)
    with pytest.raises(RuntimeError, match="did not end"):
        await refine_apart(plain_state(whole(BETTER[0])), 1.0)
    assert not children()
