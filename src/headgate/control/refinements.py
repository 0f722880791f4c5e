"""What exact methods said of decisions in the background, and what the next ones may make of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from headgate.allocation.proposals import Proposal
from headgate.allocation.refine import Refinement

Prices = tuple[tuple[float, ...], ...]

_KEPT = 200
_NOTHING: Proposal = {}


@dataclass(slots=True)
class RefinementBook:
    """Refinements by the number of their decision, the newest `number` of them, and what was not made use of yet."""

    gaps: dict[int, float] = field(default_factory=dict[int, float])
    number: int | None = None
    proposal: Proposal = field(default_factory=dict[str, dict[str, int]])
    _prices: Prices = ()

    @property
    def gap(self) -> float | None:
        """How far the decision that was looked at last may be from the best possible, as a part of it."""
        return None if self.number is None else self.gaps.get(self.number)

    def take(self, number: int, refinement: Refinement | None) -> None:
        """What was found of decision `number`; None: nothing can be said."""
        self.number, self.proposal, self._prices = number, _NOTHING, ()
        if refinement is not None:
            self.gaps[number] = refinement.gap
            self.proposal, self._prices = refinement.proposal, refinement.prices
        while len(self.gaps) > _KEPT:
            del self.gaps[min(self.gaps)]

    def drop_proposal(self) -> None:
        """Nobody proposes anything any more: what was proposed had its time."""
        self.proposal = _NOTHING

    def take_prices(self, own: Prices) -> Prices:
        """Prices to begin the next decision with: those found in the background, once, else its `own` last ones."""
        prices, self._prices = self._prices, ()
        return prices or own
