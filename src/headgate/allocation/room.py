"""What the replicas of one node hold of one pool: devices in thousandths, bytes on each device and in all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import replace

from headgate.allocation.capacity import PARTS, Node, count_parts
from headgate.allocation.pipeline import Configuration
from headgate.allocation.state import Running, Seat

Placed = Running | Seat


class Books:
    """What some replicas hold of one node: thousandths and bytes on each device, and in all."""

    def __init__(self, devices: Iterable[int]) -> None:
        self.parts: dict[int, int] = dict.fromkeys(devices, 0)
        self.bytes: dict[int, int] = dict.fromkeys(self.parts, 0)
        self.parts_total = 0
        self.bytes_total = 0

    def add(self, one: Placed | Configuration, devices: Sequence[int], sign: int = 1) -> None:
        """Enter a replica on `devices`, or strike it off with `sign` -1. Devices that are gone are left out."""
        share = share_of(one)
        parts, memory = sign * count_parts(share), sign * one.memory_bytes
        on_each = parts if len(devices) == 1 or not share else sign * PARTS
        memory_each = sign * (one.memory_bytes // max(1, len(devices)))
        for device in devices:
            if device in self.parts:
                self.parts[device] += on_each
                self.bytes[device] += memory_each
        self.parts_total += parts
        self.bytes_total += memory


class Room:
    """One node of one pool: the books of what is claimed, and who stands where."""

    def __init__(self, pool: str, node: Node) -> None:
        self.pool = pool
        self.node = node
        self.parts = count_parts(node.share)
        self.claimed = Books(node.devices)
        self.stood = Books(node.devices)
        self.standing: dict[str, Running] = {}
        self.on: dict[int, dict[str, Running]] = {device: {} for device in node.devices}

    def stand(self, one: Running) -> None:
        """Enter a replica that is there and has no claim yet."""
        self.standing[one.id] = one
        self.stood.add(one, one.devices)
        for device in one.devices:
            self.on.setdefault(device, {})[one.id] = one

    def leave(self, replica: str) -> Running | None:
        """Strike off a replica that stands; None when it does not."""
        one = self.standing.pop(replica, None)
        if one is not None:
            self.stood.add(one, one.devices, -1)
            for device in one.devices:
                del self.on[device][replica]
        return one

    def part_for(self, warm: Running) -> Room:
        """The room, with those of its devices alone on which a warm replica of this node can serve; the same books."""
        if self.node.device_memory_bytes is None:
            return self
        part = copy(self)
        part.node = replace(self.node, devices=warm.devices)
        return part

    def left(self, devices: Sequence[int]) -> int:
        """Thousandths that are free on the fullest of `devices`; below 0 where more stand than have room."""
        return min(PARTS - self.claimed.parts[device] - self.stood.parts[device] for device in devices)

    def holds(self, size: Placed | Configuration, beside: Books | None = None) -> bool:
        """Whether the node has quota and memory for a replica of that size, whichever devices it sits on: see fits."""
        total = self.claimed.parts_total + count_parts(share_of(size))
        memory = self.claimed.bytes_total + size.memory_bytes
        if beside is not None:
            total, memory = total + beside.parts_total, memory + beside.bytes_total
        return total <= self.parts and memory <= self.node.memory_bytes

    def fits(self, size: Placed | Configuration, devices: Sequence[int], beside: Books | None = None) -> bool:
        """Whether a replica of that size fits on `devices` next to all that is claimed and all that is `beside`."""
        if not self.holds(size, beside):
            return False
        claimed = self.claimed
        share = share_of(size)
        need = count_parts(share) if len(devices) == 1 or not share else PARTS
        limit = self.node.device_memory_bytes
        for device in devices:
            if device not in claimed.parts:
                return False
            used = claimed.parts[device] + (beside.parts[device] if beside is not None else 0)
            if used + need > PARTS:
                return False
            if limit is not None:
                held = claimed.bytes[device] + (beside.bytes[device] if beside is not None else 0)
                if held + size.memory_bytes // len(devices) > limit:
                    return False
        return True


def share_of(one: Placed | Configuration) -> float:
    """Devices' worth that it takes: none while it is warm."""
    return one.share if isinstance(one, Configuration) else one.share_now
