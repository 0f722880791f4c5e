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
from headgate.allocation.state import Running


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


SHARES = st.sampled_from([0.1, 0.25, 0.4, 0.5, 0.6, 1.0])


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 2), SHARES, st.booleans()), max_size=10),
    st.lists(SHARES, min_size=1, max_size=6),
    st.booleans(),
)
def test_a_new_seat_is_the_best_of_all_places(
    there: list[tuple[int, int, float, bool]], shares: list[float], evict: bool
) -> None:
    """All devices are looked at here, one by one, with books of their own."""
    nodes = [
        Node(name=f"n{number}", devices=(0, 1, 2), share=2.5, memory_bytes=9, device_memory_bytes=4)
        for number in (0, 1)
    ]
    running = [
        Running(
            id=f"r{number}", pipeline="a", configuration="c", pool="cpu", node=f"n{node}", devices=(device,),
            share=share, memory_bytes=1, stage="ready",
        )
        for number, (node, device, share, _) in enumerate(there)
    ]  # fmt: skip
    costs = {one.id: float(number % 3) for number, one in enumerate(running)}
    board = Board(Capacity(pools=(Pool(name="cpu", kind="cpu", nodes=tuple(nodes)),)), running, biggest=0.5)
    claimed = [board.claim(one) for one, (*_, stays) in zip(running, there, strict=True) if stays]
    seats = [one for one in claimed if one is not None]
    standing = [one for one in running if one.id not in {seat.replica for seat in seats}]
    for share in shares:
        seat = board.seat("b", of(share), costs, evict=evict)
        best = min(priced(nodes, seats, standing, costs, share, evict), default=None)
        assert (None if seat is None else (seat.node, seat.devices[0])) == (best and best[-2:])
        if seat is not None:
            seats.append(seat)


def priced(nodes, seats, standing, costs, share, evict) -> list[tuple]:
    """Each place where a share fits beside the seats: what it costs, then what is left there, then where it is."""
    places = []
    for node, device in itertools.product(nodes, range(3)):
        mine, others = ([one for one in some if one.node == node.name] for some in (seats, standing))
        on, by = ([one for one in some if one.devices == (device,)] for some in (mine, others))

        def fits(here, on, share=share):
            total, used = (round(1000 * (share + sum(one.share for one in some))) for some in (here, on))
            return total <= 2500 and used <= 1000 and len(here) < 9 and len(on) < 4

        if not fits(mine, on):
            continue
        left = 1000 - round(1000 * sum(one.share for one in on + by))
        if fits(mine + others, on + by):
            spoiled = left // 500 - (left - round(1000 * share)) // 500
            places.append((0.0, spoiled, -left, device, node.name, device))
        elif evict:
            gone, room = 1e-6, left
            for one in sorted(by, key=lambda one: (costs[one.id], one.id)):
                if room >= round(1000 * share):
                    break
                gone, room = gone + (1e-6 + costs[one.id]), room + round(1000 * one.share)
            places.append((gone, 0, -left, device, node.name, device))
    return places
