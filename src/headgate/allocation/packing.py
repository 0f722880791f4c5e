"""Which devices a replica sits on. Fractions share a device, whole ones do not; nobody who sits is moved.

A board knows claimed seats and standing replicas (present, but not yet claimed by anyone). A new seat goes
where nobody stands, and only if there is no such place, where the least important replicas stand. Of several places it
takes one that leaves as much room for big replicas, then the emptiest: a core's idle time is used by who sits there.
Warm replicas stand nowhere: their memory is what seats leave.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from headgate.allocation.capacity import PARTS, Capacity, Node, count_parts
from headgate.allocation.pipeline import Configuration, PipelineSpec
from headgate.allocation.room import Placed, Room, share_of
from headgate.allocation.state import Running, Seat
from headgate.core.errors import FloorsDoNotFit

_Place = tuple[float, int, int, tuple[int, ...]]
"""A place for a new replica, the best first: the cost of whom it sends away, how many big replicas fewer find room,
less the thousandths of a device that are left there, and the devices."""


class Board:
    """The seats of one capacity while an allocation is being made."""

    def __init__(self, capacity: Capacity, running: Iterable[Running] = (), *, biggest: float = 1.0) -> None:
        """Start with nothing claimed and everyone of `running` standing where it is.

        `biggest` is the largest share of a device that anybody may ask for.
        """
        self._biggest = count_parts(min(1.0, biggest))
        self._pools = {pool.name: [Room(pool.name, node) for node in pool.nodes] for pool in capacity.pools}
        self._rooms = {(name, room.node.name): room for name, rooms in self._pools.items() for room in rooms}
        self._watts = {pool.name: pool.watts or 0.0 for pool in capacity.pools}
        self._watts_left = math.inf if capacity.watts is None else capacity.watts
        self.seats: list[Seat] = []
        for one in running:
            room = self._rooms.get((one.pool, one.node))
            if room is not None and one.stage != "warm":
                room.stand(one)

    def enter(self, one: Placed) -> None:
        """Count `one` as there, whether it fits or not."""
        room = self._rooms.get((one.pool, one.node))
        if room is not None:
            room.claimed.add(one, one.devices)
            self._watts_left -= share_of(one) * self._watts[one.pool]

    def strike(self, one: Placed) -> None:
        """Count `one`, that was entered, as gone."""
        room = self._rooms.get((one.pool, one.node))
        if room is not None:
            room.claimed.add(one, one.devices, -1)
            self._watts_left += share_of(one) * self._watts[one.pool]

    def fits(self, one: Placed) -> bool:
        """Whether `one` fits in its place beside all that is claimed or entered."""
        room = self._rooms.get((one.pool, one.node))
        return room is not None and self._powers(one.pool, share_of(one)) and room.fits(one, one.devices)

    def rest(self, replica: Running) -> bool:
        """Claim the memory of a replica, and nothing else, if there is that much beside all that is claimed."""
        room = self._rooms.get((replica.pool, replica.node))
        warm = replica if replica.stage == "warm" else replace(replica, stage="warm")
        if room is None or not room.fits(warm, warm.devices):
            return False
        room.leave(replica.id)
        room.claimed.add(warm, warm.devices)
        return True

    def cache(self, pool: str, file_bytes: int) -> bool:
        """Claim memory for a file on every node of the pool, if each has that much beside all that is claimed.

        Beside devices with memory of their own it takes none of theirs: a file sleeps in the machine's.
        """
        rooms = self._pools.get(pool, [])
        if all(room.node.device_memory_bytes is not None for room in rooms):
            return bool(rooms)
        if not all(room.claimed.bytes_total + file_bytes <= room.node.memory_bytes for room in rooms):
            return False
        for room in rooms:
            room.claimed.bytes_total += file_bytes
        return bool(rooms)

    def claim(self, replica: Running) -> Seat | None:
        """The seat of a replica that stands; None when its place is taken or gone."""
        room = self._rooms.get((replica.pool, replica.node))
        if room is None or replica.id not in room.standing:
            return None
        if not self._powers(replica.pool, replica.share) or not room.fits(replica, replica.devices):
            return None
        room.leave(replica.id)
        return self._take(room, replica.pipeline, replica.configuration, replica, replica.devices, replica.id)

    def seat(
        self,
        pipeline: str,
        configuration: Configuration,
        costs: Mapping[str, float] | None = None,
        *,
        evict: bool = True,
        wakes: Running | None = None,
    ) -> Seat | None:
        """A seat for a new replica, or for the warm one that `wakes` in it; None when there is none.

        `costs` says how bad it is to send away each standing replica (by id; 0 when not named). A warm one goes to any
        devices of its node, but where they hold its memory to none but its own.
        """
        costs = costs or {}
        rooms = self._pools.get(configuration.pool, [])
        if wakes is not None:
            rooms = [room.part_for(wakes) for room in rooms if room.node.name == wakes.node]
        if not rooms or not self._powers(configuration.pool, configuration.share):
            return None
        for find in (self._find_free, self._find_taken) if evict else (self._find_free,):
            best: tuple[_Place, Room] | None = None
            for room in rooms:
                place = find(room, configuration, costs)
                if place is not None and (best is None or place < best[0]):
                    best = place, room
            if best is not None:
                replica = None if wakes is None else wakes.id
                return self._take(best[1], pipeline, configuration.key, configuration, best[0][-1], replica)
        return None

    def settle(self, seat: Seat, own: Iterable[Running]) -> Seat:
        """`seat` with the replica of `own` that already sits just there, if one does."""
        for one in own:
            if (one.pool, one.node, one.devices) == (seat.pool, seat.node, seat.devices):
                room = self._rooms[(seat.pool, seat.node)]
                if room.leave(one.id) is not None:
                    settled = replace(seat, replica=one.id)
                    self.seats[self.seats.index(seat)] = settled
                    return settled
        return seat

    def _powers(self, pool: str, share: float) -> bool:
        """Whether so many more devices of a pool stay within the limit of power."""
        return share * self._watts[pool] <= self._watts_left + 1e-9

    def _find_free(self, room: Room, size: Configuration, costs: Mapping[str, float]) -> _Place | None:
        """The best place in the room where nobody stands, if there is one."""
        if not room.holds(size, room.stood):
            return None
        claimed, stood, limit = room.claimed, room.stood, room.node.device_memory_bytes
        parts = count_parts(min(1.0, size.share))
        best: _Place | None = None
        # Why not `fits` of each single device: a new seat looks at all devices of its pool.
        if size.share <= 1:
            for device in room.node.devices:
                left = PARTS - claimed.parts[device] - stood.parts[device]
                if left < parts:
                    continue
                if limit is not None and claimed.bytes[device] + stood.bytes[device] + size.memory_bytes > limit:
                    continue
                spoiled = left // self._biggest - (left - parts) // self._biggest
                place = 0.0, spoiled, -left, (device,)
                if best is None or place < best:
                    best = place
            return best
        for devices in _places(room, size.share, costs):
            if room.fits(size, devices, stood):
                left = room.left(devices)
                best = 0.0, left // self._biggest - (left - parts) // self._biggest, -left, devices
        return best

    def _find_taken(self, room: Room, size: Configuration, costs: Mapping[str, float]) -> _Place | None:
        """The place in the room where those who stand there and have no seat are the least bad to send away."""
        if not room.holds(size):
            return None
        best: _Place | None = None
        for devices in _places(room, size.share, costs):
            if room.fits(size, devices):
                place = self._cost_of_taking(room, devices, size, costs), 0, -room.left(devices), devices
                if best is None or place < best:
                    best = place
        return best

    def _cost_of_taking(
        self, room: Room, devices: tuple[int, ...], size: Configuration, costs: Mapping[str, float]
    ) -> float:
        """What it costs to send away those who stand on `devices`, the least bad first, until there is room."""
        # Why not whom else memory or quota would send away: that is the same wherever on this node the seat is.
        gone = 1e-6
        room_left = {device: room.left((device,)) for device in devices}
        need = count_parts(size.share) if len(devices) == 1 else PARTS
        here = {name: one for device in devices for name, one in room.on[device].items()}
        for one in sorted(here.values(), key=lambda one: (costs.get(one.id, 0.0), one.id)):
            if all(space >= need for space in room_left.values()):
                break
            gone += 1e-6 + costs.get(one.id, 0.0)
            for device in room_left:
                if device in one.devices:
                    room_left[device] += count_parts(one.share) if len(one.devices) == 1 else PARTS
        return gone

    def _take(
        self,
        room: Room,
        pipeline: str,
        key: str,
        size: Configuration | Running,
        devices: tuple[int, ...],
        replica: str | None,
    ) -> Seat:
        room.claimed.add(size, devices)
        self._watts_left -= size.share * self._watts[room.pool]
        seat = Seat(
            pipeline=pipeline,
            configuration=key,
            pool=room.pool,
            node=room.node.name,
            devices=devices,
            share=size.share,
            memory_bytes=size.memory_bytes,
            replica=replica,
        )
        self.seats.append(seat)
        return seat


def check_floors(capacity: Capacity, pipelines: Sequence[PipelineSpec]) -> None:
    """Return when every pipeline can have its floor at once, and one replica of each of its configurations fits alone.

    Raises FloorsDoNotFit with the pipeline and the cure.
    """
    for spec, configuration in ((one, way) for one in pipelines for way in one.configurations):
        pool = capacity.pool(configuration.pool)
        if pool is None:
            raise FloorsDoNotFit(
                f"pipelines.{spec.name}: its pool {configuration.pool!r} is not declared; "
                f"declared are {', '.join(sorted(one.name for one in capacity.pools)) or 'none'}",
                param=f"pipelines.{spec.name}",
            )
        if Board(capacity).seat(spec.name, configuration) is None:
            raise FloorsDoNotFit(_explain_alone(spec.name, configuration, pool.nodes), param=f"pipelines.{spec.name}")
    board = Board(capacity)
    for spec in by_size(pipelines):
        for number in range(spec.floor):
            if not any(board.seat(spec.name, one) for one in spec.configurations):
                pools = " or ".join(dict.fromkeys(repr(one.pool) for one in spec.configurations))
                raise FloorsDoNotFit(
                    f"pipelines.{spec.name}.floor: the floors of all pipelines together do not fit: "
                    f"replica {number + 1} of {spec.floor} finds no place in pool "
                    f"{pools}; lower a floor, give models fewer cores or enlarge it",
                    param=f"pipelines.{spec.name}.floor",
                )


def fits_devices(capacity: Capacity, counts: Iterable[tuple[Configuration, int]]) -> bool:
    """Whether so many replicas of each configuration find devices, each pool packed from nothing; memory not counted.

    Source: best-fit decreasing (Johnson, 1973). Devices with the same room are packed together, so the time grows with
    configurations and not with devices.
    """
    ordered = sorted(((one, count) for one, count in counts if count), key=lambda pair: -pair[0].share)
    for pool in capacity.pools:
        rooms = {PARTS: sum(len(node.devices) for node in pool.nodes)}
        for one, count in ordered:
            if one.pool != pool.name:
                continue
            parts = count_parts(min(1.0, one.share))
            left = count * max(1, int(one.share))
            for room in sorted(room for room in rooms if room >= parts):
                each = room // parts
                for held, devices in ((each, min(rooms[room], left // each)), (left % each, 1)):
                    if held and devices and rooms[room] and left >= held * devices:
                        rooms[room] -= devices
                        rooms[room - held * parts] = rooms.get(room - held * parts, 0) + devices
                        left -= held * devices
            if left:
                return False
    return True


def share_alone(share: float) -> float:
    """Devices that a replica takes where only its like are beside it: of 0.6 only one sits on a device."""
    return share if share >= 1.0 else 1.0 / (PARTS // count_parts(share))


def by_size(pipelines: Iterable[PipelineSpec]) -> list[PipelineSpec]:
    """Largest replicas first. Source: first-fit decreasing packs best among the simple rules (Johnson,
    1973).
    """
    return sorted(
        pipelines,
        key=lambda spec: (-spec.configurations[0].share, -spec.configurations[0].memory_bytes, spec.name),
    )


def _explain_alone(name: str, configuration: Configuration, nodes: Sequence[Node]) -> str:
    if configuration.share > 1 and configuration.share != int(configuration.share):
        return f"pipelines.{name}: {configuration.share} cores per replica; above 1 it must be a whole number"
    memory = max((node.device_memory_bytes or node.memory_bytes for node in nodes), default=0)
    if configuration.memory_bytes > memory:
        return (
            f"pipelines.{name}: one replica needs {configuration.memory_bytes} bytes and the largest node "
            f"of pool {configuration.pool!r} has {memory}; {configuration.memory_bytes - memory} missing: "
            "use less context, fewer slots or a smaller version"
        )
    share = max((node.share for node in nodes), default=0.0)
    return (
        f"pipelines.{name}: one replica needs {configuration.share} cores and the largest node of pool "
        f"{configuration.pool!r} has {share}; lower the model's cores"
    )


def _places(room: Room, share: float, costs: Mapping[str, float]) -> Iterable[tuple[int, ...]]:
    """Device sets worth a look: each single one for a fraction, the cheapest empty ones for whole devices."""
    if share <= 1:
        return [(device,) for device in room.node.devices]
    count = int(share)
    if count != share:
        return []

    def price(device: int) -> tuple[float, int]:
        return (sum(1e-6 + costs.get(name, 0.0) for name in room.on[device]), device)

    empty = sorted((device for device in room.node.devices if room.claimed.parts[device] == 0), key=price)
    return [tuple(sorted(empty[:count]))] if len(empty) >= count else []
