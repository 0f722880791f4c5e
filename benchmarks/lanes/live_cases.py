"""The cases of the live lane: which pipelines run on which hardware, and the load that goes from one to another.

Real pipelines serve the bundled models on two cores. Timed units are replicas of the fake engine, which sleep where a
model would compute: eight of them stand for hardware with more places than this machine has cores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from headgate.core.chance import SeededChance
from headgate.evaluation.burst import Arrival, Phase, plan_arrivals, plan_phases
from headgate.evaluation.static_split import Speed

CORES = 2
LATE_AFTER_S = 0.5
PATIENCE_S = 10.0  # after which a client gives up: its request is lost
_LEFT_OUT_S = 0.5  # the same where a split has no replica at all and waiting is in vain
_MOST_PER_S = 40.0  # what a pipeline is asked for at most, so that the load generator does not become the load
_UNIT_SLOTS, _UNIT_TOKENS, _UNIT_TOKENS_PER_S = 1, 4, 10.0
_MODEL_SLOTS = 4
_CORE, _PART, _UNIT = 0.55, 0.1, 0.25  # cores of a replica: language model (one on each core), linear model, timed unit
_HALF = 0.45  # of a core, where every language model has a replica on every core; nearly the same niceness as _CORE

_EXTRACT, _SUMMARY, _CATEGORY = "ticket-extract", "ticket-summary", "ticket-category"

Bounds = Callable[[str], Mapping[str, Any]]
"""From a pipeline to the floor and the cap that a policy gives it, and whatever else it sets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Pipelines by name with what each runs, and its load: the next of `order` is hot, the others get `cold` of that.

    `places` is how many replicas of the hot pipeline fit at most, and `busy` the part of their speed that it is asked
    for on average; its bursts ask for 1.75 times as much. `cores` is what a replica takes, where its kind does not
    say; `memory` is a limit on the pool, where there is one.
    """

    name: str
    title: str
    kinds: Mapping[str, str]
    order: tuple[str, ...]
    places: int
    cold: float = 0.0
    busy: float = 0.55
    cores: float | None = None
    memory: str | None = None
    seconds: float = 20.0
    models: Mapping[str, Mapping[str, Any]] = field(init=False)

    def __post_init__(self) -> None:
        models = {name: _model(kind) for name, kind in self.kinds.items()}
        if self.cores is not None:
            models = {name: {**model, "cores": self.cores} for name, model in models.items()}
        object.__setattr__(self, "models", models)

    @property
    def timed(self) -> bool:
        """Whether its replicas are timed units."""
        return "unit" in self.kinds.values()

    def configuration(self, state: str, bounds: Bounds, *, resident: bool = False) -> str:
        """The headgate.yaml of a policy that gives each pipeline its `bounds`.

        `resident` makes replicas so small that one of each pipeline fits on every core.
        """
        pool: dict[str, Any] = {"cores": CORES} | ({"memory": self.memory} if self.memory else {})
        patience = {"queue": 4096, "idle_s": 4, "timeout_s": PATIENCE_S}
        slo = {"first_token_ms": LATE_AFTER_S * 1e3}
        document = {
            "state": state,
            "gateway": {"port": 0, "drain_s": 10},
            "pools": {"cpu": pool},
            "models": {
                name: dict(model) | {"cores": min(model["cores"], _HALF) if resident else model["cores"]}
                for name, model in self.models.items()
            },
            "pipelines": {name: {"model": name, "slo": dict(slo), **patience, **bounds(name)} for name in self.models},
        }
        return yaml.safe_dump(document, sort_keys=False)

    def plan(self, speeds: Mapping[str, Speed], seconds: float, seed: int) -> tuple[tuple[Phase, ...], list[Arrival]]:
        """Phases and arrivals for replicas of these `speeds`, by pipeline."""
        rates = {name: min(self.busy * speeds[name].requests_per_s * self.places, _MOST_PER_S) for name in self.models}
        phases = plan_phases(self.order, seconds=seconds, hot_per_s=rates, cold=self.cold)
        return phases, list(plan_arrivals(phases, SeededChance(seed)))


def unit_speed() -> Speed:
    """What a timed unit does: known, because it is set."""
    per_s = _UNIT_SLOTS * _UNIT_TOKENS_PER_S / _UNIT_TOKENS
    return Speed(slots=_UNIT_SLOTS, requests_per_s=per_s, late_after_s=LATE_AFTER_S)


def model_speed(requests_per_s: float) -> Speed:
    """What a replica of a bundled model does, as it was measured."""
    return Speed(slots=_MODEL_SLOTS, requests_per_s=requests_per_s, late_after_s=LATE_AFTER_S)


def nominal_speeds() -> dict[str, Speed]:
    """Round speeds by kind for virtual time, about those of a common core, so that its figures repeat anywhere."""
    models = {_EXTRACT: 20.0, _SUMMARY: 25.0, _CATEGORY: 400.0}
    return {"unit": unit_speed()} | {kind: model_speed(per_s) for kind, per_s in models.items()}


def fixed(split: Mapping[str, int]) -> Bounds:
    """Bounds that hold a static split."""

    def bounds(name: str) -> dict[str, Any]:
        count = split[name]
        return {"floor": count, "cap": count} | ({} if count else {"timeout_s": _LEFT_OUT_S})

    return bounds


def _model(kind: str) -> dict[str, Any]:
    if kind == "unit":
        settings = {"answer_tokens": _UNIT_TOKENS, "tokens_per_s": _UNIT_TOKENS_PER_S}
        return {"source": "fake:", "cores": _UNIT, "slots": _UNIT_SLOTS, "settings": settings}
    cores = _PART if kind == "ticket-category" else _CORE
    return {"source": f"bundled:{kind}", "cores": cores, "slots": _MODEL_SLOTS}


CASES = (
    Case(
        name="units",
        title="three pipelines, eight timed units; the cold ones get a tenth",
        kinds=dict.fromkeys(("mail", "orders", "search"), "unit"),
        order=("mail", "orders", "search"),
        places=8,
        cold=0.1,
        busy=0.45,  # in a burst, and with the trickle of the others, nearly nine tenths of all units
        seconds=24.0,
    ),
    Case(
        name="crowded",
        title="four pipelines, two timed units; the cold ones get a fiftieth",
        kinds=dict.fromkeys(("mail", "orders", "search", "notes"), "unit"),
        order=("mail", "orders", "search", "notes"),
        places=2,
        cold=0.02,
        busy=0.45,
        cores=1.0,
        seconds=24.0,
    ),
    Case(
        name="two",
        title="two language models, two cores; one is asked at a time",
        kinds={_EXTRACT: _EXTRACT, _SUMMARY: _SUMMARY},
        order=(_EXTRACT, _SUMMARY, _EXTRACT, _SUMMARY),
        places=2,
    ),
    Case(
        name="two_trickle",
        title="the same, and the cold one gets a fiftieth",
        kinds={_EXTRACT: _EXTRACT, _SUMMARY: _SUMMARY},
        order=(_EXTRACT, _SUMMARY, _EXTRACT, _SUMMARY),
        places=2,
        cold=0.02,
    ),
    Case(
        name="three",
        title="two language models and a linear one, two cores; one is asked at a time",
        kinds={_EXTRACT: _EXTRACT, _SUMMARY: _SUMMARY, _CATEGORY: _CATEGORY},
        order=(_EXTRACT, _SUMMARY, _CATEGORY),
        places=2,
    ),
    Case(
        name="scarce",
        title="four language models, memory for two replicas; one is asked at a time",
        kinds={_EXTRACT: _EXTRACT, f"{_EXTRACT}-2": _EXTRACT, _SUMMARY: _SUMMARY, f"{_SUMMARY}-2": _SUMMARY},
        order=(_EXTRACT, _SUMMARY, f"{_EXTRACT}-2", f"{_SUMMARY}-2"),
        places=2,
        memory="100MiB",
    ),
)
