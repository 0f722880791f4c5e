"""Measures the profile of a version run one way: loading, memory, and speed by how many requests come at once."""

from __future__ import annotations

import statistics
from collections.abc import Callable

from headgate.allocation.profile import Profile
from headgate.core.clock import Clock
from headgate.core.errors import BadRequest
from headgate.engines.engine import ModelOptions
from headgate.evaluation.bench import Bench, Served
from headgate.evaluation.requests import RequestWriter

_LOADS = 3  # with a warm page cache; the median counts
_LEVEL_S = 0.7  # about how long each number of requests at once is looked at
_PREFILL_TOKENS = 512
_PREFILLS = 3
_SHORT_TOKENS = 10
_BURSTS_LEAST, _BURSTS, _BURSTS_S = 2, 9, 0.5


async def measure_profile(
    bench: Bench,
    options: ModelOptions,
    writer: RequestWriter,
    clock: Clock,
    *,
    file_bytes: int,
    until: float,
    tell: Callable[[str], None] = lambda _: None,
) -> Profile:
    """The profile of a version run with `options`; what there is no time for by `until` (monotonic seconds) is unknown.

    The first request alone is always measured. Raises what the bench raises.
    """
    tell("loading")
    cold_s = await bench.load(options, cold=True)
    loads: list[float] = []
    while len(loads) < _LOADS and (not loads or clock.monotonic() < until):
        load_s = await bench.load(options)
        if load_s is None:
            break
        loads.append(load_s)
    await writer.fit(bench, options)
    await bench.serve(options, writer.write(1), 1)  # what is done only once by a new process is not measured
    tell("1 request at once")
    levels: list[tuple[int, Served]] = [(1, await _look(bench, options, writer, 1))]
    decode = [(1, await _decode(bench, options, writer, 1, clock))]
    prefill = await _prefill(bench, options, writer, levels[0][1], clock, until)
    for at_once in _levels(options.slots):
        if clock.monotonic() >= until:
            break
        tell(f"{at_once} requests at once")
        levels.append((at_once, await _look(bench, options, writer, at_once)))
        decode.append((at_once, await _decode(bench, options, writer, at_once, clock)))
    watts = None
    if clock.monotonic() < until:
        watts = await bench.watts(options, writer.write(4 * options.slots))
    footprint = bench.footprint(options)
    alone = levels[0][1]
    return Profile(
        service_s=alone.service_s,
        slow=tuple((at_once, served.service_s / alone.service_s) for at_once, served in levels),
        first_token_s=statistics.median(answer.first_s for answer in alone.answers),
        load_s=statistics.median(loads) if loads else None,
        load_cold_s=cold_s,
        memory_bytes=footprint.peak,
        warm_bytes=footprint.warm,
        file_bytes=file_bytes,
        prefill_tokens_per_s=prefill,
        decode_tokens_per_s=tuple((at_once, speed) for at_once, speed in decode if speed is not None),
        watts=watts,
    )


async def _look(bench: Bench, options: ModelOptions, writer: RequestWriter, at_once: int) -> Served:
    """Requests for about a level's time, at least two rounds."""
    round_s = (await bench.serve(options, writer.write(at_once), at_once)).seconds
    rounds = max(2, min(32, round(_LEVEL_S / max(round_s, 1e-3))))
    return await bench.serve(options, writer.write(rounds * at_once), at_once)


async def _decode(
    bench: Bench, options: ModelOptions, writer: RequestWriter, at_once: int, clock: Clock
) -> float | None:
    """Tokens a second of so many streams together. Their prompts are short and come at once, so that none is read
    while others are being answered.
    """
    speeds: list[float] = []
    until = clock.monotonic() + _BURSTS_S
    for burst in range(_BURSTS):
        if burst >= _BURSTS_LEAST and clock.monotonic() >= until:
            break
        calls = writer.write(at_once, prompt_tokens=_SHORT_TOKENS)
        speed = (await bench.serve(options, calls, at_once)).decode_tokens_per_s
        speeds += [speed] if speed is not None else []
    return statistics.median(speeds) if speeds else None


async def _prefill(
    bench: Bench, options: ModelOptions, writer: RequestWriter, alone: Served, clock: Clock, until: float
) -> float | None:
    """Prompt tokens a second, of a prompt as long as fits; None for engines that count no tokens."""
    if not alone.answers[0].prompt_tokens:
        return None
    length = max(1, min(_PREFILL_TOKENS, int(options.context * 0.8)))
    speeds: list[float] = []
    while len(speeds) < _PREFILLS and (not speeds or clock.monotonic() < until):
        calls = writer.write(1, prompt_tokens=length, output_tokens=1)
        try:
            answer = (await bench.serve(options, calls, 1)).answers[0]
        except BadRequest:  # it has more tokens than its words made us think
            break
        speeds.append(answer.prompt_tokens / max(answer.first_s, 1e-6))
    return statistics.median(speeds) if speeds else None


def _levels(slots: int) -> list[int]:
    """2, 4, 8, ... and the number of slots."""
    found: list[int] = []
    count = 2
    while count < slots:
        found.append(count)
        count *= 2
    return [*found, slots] if slots > 1 else []
