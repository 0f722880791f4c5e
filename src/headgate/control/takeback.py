"""Draining replicas that are wanted again: they get the seats on which others of their kind would be started.

Pure. That which drains may still have streams, has its model loaded and holds its capacity anyway.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from headgate.allocation.capacity import Capacity
from headgate.allocation.packing import Board
from headgate.allocation.state import Running, Seat
from headgate.control.fleets.fleet import Member


def find_able(members: Iterable[Member], lost: Collection[str]) -> set[str]:
    """The ids of draining replicas that could serve on: ready before, and not `lost` (being stopped, or failing)."""
    return {one.id for one in members if one.stage == "draining" and one.loaded and one.id not in lost}


def find_restful(members: Iterable[Member], lost: Collection[str], resting: Collection[str]) -> set[str]:
    """Those of `resting` (ids) that are loaded and not `lost`: only they can stay so."""
    return {one.id for one in members if one.id in resting and one.loaded and one.id not in lost}


def seat_draining(
    seats: Sequence[Seat], running: Sequence[Running], able: Collection[str], capacity: Capacity
) -> tuple[Seat, ...]:
    """`seats`, where replicas of `able` (ids) take those that are to be started with their configuration.

    One comes back where it sits, so it does only where it fits beside all other seats. The busiest come first.
    """
    seated = list(seats)
    board = Board(capacity)
    for seat in seated:
        board.enter(seat)
    for one in sorted((one for one in running if one.id in able), key=lambda one: (-one.in_flight, one.id)):
        number = _find_seat(seated, one)
        if number is None:
            continue
        board.strike(seated[number])
        if board.fits(one):
            seated[number] = replace(
                seated[number],
                node=one.node,
                devices=one.devices,
                share=one.share,
                memory_bytes=one.memory_bytes,
                replica=one.id,
            )
        board.enter(seated[number])
    return tuple(seated)


def _find_seat(seats: Sequence[Seat], one: Running) -> int | None:
    """The number of a free seat of its kind, best the one where it sits."""
    free = [
        number
        for number, seat in enumerate(seats)
        if seat.replica is None
        and (seat.pipeline, seat.configuration, seat.pool) == (one.pipeline, one.configuration, one.pool)
    ]
    return min(
        free, key=lambda number: (seats[number].node, seats[number].devices) != (one.node, one.devices), default=None
    )
