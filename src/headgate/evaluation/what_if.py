"""What is asked of the simulator: a trace, what is assumed of its pipelines, and the capacity that there is.

Every assumption that was made is told in words. Plays nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from headgate.allocation.arrays import Floats
from headgate.allocation.error_budget import PROMISED
from headgate.allocation.settings import DEFAULTS
from headgate.core.errors import BadRequest
from headgate.evaluation.traces import Stream, Trace

PREFILL_TOKENS_PER_S = 2000.0
DECODE_TOKENS_PER_S = 50.0
SECONDS = 0.5
START_S = 3.0
WAIT_S = 0.5
BATCHING = 0.6
WARM_S = 600.0
"""What is assumed where nothing is known: a model of 1 to 3 billion parameters on a few cores, and what people bear."""

_ENOUGH = 0.8  # how busy capacity is in its busier minutes, where the simulation chooses how much there is
_RENTED_ROOM = 2.0  # where it chooses for who pays by use: so many times what the busiest minute takes
_LEAST_WORK_S = 1e-4
_QUANTA = 1000  # replicas' shares of a device are told in thousandths


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What is assumed of one pipeline; None: not said. Times in seconds, floor and cap in replicas.

    A replica takes `share` devices of `pool`, works on `slots` requests at once, and with k at once each takes
    `slow[k - 1]` times as long as alone. A request is on time if its first token comes within `first_token_s`, and all
    of it within `answer_s`; where neither is said, if it waits no longer than half a second. Its work is what the trace
    says, else its tokens at these speeds, else `seconds`. A replica takes `memory_bytes`; one that gave its devices up
    stays loaded for `warm_s` where its pool's memory is known. `left_out` are other models that it may run, too.
    """

    pool: str = "cpu"
    share: float = 1.0
    weight: float = 1.0
    floor: int | None = None
    cap: int | None = None
    rank: int = 0
    slots: int = 1
    slow: tuple[float, ...] = (1.0,)
    queue: int = 64
    start_s: float | None = None
    first_token_s: float | None = None
    answer_s: float | None = None
    seconds: float | None = None
    prefill_tokens_per_s: float | None = None
    decode_tokens_per_s: float | None = None
    memory_bytes: int | None = None
    warm_s: float = WARM_S
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rent:
    """What a pool costs that is paid for by use: money for an hour of a device that is held. At 0 it is as fixed ones.

    `money` is the utility that one unit of money an hour must bring at the begin, `promised` the part of minutes that
    shall be within the SLO: see allocation.settings.TargetSettings.
    """

    price_per_hour: float
    money: float = DEFAULTS.money
    promised: float = PROMISED


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """One pipeline as it is played. [request]: when each comes, its seconds of work alone on a replica, and the seconds
    that it may lose by waiting and still be on time. A replica takes `units` of the case's capacity and `memory_bytes`
    of its memory; `warm_s` is how long it may stay loaded without a device.
    """

    name: str
    at: Floats = field(repr=False)
    work: Floats = field(repr=False)
    slack: Floats = field(repr=False)
    weight: float = 1.0
    floor: int = 0
    cap: int = 1
    rank: int = 0
    units: int = 1
    slots: int = 1
    slow: tuple[float, ...] = (1.0,)
    queue: int = 64
    memory_bytes: int = 0
    warm_s: float = 0.0

    @property
    def load(self) -> float:
        """Unit-seconds that all its requests take on replicas with every slot busy."""
        return float(self.work.sum()) * self.units * self.slow[min(self.slots, len(self.slow)) - 1] / self.slots


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One pool and the pipelines on it. There are `budget` units of `unit` devices each; a replica serves `start_s`
    after it was asked for. The trace lasts `span_s`. With a `rent` only what is held is paid for. In `memory_bytes`
    replicas may stay loaded that gave their devices up; None: none does. `notes` tell what was assumed.
    """

    pool: str
    served: tuple[Served, ...]
    budget: int
    unit: float
    start_s: float
    span_s: float
    rent: Rent | None = None
    memory_bytes: int | None = None
    notes: tuple[str, ...] = ()


def build_cases(
    trace: Trace, terms: Mapping[str, Terms], devices: Mapping[str, float], rents: Mapping[str, Rent] | None = None,
    memory: Mapping[str, int] | None = None,
) -> list[Case]:  # fmt: skip
    """A case for each pool on which a pipeline of the trace runs. `terms` has each of its pipelines.

    `devices` are those of each pool; a pool that is not named gets as many as keep it 80 % busy in its busier minutes,
    or more where it is paid for by use, as `rents` says. `memory` is bytes of the pools of which it is known. Raises
    BadRequest.
    """
    rents, memory = rents or {}, memory or {}
    pools = sorted({terms[one.pipeline].pool for one in trace.streams})
    for param, named in (("pools", devices), ("rent", rents)):
        if unknown := sorted(set(named) - set(pools)):
            raise BadRequest(
                f"No pipeline of the trace runs on pool {', '.join(unknown)}; the pools are: {', '.join(pools)}.",
                param=param,
            )
    return [
        _build_case(trace, pool, terms, devices.get(pool), rents.get(pool), memory.get(pool)) for pool in pools
    ]  # fmt: skip


def _build_case(
    trace: Trace, pool: str, terms: Mapping[str, Terms], devices: float | None, rent: Rent | None,
    memory_bytes: int | None,
) -> Case:  # fmt: skip
    streams = [one for one in trace.streams if terms[one.pipeline].pool == pool]
    mine = [terms[one.pipeline] for one in streams]
    shares = [max(1, round(one.share * _QUANTA)) for one in mine]
    quantum = math.gcd(*shares)
    unit = quantum / _QUANTA
    assumed: Counter[str] = Counter()
    played = [
        _build_served(stream, told, share // quantum, assumed)
        for stream, told, share in zip(streams, mine, shares, strict=True)
    ]
    free = rent is not None and not rent.price_per_hour
    rent = None if free else rent
    budget = _enough(played, trace.span_s, rent) if devices is None else int(devices / unit + 1e-9)
    _check_budget(pool, played, mine, budget, unit)
    kept = 1 if rent is None and sum(one.units for one in played) <= budget else 0
    played = [
        replace(
            one,
            floor=kept if told.floor is None else told.floor,
            cap=min(budget // one.units, told.cap or budget),
        )
        for one, told in zip(played, mine, strict=True)
    ]
    starts = [START_S if one.start_s is None else one.start_s for one in mine]
    facts = _tell_capacity(budget * unit, rent, chosen=devices is None)
    if free:
        facts.append("paid for by use at no price: Headgate gives it out as what is there anyway (--rent)")
    facts.append(f"a new replica serves {max(starts):g} s after it was asked for (--start)")
    if any(one.floor is None for one in mine):
        sleeps = "pipelines may sleep: " + ("not all fit at once" if rent is None else "what is not held costs nothing")
        facts.append("each pipeline keeps one replica" if kept else sleeps)
    memory_bytes, warmth = _tell_warmth(memory_bytes, mine, rent)
    facts.append(warmth)
    told = [text if count == len(played) else f"{count} pipelines: {text}" for text, count in assumed.items()]
    return Case(
        pool=pool,
        served=tuple(played),
        budget=budget,
        unit=unit,
        start_s=max(starts),
        span_s=trace.span_s,
        rent=rent,
        memory_bytes=memory_bytes,
        notes=(*facts, *told),
    )


def _tell_capacity(devices: float, rent: Rent | None, *, chosen: bool) -> list[str]:
    if rent is None:
        return [f"{devices:g} devices" + (f", {_ENOUGH:.0%} busy in the busier minutes (--pools)" if chosen else "")]
    busiest = f", {_RENTED_ROOM:g} times what the busiest minute takes (--pools)"
    return [
        f"at most {devices:g} devices" + (busiest if chosen else ""),
        f"paid for by use: {rent.price_per_hour:g} for an hour of a device that is held, from when it is asked for "
        "(--rent); shares of all devices and splits hold theirs all the time",
        f"Headgate keeps as much as it takes for {rent.promised:.4g} of the minutes with requests to have no more than "
        "1 % of them late (--slo-minutes); what a house's first hour loses is not counted by it, but is here",
        "the best static split is the fewest replicas of each pipeline that would have kept that, known beforehand",
    ]


def _tell_warmth(memory_bytes: int | None, terms: Sequence[Terms], rent: Rent | None) -> tuple[int | None, str]:
    """The memory that replicas may stay loaded in, None where none does, and why."""
    anew = "a replica that gave its devices up starts anew: "
    if rent is not None:
        return None, anew + "what is not held is another's"
    if not any(one.warm_s for one in terms):
        return None, anew + "warm_s is 0 (--warm)"
    if memory_bytes is None or any(one.memory_bytes is None for one in terms):
        return None, anew + "how much memory it and its pool have is not known"
    longest = max(one.warm_s for one in terms)
    return memory_bytes, (
        f"a replica that gave its devices up stays loaded for {longest:g} s at most (--warm) in what is left of "
        f"{memory_bytes / 2**30:.4g} GiB, and serves again at once; who decides is not told of it here"
    )


def _check_budget(pool: str, played: Sequence[Served], terms: Sequence[Terms], budget: int, unit: float) -> None:
    """Raises BadRequest when the largest replica or all floors together do not fit."""
    largest = max(one.units for one in played)
    if budget < largest:
        raise BadRequest(
            f"Pool {pool} has {budget * unit:g} devices; a replica takes {largest * unit:g}. Give it more.",
            param="pools",
        )
    floors = sum(one.units * (told.floor or 0) for one, told in zip(played, terms, strict=True))
    if floors > budget:
        raise BadRequest(
            f"The floors of pool {pool} take {floors * unit:g} devices, there are {budget * unit:g}. Lower the floors.",
            param="pools",
        )


def _build_served(stream: Stream, terms: Terms, units: int, assumed: Counter[str]) -> Served:
    work = _reckon_work(stream, terms, assumed)
    assumed[f"{terms.slots} at once on a replica; {terms.queue} may wait for a pipeline, more are dropped"] += 1
    if terms.slots > len(terms.slow):
        assumed[f"k requests at once on a replica each take k^{BATCHING:g} times as long"] += 1
    if terms.left_out:
        assumed["every replica runs the first of the pipeline's models; the others are left out"] += 1
    slow = terms.slow if terms.slots <= len(terms.slow) else tuple((k + 1) ** BATCHING for k in range(terms.slots))
    return Served(
        name=stream.pipeline,
        at=stream.at,
        work=work,
        slack=_reckon_slack(stream, terms, work, assumed),
        weight=terms.weight,
        rank=terms.rank,
        units=units,
        slots=terms.slots,
        slow=slow,
        queue=terms.queue,
        memory_bytes=terms.memory_bytes or 0,
        warm_s=terms.warm_s,
    )


def _reckon_work(stream: Stream, terms: Terms, assumed: Counter[str]) -> Floats:
    """Seconds of work of each request: from the trace, else from its tokens, else the mean of the others."""
    work = stream.seconds.copy()
    if not np.isnan(work).all():
        assumed["work is the seconds that the trace tells"] += 1
    else:
        prefill = terms.prefill_tokens_per_s or PREFILL_TOKENS_PER_S
        decode = terms.decode_tokens_per_s or DECODE_TOKENS_PER_S
        by_tokens = np.nan_to_num(stream.prompt_tokens) / prefill + np.nan_to_num(stream.output_tokens) / decode
        known = ~(np.isnan(stream.prompt_tokens) & np.isnan(stream.output_tokens))
        told = terms.prefill_tokens_per_s and terms.decode_tokens_per_s
        if known.any() and (told or terms.seconds is None):
            work = np.where(known, by_tokens, np.nan)
            whence = "as measured or said" if told else "assumed (--prefill, --decode)"
            assumed[f"{prefill:g} prompt and {decode:g} output tokens a second, {whence}"] += 1
    missing = np.isnan(work)
    if missing.all():
        seconds = SECONDS if terms.seconds is None else terms.seconds
        whence = "assumed (--seconds)" if terms.seconds is None else "as measured or said"
        assumed[f"each request is {seconds:g} s of work, {whence}"] += 1
        work[:] = seconds
    elif missing.any():
        assumed["requests without work of their own take the mean of the others"] += 1
        work[missing] = np.nanmean(work)
    return np.maximum(work, _LEAST_WORK_S)


def _reckon_slack(stream: Stream, terms: Terms, work: Floats, assumed: Counter[str]) -> Floats:
    """Seconds that each request may lose by waiting and still be on time; below 0 where it never can be."""
    slack = np.full(len(work), np.inf)
    if terms.answer_s is not None:
        slack = terms.answer_s - work
        assumed[f"on time: the whole answer within {terms.answer_s:g} s"] += 1
    elif terms.first_token_s is None:
        slack[:] = WAIT_S
        assumed[f"on time: waits no longer than {WAIT_S:g} s (--first-token, --answer)"] += 1
    if (first_s := terms.first_token_s) is not None:
        prompt = np.nan_to_num(stream.prompt_tokens) / (terms.prefill_tokens_per_s or PREFILL_TOKENS_PER_S)
        slack = np.minimum(slack, first_s - np.minimum(prompt, work))
        assumed[f"on time: the first token within {first_s:g} s"] += 1
    if never := float(np.mean(slack < 0.0)):
        assumed[f"{never:.1%} of the requests can never be on time, even alone on an idle replica"] += 1
    return slack


def _enough(played: Sequence[Served], span_s: float, rent: Rent | None) -> int:
    """Units that are 80 % busy in the busiest twentieth of the minutes, or all of one pipeline each up to 16.

    What is not held costs nothing where capacity is paid for by use: there twice what the busiest minute takes.
    """
    minutes = max(1, math.ceil(span_s / 60.0))
    busy = np.zeros(minutes)
    for one in played:
        place = np.minimum((one.at / 60.0).astype(np.int64), minutes - 1)
        busy += np.bincount(place, one.work, minutes) * (one.load / max(float(one.work.sum()), 1e-9)) / 60.0
    first = sum(sorted((one.units for one in played), reverse=True)[:16])
    if rent is not None:
        return max(math.ceil(_RENTED_ROOM * float(busy.max())), first)
    return max(math.ceil(float(np.percentile(busy, 95)) / _ENOUGH), first)
