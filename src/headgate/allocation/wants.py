"""What a pipeline wants, in the words of `targets`: from its settings, its profile and its demand.

Where nothing was measured or forecast yet, the present load with a wide spread stands in. Pure; seats nobody.
"""

from __future__ import annotations

import math

from headgate.allocation.demand import Demand, Outlook
from headgate.allocation.forecast import PROBABILITIES, Window
from headgate.allocation.pipeline import RANKS, Configuration, PipelineSpec
from headgate.allocation.profile import Profile
from headgate.allocation.punctuality import Service
from headgate.allocation.settings import DEFAULTS, TargetSettings
from headgate.allocation.targets import Option, Want

TURN_S = 0.25  # how often the product looks; targets are chosen each time
LEARN_S = 1.0  # how often its forecasts learn: less says nothing of a rate

_SERVICE_S = 1.0  # of a request, until one was answered
_BATCHING = 0.6  # until measured: k requests at once take k^0.6 times as long as one alone
_LONGEST_DRAIN_S = 10.0
_FAR_LEAST_S = 30.0  # a shorter look ahead would give up whoever has a queue: it takes longer to work off
_LEAST_SLACK = 0.1  # of the service time: an SLO that cannot be met is no reason to give nothing
_SPREAD = (-2.0, -1.3, -0.7, 0.0, 0.7, 1.3, 2.0)
_STRETCHES_S = (1.0, 2.0, 3.0, 5.0, 8.0, 12.0, 20.0, 30.0, 60.0, 120.0, 300.0, 900.0)
_STEPS = 12.0  # to a doubling, in which times are told to tables: a table is made for each of them


def slow_down(profile: Profile, slots: int) -> tuple[float, ...]:
    """How many times as long a request takes with 1..slots at once on a replica, as measured or else as assumed."""
    told = sorted(profile.decode_tokens_per_s)
    if not told or told[0][0] != 1:
        return tuple(k**_BATCHING for k in range(1, slots + 1))
    slow: list[float] = []
    for k in range(1, slots + 1):
        below = max((one for one in told if one[0] <= k), key=lambda one: one[0])
        above = min((one for one in told if one[0] >= k), key=lambda one: one[0], default=below)
        part = 0.0 if above[0] == below[0] else (k - below[0]) / (above[0] - below[0])
        speed = below[1] + part * (above[1] - below[1])
        slow.append(max(slow[-1] if slow else 1.0, k * told[0][1] / speed))
    return tuple(slow)


def count_usable_slots(spec: PipelineSpec, configuration: Configuration) -> int:
    """Slots at which tokens still come as fast as the SLO asks, at least one."""
    told = {at_once: at_once / speed for at_once, speed in configuration.profile.decode_tokens_per_s if speed > 0}
    good = [at_once for at_once, seconds in told.items() if seconds <= spec.per_token_s]
    if not told or max(told) in good:
        return configuration.slots
    return max(1, min(configuration.slots, max(good, default=1)))


def build_service(spec: PipelineSpec, configuration: Configuration, demand: Demand, replicas: int) -> Service:
    """How a replica serves this pipeline's requests: as observed, else as profiled, else as assumed."""
    profile = configuration.profile
    slots = count_usable_slots(spec, configuration)
    slow = slow_down(profile, slots)
    if demand.service_s is not None:
        at_once = min(slots, max(1, round(demand.concurrency / max(1, replicas))))
        alone_s = demand.service_s / slow[at_once - 1]
    else:
        alone_s = profile.service_s or _SERVICE_S
    alone_s = _even(max(alone_s, 1e-4))
    slack_s = max(spec.first_token_s - _prefill_s(profile, demand), _LEAST_SLACK * alone_s)
    return Service(mean_s=alone_s, slots=slots, slow=slow, slack=((1.0, _even(slack_s)),))


def plan_windows(spec: PipelineSpec, demand: Demand, settings: TargetSettings = DEFAULTS) -> tuple[Window, Window]:
    """The near and the far stretch of a pipeline: until a replica given to it now would serve, and after that.

    Why from a short list: forecasts are scored by stretch, and a new one has no scores.
    """
    drain_s = min(demand.service_s or 0.0, _LONGEST_DRAIN_S)
    near, far = settings.windows(spec.configurations[0].wake_s + drain_s, decide_s=TURN_S)
    near_s = next((one for one in _STRETCHES_S if one >= near.ends_s), _STRETCHES_S[-1])
    far_least_s = max(_FAR_LEAST_S, far.ends_s - near.ends_s)
    far_s = next((one for one in _STRETCHES_S if one >= far_least_s), _STRETCHES_S[-1])
    return Window(begins_s=0.0, ends_s=near_s), Window(begins_s=near_s, ends_s=near_s + far_s)


def build_want(
    spec: PipelineSpec,
    demand: Demand,
    options: tuple[Option, ...],
    *,
    floor: int,
    cap: int,
    settings: TargetSettings = DEFAULTS,
) -> Want:
    """What the pipeline wants now; `options` by configuration, `floor` and `cap` in replicas."""
    there = sum(option.now for option in options)
    service = build_service(spec, spec.configurations[0], demand, there)
    # Why: capacity that is in use now is not given away because an average has not seen yet what has just begun.
    # Why not without a service time: a rate alone does not say how much work it is.
    told = demand.outlook if demand.service_s is not None else None
    at_once = demand.concurrency if told else demand.steady
    busy_rate = min(at_once, float(service.slots * max(1, there))) / (service.mean_s * service.slow[-1])
    outlook = told or _guess(spec, demand, service, settings)
    return Want(
        service=service,
        near=tuple(max(rate, busy_rate) for rate in outlook.near),
        far=outlook.far,
        near_s=outlook.near_s,
        far_s=outlook.far_s,
        options=options,
        inside=min(float(demand.inside), demand.concurrency),
        weight=spec.weight,
        floor=floor,
        cap=cap,
        rank=RANKS[spec.priority],
    )


def _guess(spec: PipelineSpec, demand: Demand, service: Service, settings: TargetSettings) -> Outlook:
    """An outlook where there is no forecast: the load stays, within the spread of how many are inside by chance."""
    near, far = plan_windows(spec, demand, settings)
    arrivals_per_s = demand.arrivals_per_s if demand.service_s is not None else 0.0
    rate = max(arrivals_per_s, demand.concurrency / (service.mean_s * service.slow[-1]))
    spread = math.hypot(settings.forecast.unknown, 1.0 / math.sqrt(demand.steady + 1.0))
    rates = tuple(rate * math.exp(spread * one) for one in _SPREAD)
    assert len(rates) == len(PROBABILITIES)
    return Outlook(near=rates, far=rates, near_s=near.ends_s, far_s=far.ends_s - far.begins_s)


def _prefill_s(profile: Profile, demand: Demand) -> float:
    """Seconds to read a prompt; 0 where that is not known."""
    if not profile.prefill_tokens_per_s or demand.arrivals_per_s <= 0.0:
        return 0.0
    return demand.prompt_tokens_per_s / demand.arrivals_per_s / profile.prefill_tokens_per_s


def _even(seconds: float) -> float:
    return 2.0 ** (round(_STEPS * math.log2(seconds)) / _STEPS)
