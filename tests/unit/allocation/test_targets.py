"""What replicas are worth: queues, stretches and who sleeps."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from headgate.allocation.punctuality import Service
from headgate.allocation.settings import DEFAULTS
from headgate.allocation.targets import Option, Want, choose_targets, value_curves

SERVICE = Service(mean_s=0.15, variation=0.2, slack=((1.0, 0.5),))
CALM = replace(DEFAULTS, spare=0.0)


def want(rate: float, now: int = 2, **more: object) -> Want:
    told = {"near": (rate,) * 7, "far": (rate,) * 7, "near_s": 30.0, "far_s": 30.0, "cap": 8, **more}
    return Want(service=SERVICE, options=(Option(now=now),), **told)


def values(one: Want) -> np.ndarray:
    return value_curves([one], CALM)[1][0]


def test_more_replicas_are_worth_something_only_when_they_serve_and_fewer_hurt_at_once() -> None:
    soon = values(want(18.0, far=(0.0,) * 7))
    assert soon[2:] == pytest.approx(np.full(7, soon[2])) and soon[1] < 0.7 * soon[2]
    later = values(want(18.0, near=(0.0,) * 7))
    assert later[4] > later[3] > later[2]


def test_a_queue_makes_the_next_replica_worth_more_and_room_bounds_what_may_wait() -> None:
    calm, full = values(want(10.0)), values(want(10.0, inside=150.0))
    assert full[3] - full[2] > 5.0 * (calm[3] - calm[2])
    assert full[2] < calm[2]
    flooded = want(40.0, near_s=60.0)
    assert values(replace(flooded, room=40.0))[8] > values(flooded)[8]


def test_requests_that_are_being_served_are_no_queue() -> None:
    assert values(want(5.0, now=3, inside=3.0)) == pytest.approx(values(want(5.0, now=3)))


def test_nobody_comes_nothing_is_worth_anything() -> None:
    assert values(want(0.0)).max() == 0.0


def test_capacity_goes_where_the_queue_is_and_the_order_of_wants_does_not_matter() -> None:
    three = [want(3.0, now=1), want(3.0, now=1, inside=200.0), want(3.0, now=1)]
    counts = choose_targets(three, [4.0]).counts
    assert counts[1] > max(counts[0], counts[2]) and counts.sum() == 4
    assert list(choose_targets(three[::-1], [4.0]).counts) == list(counts[::-1])
    assert want(1.0).room == math.inf


def test_a_queue_that_outlasts_the_stretches_is_not_given_up() -> None:
    slow = Service(mean_s=0.5, slack=((1.0, 0.5),))
    soon = {"service": slow, "near_s": 3.0, "far_s": 13.0}
    calm, long = replace(want(0.67), **soon), replace(want(4.0, inside=80.0), **soon)
    assert choose_targets([calm, long], [4.0]).counts.tolist() == [1, 3]
