"""The constants by which targets are chosen. The defaults serve all loads: none is set by hand.

Those for replicas that take seconds to start were chosen on days 1 to 5 of the ServeGen traces (`python -m
benchmarks.lanes.tune`), those for replicas that wake in a moment (`urgent_s`, `dwell`, and wants.py) on the virtual
live lane; docs/why/009 tells what is not clean about it. The product, the simulator and every benchmark use these.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from headgate.allocation.capacity import Pool
from headgate.allocation.error_budget import PROMISED
from headgate.allocation.forecast import ForecastSettings, Window


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetSettings:
    """How targets are chosen (seconds, utility of a whole pipeline as 1).

    Targets are chosen every `decide_s`. The near stretch lasts until a replica that is started now serves, and at
    least `near_least_s`. The far stretch lasts `far_times` as long and `far_more_s` more. `alpha` is fairness: 0 adds
    parts on time, 1 adds their logarithms, more looks at whoever is worst. `answered` is what an answer is worth that
    comes too late, `urgent_s` how many seconds of utility a replica is worth to those who would wait too long.
    `money` and `energy` are the utility of one unit of money an hour and of one watt: what holding capacity must bring.
    Where a pipeline is paid for by use alone, the former moves so that `slo_minutes` of the minutes are within the SLO.
    `move_s` is how many seconds of a pipeline's utility a start must bring, `dwell` what it costs to stop a replica
    that was just given. `spare` is what capacity that nobody needs is worth where the load is, so that none lies idle.
    """

    decide_s: float = 3.0
    near_least_s: float = 2.0
    far_times: float = 1.0
    far_more_s: float = 10.0
    alpha: float = 0.0
    answered: float = 0.3
    urgent_s: float = 1.0
    spare: float = 1e-3
    money: float = 0.01
    slo_minutes: float = PROMISED
    energy: float = 0.0
    move_s: float = 0.12
    dwell: float = 0.2
    forecast: ForecastSettings = field(default_factory=ForecastSettings)

    def windows(self, start_s: float, decide_s: float | None = None) -> tuple[Window, Window]:
        """The near and the far stretch of a pipeline whose replicas serve `start_s` after they were asked for.

        `decide_s` is how often targets are chosen, where that is not as the settings say.
        """
        every_s = self.decide_s if decide_s is None else decide_s
        near_s = max(start_s, every_s, self.near_least_s)
        far_s = near_s * (1.0 + self.far_times) + self.far_more_s
        return Window(begins_s=0.0, ends_s=near_s), Window(begins_s=near_s, ends_s=far_s)

    def start_cost(self, ahead_s: float) -> float:
        """The utility that the start of a replica must bring in the stretches looked at, `ahead_s` together."""
        return self.move_s / max(ahead_s, self.move_s)

    def hold_cost(self, pool: Pool, share: float) -> float:
        """The utility that holding `share` devices of a pool costs: money where it is elastic, and energy."""
        price = pool.price_per_hour if pool.elastic else None
        return share * (self.money * (price or 0.0) + self.energy * (pool.watts or 0.0))


DEFAULTS = TargetSettings()
