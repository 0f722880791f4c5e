"""What was measured of one version on one engine and device, run one way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Rest:
    """One state a replica may rest in: the memory it holds there, and the seconds until it gives a token."""

    state: Literal["off", "asleep", "warm", "serving"]
    memory_bytes: int | None
    wake_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Measured speed of (version, engine, options, device). None and () mean: not measured.

    `service_s` is seconds of one typical request alone on one replica, `variation` the squared coefficient of variation
    of that; `slow` has (requests at once, times as long as alone); `first_token_s` the first token's time alone.
    `load_s` is from start to a real token with the model's bytes in the page cache, `load_cold_s` with them on disk
    only. `memory_bytes` is the resident peak of a replica, `warm_bytes` its fair part of memory while it is loaded and
    idle, `file_bytes` what the page cache holds of it. `decode_tokens_per_s` has (requests at once, tokens/s together);
    `watts` is what a replica with all its slots busy draws beyond an idle machine.
    """

    service_s: float | None = None
    variation: float | None = None
    slow: tuple[tuple[int, float], ...] = ()
    first_token_s: float | None = None
    load_s: float | None = None
    load_cold_s: float | None = None
    memory_bytes: int | None = None
    warm_bytes: int | None = None
    file_bytes: int | None = None
    prefill_tokens_per_s: float | None = None
    decode_tokens_per_s: tuple[tuple[int, float], ...] = ()
    watts: float | None = None

    def slow_by_slot(self, slots: int) -> tuple[float, ...]:
        """How many times as long a request takes with 1, 2, ... `slots` at once, as punctuality.Service wants it.

        Straight lines between what was measured, level beyond; (1.0,) when nothing was. Where whole requests were not
        measured, their decoding tells: k requests at a speed of d(k) together each take k d(1) / d(k) times as long.
        """
        known = self.slow
        if not known and self.decode_tokens_per_s and self.decode_tokens_per_s[0][0] == 1:
            alone = self.decode_tokens_per_s[0][1]
            known = tuple((count, count * alone / speed) for count, speed in self.decode_tokens_per_s)
        if not known:
            return (1.0,)
        told: list[float] = []
        for count in range(1, slots + 1):
            # Why never falling: a replica with more to do is no faster, and noise must not say so.
            told.append(max(_between(known, count), told[-1] if told else 1.0))
        return tuple(told)

    def rests(self) -> tuple[Rest, ...]:
        """The states a replica may rest in, the least ready first."""
        return (
            Rest(state="off", memory_bytes=0, wake_s=self.load_cold_s),
            Rest(state="asleep", memory_bytes=self.file_bytes, wake_s=self.load_s),
            Rest(state="warm", memory_bytes=self.warm_bytes, wake_s=0.0),
            Rest(state="serving", memory_bytes=self.memory_bytes, wake_s=0.0),
        )


def _between(points: tuple[tuple[int, float], ...], count: int) -> float:
    """The value at `count` on straight lines through `points`, which rise in their first place."""
    before = points[0]
    for point in points:
        if point[0] >= count:
            if point[0] == before[0]:
                return point[1]
            part = (count - before[0]) / (point[0] - before[0])
            return before[1] + part * (point[1] - before[1])
        before = point
    return before[1]
