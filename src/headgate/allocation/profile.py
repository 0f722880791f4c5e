"""What was measured of one version on one engine and device."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Measured speed of (version, engine, device). None and () mean: not measured.

    `service_s` is seconds of one typical request alone on one replica; `load_s` from start to a real token;
    `memory_bytes` the resident peak of a replica; `decode_tokens_per_s` has (requests at once, tokens/s
    together).
    """

    service_s: float | None = None
    load_s: float | None = None
    memory_bytes: int | None = None
    prefill_tokens_per_s: float | None = None
    decode_tokens_per_s: tuple[tuple[int, float], ...] = ()
    watts: float | None = None
