"""Forecasts as the product keeps them: learned once a second, told as each pipeline's two stretches.

Holds what is between two decisions; a decision itself sees only the Outlook in its State, so that it can be replayed.
"""

from __future__ import annotations

from collections.abc import Mapping

from headgate.allocation.demand import Outlook
from headgate.allocation.forecast import Forecasts, Window
from headgate.allocation.settings import DEFAULTS, TargetSettings
from headgate.allocation.wants import LEARN_S

_FEWEST_S = 10.0  # of a pipeline's past before its forecast says more than its present


class Outlooks:
    """The outlook of each pipeline, moved on by what gateways count."""

    def __init__(self, settings: TargetSettings = DEFAULTS) -> None:
        self._forecasts = Forecasts(settings.forecast)
        self._came: dict[str, float] = {}
        self._known_s: dict[str, float] = {}
        self._elapsed_s = 0.0
        self._told: dict[str, tuple[tuple[Window, Window], Outlook]] = {}

    def learn(self, arrivals: Mapping[str, float], elapsed_s: float) -> None:
        """What came to each pipeline in the last `elapsed_s` seconds. One that is not named is forgotten."""
        self._came = {name: self._came.get(name, 0.0) + count for name, count in arrivals.items()}
        self._elapsed_s += elapsed_s
        if self._elapsed_s < LEARN_S:
            return
        self._forecasts.learn(self._came, self._elapsed_s)
        self._known_s = {name: self._known_s.get(name, 0.0) + self._elapsed_s for name in self._came}
        self._told.clear()
        self._came, self._elapsed_s = dict.fromkeys(self._came, 0.0), 0.0

    def look(self, name: str, windows: tuple[Window, Window] | None) -> Outlook | None:
        """What is expected of a pipeline in its near and far stretch; None until enough is known of it."""
        if windows is None or self._known_s.get(name, 0.0) < _FEWEST_S:
            return None
        known = self._told.get(name)
        if known is None or known[0] != windows:
            near, far = self._forecasts.forecast(name, windows)
            outlook = Outlook(
                near=near, far=far, near_s=windows[0].ends_s, far_s=windows[1].ends_s - windows[1].begins_s
            )
            known = self._told[name] = (windows, outlook)
        return known[1]
