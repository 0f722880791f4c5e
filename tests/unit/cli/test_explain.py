"""What a decision's line of sums says of how good it is."""

from __future__ import annotations

import pytest

from headgate.cli.explain import _sum


@pytest.mark.parametrize(
    ("gaps", "told"),
    [
        ({"gap_to_bound": 0.01}, "at most 1 % below the best"),
        ({"gap_to_bound": 0.01, "gap_to_exact": None}, "at most 1 % below the best"),
        ({"gap_to_bound": 0.01, "gap_to_exact": 0.002}, "at most 1 % below the best; solved exactly: 0.2 % at most"),
        ({"gap_to_bound": 0.01, "gap_to_exact": 0.0}, "at most 1 % below the best; proven to be the best"),
    ],
)
def test_the_bound_is_told_and_the_tighter_one_where_it_is_known(gaps, told):
    assert _sum({"changes": [], **gaps}) == told
