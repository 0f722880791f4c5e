"""What a pipeline wants, in the words of `targets`: from its settings, its profile and its demand.

Where nothing was measured or forecast yet, the present load with a wide spread stands in. Pure; seats nobody.
"""

from __future__ import annotations

import math

from headgate.allocation.demand import RATE_S, Demand, Outlook
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
WARM_WAKE_S = 0.02  # of a replica that is loaded: gateways have to be told
FORESEEN_S = 5.0  # a replica that serves sooner is asked for when it is needed: the present tells more than forecasts
_WOKEN = 0.9  # of those who come to a pipeline that sleeps, where it wakes soon
_WOKEN_WITHIN_S = 1.5
_SOON_S = 1.0  # how far beyond the wake the present is believed there
_LEAST_SLACK = 0.1  # of the service time: an SLO that cannot be met is no reason to give nothing
_SPREAD = (-2.0, -1.3, -0.7, 0.0, 0.7, 1.3, 2.0)
_STRETCHES_S = (5.0, 8.0, 12.0, 20.0, 30.0, 60.0, 120.0, 300.0, 900.0)
_STEPS = 12.0  # to a doubling, in which times are told to tables: a table is made for each of them


def slow_down(profile: Profile, slots: int) -> tuple[float, ...]:
    """How many times as long a request takes with 1..slots at once on a replica, as measured or else as assumed."""
    measured = profile.slow_by_slot(slots)
    return measured if len(measured) == slots else tuple(k**_BATCHING for k in range(1, slots + 1))


def profiled_s(profile: Profile) -> float:
    """Seconds of a request alone on a replica, as measured or else as assumed."""
    return profile.service_s or _SERVICE_S


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
    if len(spec.configurations) > 1 and configuration.key in demand.corrections:
        # Why not the mean of all requests: it says as much of where they were served as of this configuration.
        alone_s = profiled_s(profile) * demand.corrections[configuration.key]
    elif demand.service_s is not None:
        at_once = min(slots, max(1, round(demand.concurrency / max(1, replicas))))
        alone_s = demand.service_s / slow[at_once - 1]
    else:
        alone_s = profiled_s(profile)
    alone_s = _even(max(alone_s, 1e-4))
    slack_s = max(spec.first_token_s - _first_token_s(profile, demand), _LEAST_SLACK * alone_s)
    return Service(mean_s=alone_s, slots=slots, slow=slow, slack=((1.0, _even(slack_s)),))


def plan_stretches(
    spec: PipelineSpec, demand: Demand, settings: TargetSettings = DEFAULTS, *, warm: bool = False
) -> tuple[float, float]:
    """Seconds of the near stretch, until a replica that is given now would serve, and of the far one after it.

    `warm`: one is loaded and waits for devices.
    """
    drain_s = min(demand.service_s or 0.0, _LONGEST_DRAIN_S)
    wait_s = (WARM_WAKE_S if warm else spec.configurations[0].wake_s) + drain_s + TURN_S
    if wait_s < FORESEEN_S:
        return wait_s, wait_s + _SOON_S
    near, far = settings.windows(wait_s, decide_s=TURN_S)
    near_s = next((one for one in _STRETCHES_S if one >= near.ends_s), _STRETCHES_S[-1])
    far_s = next((one for one in _STRETCHES_S if one >= far.ends_s - near.ends_s), _STRETCHES_S[-1])
    return near_s, far_s


def plan_windows(
    spec: PipelineSpec, demand: Demand, settings: TargetSettings = DEFAULTS
) -> tuple[Window, Window] | None:
    """What is to be forecast of a pipeline: its two stretches; None where the present tells more than any forecast.

    Why from a short list: forecasts are scored by stretch, and a new one has no scores.
    """
    near_s, far_s = plan_stretches(spec, demand, settings)
    if near_s < FORESEEN_S:
        return None
    return Window(begins_s=0.0, ends_s=near_s), Window(begins_s=near_s, ends_s=near_s + far_s)


def build_want(
    spec: PipelineSpec,
    demand: Demand,
    options: tuple[Option, ...],
    *,
    floor: int,
    cap: int,
    settings: TargetSettings = DEFAULTS,
    warm: bool = False,
) -> Want:
    """What the pipeline wants now; `options` by configuration, `floor` and `cap` in replicas, `warm` as above."""
    there = sum(option.now for option in options)
    service = build_service(spec, spec.configurations[0], demand, there)
    # Why not without a service time: a rate alone does not say how much work it is.
    outlook = demand.outlook if demand.service_s is not None and not warm else None
    outlook = outlook or _present(spec, demand, service, settings, warm=warm)
    inside = demand.queued + min(float(demand.in_flight), float(service.slots * there))
    return Want(
        service=service,
        near=outlook.near,
        far=outlook.far,
        near_s=outlook.near_s,
        far_s=outlook.far_s,
        options=options,
        inside=inside,
        woken=_WOKEN if outlook.near_s < _WOKEN_WITHIN_S else 0.0,
        # Where a replica serves soon, all that are inside press: there is no time to lose.
        pressing=inside if outlook.near_s < FORESEEN_S else 0.0,
        kept=float(demand.kept or 0),
        weight=spec.weight,
        floor=floor,
        cap=cap,
        rank=RANKS[spec.priority],
    )


def _present(spec: PipelineSpec, demand: Demand, service: Service, settings: TargetSettings, *, warm: bool) -> Outlook:
    """An outlook without forecast: the load stays, within the spread of what was counted by chance."""
    if demand.service_s is None:
        rate, counted = demand.concurrency / (service.mean_s * service.slow[-1]), demand.concurrency
    else:
        # Why: a silence of t seconds speaks against more than 1 / t requests a second, whatever the mean still says.
        rate = min(demand.arrivals_per_s, 1.0 / max(demand.idle_for_s, 1e-9))
        counted = rate * RATE_S
    spread = math.hypot(settings.forecast.unknown, 1.0 / math.sqrt(counted + 1.0))
    rates = tuple(rate * math.exp(spread * one) for one in _SPREAD)
    assert len(rates) == len(PROBABILITIES)
    near_s, far_s = plan_stretches(spec, demand, settings, warm=warm)
    return Outlook(near=rates, far=rates, near_s=near_s, far_s=far_s)


def _first_token_s(profile: Profile, demand: Demand) -> float:
    """Seconds to the first token of a request alone, as far as that is known."""
    if profile.first_token_s is not None:
        return profile.first_token_s
    if not profile.prefill_tokens_per_s or demand.arrivals_per_s <= 0.0:
        return 0.0
    return demand.prompt_tokens_per_s / demand.arrivals_per_s / profile.prefill_tokens_per_s


def _even(seconds: float) -> float:
    return 2.0 ** (round(_STEPS * math.log2(seconds)) / _STEPS)
