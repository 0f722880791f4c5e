"""Quantities as people write them: '8GiB', '1.5s', '250ms'."""

from __future__ import annotations

import re

_BYTES = {
    "": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40, "K": 2**10, "M": 2**20, "G": 2**30,
}  # fmt: skip
_SECONDS = {"": 1.0, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_QUANTITY = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*")


def parse_bytes(text: str | int) -> int:
    """Bytes in '8GiB', '500 MB' or a plain number. Raises ValueError naming the cure."""
    match = _QUANTITY.fullmatch(str(text))
    if not match or match[2].upper() not in _BYTES:
        raise ValueError(f"{text!r} is not a size; write a number with B, MB, GB, MiB or GiB, such as 8GiB")
    return int(float(match[1]) * _BYTES[match[2].upper()])


def parse_seconds(text: str | float) -> float:
    """Seconds in '250ms', '1.5s', '10m' or a plain number. Raises ValueError naming the cure."""
    match = _QUANTITY.fullmatch(str(text))
    if not match or match[2] not in _SECONDS:
        raise ValueError(f"{text!r} is not a duration; write a number with ms, s, m, h or d, such as 30s")
    return float(match[1]) * _SECONDS[match[2]]


def format_bytes(count: float) -> str:
    """`count` bytes for people: '1.5 GiB'."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024 or unit == "GiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError
