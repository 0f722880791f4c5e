"""Which devices a replica sits on. Fractions share a device, whole ones do not; nobody who sits is moved.

A board knows claimed seats and standing replicas (present, but not yet claimed by anyone). A new seat goes
where nobody stands, and only if there is no such place, where the least important replicas stand.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from headgate.allocation.capacity import PARTS, Capacity, Node, count_parts
from headgate.allocation.pipeline import Configuration, PipelineSpec
from headgate.allocation.state import Running, Seat
from headgate.core.errors import FloorsDoNotFit


class _Room:
    """One node of one pool: what is claimed and who stands where. Shares in thousandths, memory in bytes."""

    def __init__(self, pool: str, node: Node) -> None:
        self.pool = pool
        self.node = node
        self.parts = count_parts(node.share)
        self.claimed = dict.fromkeys(node.devices, 0)
        self.claimed_bytes = dict.fromkeys(node.devices, 0)
        self.claimed_parts_total = 0
        self.claimed_bytes_total = 0
        self.standing: dict[str, Running] = {}

    def take(self, devices: Sequence[int], share: float, memory_bytes: int) -> None:
        parts = count_parts(share)
        for device in devices:
            self.claimed[device] += parts if len(devices) == 1 else PARTS
            self.claimed_bytes[device] += memory_bytes // len(devices)
        self.claimed_parts_total += parts
        self.claimed_bytes_total += memory_bytes

    def fits(self, devices: Sequence[int], share: float, memory_bytes: int, beside: Iterable[Running] = ()) -> bool:
        """Whether a replica fits on `devices` next to all that is claimed and all of `beside`."""
        parts = count_parts(share)
        others = list(beside)
        total = self.claimed_parts_total + sum(count_parts(one.share) for one in others)
        bytes_total = self.claimed_bytes_total + sum(one.memory_bytes for one in others)
        if total + parts > self.parts or bytes_total + memory_bytes > self.node.memory_bytes:
            return False
        need = parts if len(devices) == 1 else PARTS
        limit = self.node.device_memory_bytes
        for device in devices:
            here = [one for one in others if device in one.devices]
            used = sum(_parts_on(one) for one in here)
            if device not in self.claimed or self.claimed[device] + used + need > PARTS:
                return False
            held = self.claimed_bytes[device] + sum(one.memory_bytes // len(one.devices) for one in here)
            if limit is not None and held + memory_bytes // len(devices) > limit:
                return False
        return True


class Board:
    """The seats of one capacity while an allocation is being made."""

    def __init__(self, capacity: Capacity, running: Iterable[Running] = ()) -> None:
        """Start with nothing claimed and everyone of `running` standing where it is."""
        self._rooms = {(pool.name, node.name): _Room(pool.name, node) for pool in capacity.pools for node in pool.nodes}
        self.seats: list[Seat] = []
        for one in running:
            room = self._rooms.get((one.pool, one.node))
            if room is not None:
                room.standing[one.id] = one

    def occupy(self, one: Running | Seat) -> bool:
        """Claim exactly the place of `one`, standing or not; False when it does not fit there."""
        room = self._rooms.get((one.pool, one.node))
        if room is None or not room.fits(one.devices, one.share, one.memory_bytes):
            return False
        room.take(one.devices, one.share, one.memory_bytes)
        return True

    def claim(self, replica: Running) -> Seat | None:
        """The seat of a replica that stands; None when its place is taken or gone."""
        room = self._rooms.get((replica.pool, replica.node))
        if room is None or replica.id not in room.standing:
            return None
        if not room.fits(replica.devices, replica.share, replica.memory_bytes):
            return None
        del room.standing[replica.id]
        return self._take(room, replica.pipeline, replica.configuration, replica, replica.devices, replica.id)

    def seat(
        self,
        pipeline: str,
        configuration: Configuration,
        costs: Mapping[str, float] | None = None,
        *,
        evict: bool = True,
    ) -> Seat | None:
        """A seat for a new replica, or None when there is none.

        `costs` says how bad it is to send away each standing replica (by id; 0 when not named).
        """
        costs = costs or {}
        rooms = [room for room in self._rooms.values() if room.pool == configuration.pool]
        best: tuple[tuple[float, ...], _Room, tuple[int, ...]] | None = None
        for room in rooms:
            for devices in _places(room, configuration.share, costs):
                price = self._price(room, devices, configuration, costs)
                if price is None or (price[0] > 0 and not evict):
                    continue
                if best is None or price < best[0]:
                    best = (price, room, devices)
        if best is None:
            return None
        return self._take(best[1], pipeline, configuration.key, configuration, best[2], None)

    def settle(self, seat: Seat, own: Iterable[Running]) -> Seat:
        """`seat` with the replica of `own` that already sits just there, if one does."""
        for one in own:
            if (one.pool, one.node, one.devices) == (seat.pool, seat.node, seat.devices):
                room = self._rooms[(seat.pool, seat.node)]
                if room.standing.pop(one.id, None) is not None:
                    settled = replace(seat, replica=one.id)
                    self.seats[self.seats.index(seat)] = settled
                    return settled
        return seat

    def _price(
        self, room: _Room, devices: tuple[int, ...], configuration: Configuration, costs: Mapping[str, float]
    ) -> tuple[float, ...] | None:
        """What this place costs, cheapest first: replicas sent away and their cost, then room left over."""
        share, memory = configuration.share, configuration.memory_bytes
        if not room.fits(devices, share, memory):
            return None
        left = PARTS - max(room.claimed[device] for device in devices)
        standing = sorted(room.standing.values(), key=lambda one: (costs.get(one.id, 0.0), one.id))
        used = sum(_parts_on(one) for one in standing if set(one.devices) & set(devices))
        gone = 0.0
        # Why those on the wanted devices first: sending away others frees memory, never these devices.
        for one in sorted(standing, key=lambda one: not set(one.devices) & set(devices)):
            if room.fits(devices, share, memory, standing):
                break
            standing.remove(one)
            gone += 1e-6 + costs.get(one.id, 0.0)
        return (gone, left - used, *devices)

    def _take(
        self,
        room: _Room,
        pipeline: str,
        key: str,
        size: Configuration | Running,
        devices: tuple[int, ...],
        replica: str | None,
    ) -> Seat:
        room.take(devices, size.share, size.memory_bytes)
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
    """Return when every pipeline can have its floor at once, and one replica of each fits alone.

    Raises FloorsDoNotFit with the pipeline and the cure.
    """
    for spec in pipelines:
        configuration = spec.configurations[0]
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
            if board.seat(spec.name, spec.configurations[0]) is None:
                raise FloorsDoNotFit(
                    f"pipelines.{spec.name}.floor: the floors of all pipelines together do not fit: "
                    f"replica {number + 1} of {spec.floor} finds no place in pool "
                    f"{spec.configurations[0].pool!r}; lower a floor, give models fewer cores or enlarge it",
                    param=f"pipelines.{spec.name}.floor",
                )


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


def _places(room: _Room, share: float, costs: Mapping[str, float]) -> Iterable[tuple[int, ...]]:
    """Device sets worth a look: each single one for a fraction, the cheapest empty ones for whole devices."""
    if share <= 1:
        return [(device,) for device in room.node.devices]
    count = int(share)
    if count != share:
        return []

    def price(device: int) -> tuple[float, int]:
        standing = [one for one in room.standing.values() if device in one.devices]
        return (sum(1e-6 + costs.get(one.id, 0.0) for one in standing), device)

    empty = sorted((device for device in room.node.devices if room.claimed[device] == 0), key=price)
    return [tuple(sorted(empty[:count]))] if len(empty) >= count else []


def _parts_on(one: Running) -> int:
    """Thousandths that a replica holds of each of its devices."""
    return count_parts(one.share) if len(one.devices) == 1 else PARTS
