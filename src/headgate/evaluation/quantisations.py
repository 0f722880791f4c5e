"""Other quantisations of a version: which versions are some, and what they do beside it. Advises nothing.

Why not: a quantisation changes answers, and whether that is good enough only the user's own examples tell.
"""

from __future__ import annotations

import re
import statistics
from dataclasses import dataclass
from pathlib import PurePosixPath

from headgate.core.clock import Clock
from headgate.core.model import Version
from headgate.engines.engine import ModelOptions
from headgate.evaluation.bench import Bench
from headgate.evaluation.requests import RequestWriter
from headgate.evaluation.tuning import lower_bound

_PAIRS = 6
# What the names of files say of their quantisation: -Q4_K_M, .q8_0, _IQ4_NL, -f16.
_MARK = re.compile(r"[-_.](i?q[1-8]\w*|b?f16|f32|mxfp4)(?=[-_.]|$)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """Another quantisation. `bits` a parameter; `gain` and `low` as in Comparison; `same` of `asked` greedy answers
    are those of the version it is compared with; `memory_bytes` the resident peak.
    """

    name: str
    version: str
    bits: float | None
    gain: float
    low: float
    same: int
    asked: int
    memory_bytes: int | None


def is_other_quantisation(version: Version, other: Version) -> bool:
    """Whether both are the same model, as far as shape and the name of their file tell."""
    if version.digest == other.digest or version.header is None or other.header is None:
        return False
    shapes = [
        (one.layers, one.embedding, one.feed_forward, one.heads, one.kv_heads, one.vocabulary)
        for one in (version.header, other.header)
    ]
    bare = _bare_name(version.origin)
    return shapes[0] == shapes[1] and bool(bare) and bare == _bare_name(other.origin)


def bits_of(version: Version) -> float | None:
    """Bits a parameter; None when the header does not tell."""
    if version.header is None or not version.parameters:
        return None
    return 8 * version.header.tensor_bytes / version.parameters


async def compare_versions(
    ours: Bench,
    theirs: Bench,
    options: ModelOptions,
    writer: RequestWriter,
    clock: Clock,
    *,
    name: str,
    version: Version,
    until: float,
) -> Beside | None:
    """`theirs`, which runs `version`, beside `ours` in pairs; None when time (monotonic) is up too soon.

    Raises what the benches raise.
    """
    calls = writer.write(2 * options.slots)
    mine = await ours.serve(options, calls, 1)
    others = await theirs.serve(options, calls, 1)
    same = sum(one.text == other.text for one, other in zip(mine.answers, others.answers, strict=True))
    ratios: list[float] = []
    while len(ratios) < _PAIRS and clock.monotonic() < until:
        first, second = (ours, theirs) if len(ratios) % 2 == 0 else (theirs, ours)
        one = await first.serve(options, calls, options.slots)
        other = await second.serve(options, calls, options.slots)
        ratio = one.core_s / max(other.core_s, 1e-9)
        ratios.append(ratio if first is ours else 1 / max(ratio, 1e-9))
    if not ratios:
        return None
    return Beside(
        name=name,
        version=version.digest,
        bits=bits_of(version),
        gain=statistics.median(ratios),
        low=lower_bound(ratios),
        same=same,
        asked=len(calls),
        memory_bytes=theirs.footprint(options).peak,
    )


def _bare_name(origin: str) -> str:
    """What the origin's last part is called without its quantisation: 'hf:a/b@c/x-Q4_K_M.gguf' gives 'x'."""
    return _MARK.sub("", PurePosixPath(origin.rpartition(":")[2]).name.removesuffix(".gguf")).lower()
