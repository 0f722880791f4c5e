"""Which devices replicas sit on: what is said to fit can be seated, and what is said not to cannot."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.allocation.capacity import Capacity, Node, Pool
from headgate.allocation.packing import Board, fits_devices, share_alone
from headgate.allocation.pipeline import Configuration


def place(devices: int) -> Capacity:
    node = Node(name="n", devices=tuple(range(devices)), share=float(devices), memory_bytes=10**9)
    return Capacity(pools=(Pool(name="cpu", kind="cpu", nodes=(node,)),))


def of(share: float) -> Configuration:
    return Configuration(key=str(share), pool="cpu", share=share, slots=1, memory_bytes=1)


def can_be_seated(devices: int, shares: list[float]) -> bool:
    """Whether any way to put the shares on devices works; all are tried."""
    ways = itertools.product(range(devices), repeat=len(shares))
    loads = (
        [sum(share for share, at in zip(shares, way, strict=True) if at == d) for d in range(devices)] for way in ways
    )
    return any(max(load, default=0.0) <= 1.0 + 1e-9 for load in loads)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 3), st.lists(st.sampled_from([0.1, 0.25, 0.4, 0.5, 0.55, 0.7, 1.0]), max_size=6))
def test_what_is_said_to_fit_does_and_one_size_is_told_exactly(devices: int, shares: list[float]) -> None:
    counts = [(of(share), shares.count(share)) for share in sorted(set(shares))]
    fits = fits_devices(place(devices), counts)
    assert not fits or can_be_seated(devices, shares)
    if len(set(shares)) == 1:
        assert fits == can_be_seated(devices, shares)


@pytest.mark.parametrize(
    ("shares", "fits"), [([0.9, 0.9, 0.1, 0.1], True), ([0.9, 0.9, 0.2], False), ([0.55] * 3, False)]
)
def test_sizes_that_suit_each_other_share_a_device(shares: list[float], fits: bool) -> None:
    assert fits_devices(place(2), [(of(share), shares.count(share)) for share in sorted(set(shares))]) is fits


def test_whole_devices_take_as_many_as_they_name() -> None:
    assert fits_devices(place(4), [(of(2.0), 2)]) and not fits_devices(place(4), [(of(2.0), 1), (of(1.0), 3)])


@pytest.mark.parametrize("share", [0.1, 0.25, 1 / 3, 0.4, 0.6, 1.0, 2.0])
def test_alone_a_share_takes_what_a_board_gives_it(share: float) -> None:
    board = Board(place(4))
    seated = sum(board.seat("a", of(share)) is not None for _ in range(64))
    assert seated == math.floor(4 / share_alone(share) + 1e-9)
