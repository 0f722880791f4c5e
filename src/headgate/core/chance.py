"""Chance, injected. Secrets come from the system; everything that should replay comes from a seed."""

from __future__ import annotations

import os
import random
from typing import Protocol


class Chance(Protocol):
    """Where randomness comes from."""

    def token_bytes(self, count: int) -> bytes:
        """`count` random bytes."""
        ...

    def uniform(self, low: float, high: float) -> float:
        """A number between `low` and `high`."""
        ...


class SystemChance:
    """The operating system's randomness: for keys, secrets and ids."""

    def token_bytes(self, count: int) -> bytes:
        return os.urandom(count)

    def uniform(self, low: float, high: float) -> float:
        return random.SystemRandom().uniform(low, high)


class SeededChance:
    """Repeatable chance: the same seed gives the same draws. Never for secrets."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def token_bytes(self, count: int) -> bytes:
        return self._random.randbytes(count)

    def uniform(self, low: float, high: float) -> float:
        return self._random.uniform(low, high)
