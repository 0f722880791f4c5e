"""Lane S: what is drawn from the trace, and who decides about elastic capacity."""

import numpy as np
import pytest
from benchmarks.lanes.serve_gen import WINDOW_S, ServeGen


def trace(rate: float, cv: float = 1.0, windows: int = 3, weibull_shape: float | None = None) -> ServeGen:
    """One pipeline with the same rate in all windows."""
    whole = np.full((1, windows), rate)
    lengths = np.full((1, windows, 4), 100.0)
    return ServeGen(
        names=("one",),
        first=0,
        rate=whole,
        cv=np.full_like(whole, cv),
        weibull=np.full(whole.shape, weibull_shape is not None),
        shape=np.full_like(whole, weibull_shape or cv**-2.0),
        inputs=lengths,
        outputs=lengths,
    )


@pytest.mark.parametrize("rate", [0.02, 1.5, 300.0])
def test_every_window_has_the_requests_that_the_trace_counted(rate: float) -> None:
    counts = trace(rate).counts(seed=1).reshape(3, -1)
    assert counts.sum(axis=1).tolist() == [round(rate * WINDOW_S)] * 3


def test_a_part_of_the_trace_draws_the_same_requests() -> None:
    whole = trace(2.0, windows=4)
    assert np.array_equal(whole.windows(2, 4).counts(seed=3), whole.counts(seed=3)[:, 1200:])
    assert not np.array_equal(whole.counts(seed=3), whole.counts(seed=4))


@pytest.mark.parametrize(
    ("rate", "cv", "shape"),
    [(5.0, 1.0, None), (5.0, 2.0, None), (200.0, 2.0, None), (5.0, 2.2361, 0.5), (200.0, 2.2361, 0.5)],
)
def test_gaps_vary_as_much_as_the_trace_says(rate: float, cv: float, shape: float | None) -> None:
    """In a renewal process the counts of long steps vary by cv squared of their mean."""
    counts = trace(rate, cv, windows=200, weibull_shape=shape).counts(seed=5, step_s=10.0)[0]
    assert counts.var() / counts.mean() == pytest.approx(cv**2, rel=0.2)


def test_steps_must_divide_a_window() -> None:
    with pytest.raises(ValueError, match="step_s"):
        trace(1.0).counts(seed=1, step_s=7.0)
