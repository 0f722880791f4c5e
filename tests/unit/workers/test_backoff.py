"""Waits double, stay below the limit, and start anew after a healthy run."""

from __future__ import annotations

from headgate.core.chance import SeededChance
from headgate.workers.backoff import Backoff


def test_waits_double_up_to_the_limit() -> None:
    backoff = Backoff(SeededChance(1), first_s=0.1, limit_s=2.0, healthy_s=10.0)
    waits = [backoff.delay_after(0.0) for _ in range(8)]
    for number, wait in enumerate(waits):
        whole = min(2.0, 0.1 * 2**number)
        assert 0.75 * whole <= wait <= whole
    assert backoff.failures == 8


def test_a_healthy_run_starts_anew() -> None:
    backoff = Backoff(SeededChance(1), first_s=0.1, limit_s=2.0, healthy_s=10.0)
    for _ in range(5):
        backoff.delay_after(1.0)
    assert backoff.delay_after(10.0) <= 0.1
    assert backoff.failures == 1
    backoff.clear()
    assert backoff.failures == 0


def test_a_thousand_failures_do_not_overflow() -> None:
    backoff = Backoff(SeededChance(1), first_s=0.1, limit_s=2.0, healthy_s=10.0)
    assert all(backoff.delay_after(0.0) <= 2.0 for _ in range(2000))
