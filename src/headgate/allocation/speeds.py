"""How fast a pipeline's configurations serve beside each other: as profiled, corrected by what was seen."""

from __future__ import annotations

from collections.abc import Mapping

from headgate.allocation.pipeline import Configuration
from headgate.allocation.wants import profiled_s, slow_down

NO_CORRECTIONS: Mapping[str, float] = {}


def relative_speed(
    base: Configuration, other: Configuration, corrections: Mapping[str, float] = NO_CORRECTIONS
) -> float:
    """How many replicas of `base` one of `other` is worth: by what was measured of both, else by slots, and by how
    much longer than that requests are seen to take in each (`corrections` by configuration key).
    """
    if base is other:
        return 1.0
    told = _relative_speed_profiled(base, other)
    # Why both: what one alone is off by may be the pipeline's requests and not its replicas.
    if base.key in corrections and other.key in corrections:
        told *= corrections[base.key] / corrections[other.key]
    return told


def expect_s(base: Configuration, one: Configuration, at_once: float) -> float:
    """Seconds that a request should take in `one` beside `at_once` - 1 others, by profiles alone.

    Why by way of `base`, the pipeline's first: profiles may tell of tokens or of whole requests or of nothing, and a
    correction must be of the same speed that it will correct.
    """
    alone_s = profiled_s(base.profile)
    if one is base:
        return alone_s * _slow_at(base, at_once)
    full_s = one.slots / _relative_speed_profiled(base, one) * alone_s * _slow_at(base, base.slots) / base.slots
    return full_s * _slow_at(one, at_once) / _slow_at(one, one.slots)


def _relative_speed_profiled(base: Configuration, other: Configuration) -> float:
    ours, theirs = base.profile, other.profile
    if ours.decode_tokens_per_s and theirs.decode_tokens_per_s:
        return max(theirs.decode_tokens_per_s)[1] / max(ours.decode_tokens_per_s)[1]
    if ours.service_s and theirs.service_s:
        return ours.service_s / theirs.service_s * other.slots / base.slots
    return other.slots / base.slots


def _slow_at(one: Configuration, at_once: float) -> float:
    """How many times as long as alone a request takes with so many at once, on a straight line between whole ones."""
    slow = slow_down(one.profile, one.slots)
    place = min(max(at_once, 1.0), float(len(slow))) - 1.0
    left = min(int(place), len(slow) - 1)
    right = min(left + 1, len(slow) - 1)
    return slow[left] + (place - left) * (slow[right] - slow[left])
