"""Sums of samples."""

from __future__ import annotations

from headgate.evaluation.samples import Sample, percentile, summarise


def sample(latency_s: float, failure: str | None = None) -> Sample:
    first_s = None if failure else 1.0 + latency_s / 2
    return Sample(
        number=0, pipeline="a", start_s=1.0, first_s=first_s, end_s=1.0 + latency_s, tokens=10, failure=failure
    )


def test_failures_count_as_such_and_not_as_fast_answers() -> None:
    sums = summarise([sample(0.2), sample(0.4), sample(0.0, "queue_full")], seconds=10, late_after_s={"a": 0.15})
    assert (sums.requests, sums.failures, sums.tokens) == (3, 1, 30)
    assert sums.latency_ms_p50 is not None and abs(sums.latency_ms_p50 - 200) < 1e-6
    assert sums.latency_ms_p95 is not None and abs(sums.latency_ms_p95 - 400) < 1e-6
    assert sums.first_token_ms_p95 is not None and abs(sums.first_token_ms_p95 - 200) < 1e-6
    assert sums.tokens_per_s == 3.0
    assert (sums.late, sums.on_time_per_s) == (1, 0.1)


def test_late_is_more_than_the_limit_and_no_failure() -> None:
    assert not sample(0.5).is_late(0.25)
    assert sample(0.5).is_late(0.2499)
    assert not sample(9.0, "queue_full").is_late(0.1)
    silent = Sample(number=0, pipeline="a", start_s=0.0, end_s=0.1)
    assert silent.is_late(5.0)


def test_nothing_has_no_percentiles() -> None:
    sums = summarise([], seconds=10, late_after_s={})
    assert (sums.requests, sums.latency_ms_p50, sums.first_token_ms_p95) == (0, None, None)


def test_percentiles_are_nearest_ranks() -> None:
    values = [float(one) for one in range(1, 101)]
    assert (percentile(values, 0.5), percentile(values, 0.95), percentile(values, 1.0)) == (50.0, 95.0, 100.0)
    assert percentile([7.0], 0.01) == 7.0
