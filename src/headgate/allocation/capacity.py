"""What there is to give: pools of devices on nodes. A device is one CPU core or one GPU."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

PARTS = 1000  # shares are counted in thousandths of a device: whole numbers add up, floats do not


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One machine's part of one pool.

    `devices` are numbers of CPU cores or GPUs; `share` is how many devices' worth may be used together (a
    cgroup quota can be smaller than the number of cores); `memory_bytes` is for all replicas here,
    `device_memory_bytes` for those of each single device (GPUs; None where devices share the node's memory).
    """

    name: str
    devices: tuple[int, ...]
    share: float
    memory_bytes: int
    device_memory_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Devices of one kind. `price_per_hour` is money for one device, `watts` what one draws when busy; None: not known.

    An `elastic` pool is paid for by what is used of it; a fixed one is paid for anyway.
    """

    name: str
    kind: Literal["cpu", "gpu"]
    nodes: tuple[Node, ...]
    price_per_hour: float | None = None
    watts: float | None = None
    elastic: bool = False

    @property
    def rented(self) -> bool:
        """Whether holding a device costs money by the hour, and holding none costs nothing."""
        return self.elastic and bool(self.price_per_hour)

    @property
    def share(self) -> float:
        """Devices' worth of all nodes together."""
        return sum(node.share for node in self.nodes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """Everything that may be given out. All devices in use may draw `watts` together; None: no limit."""

    pools: tuple[Pool, ...]
    watts: float | None = None

    def pool(self, name: str) -> Pool | None:
        """The pool of that name, if there is one."""
        return next((pool for pool in self.pools if pool.name == name), None)


@lru_cache(maxsize=1024)
def count_parts(share: float) -> int:
    """`share` devices in thousandths, rounded up so that what fits by parts fits by share too."""
    whole = int(share * PARTS)
    return whole if share * PARTS - whole < 1e-6 else whole + 1
