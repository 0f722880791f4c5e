"""Rented capacity in the simulator: it is told what a gateway would tell, and the pilot does what a decision would."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from headgate.allocation.punctuality import Service
from headgate.allocation.settings import DEFAULTS
from headgate.allocation.simulator.pilot import Charge, Pilot
from headgate.allocation.simulator.run import Rules, run
from headgate.allocation.simulator.tenant import LOOK_S, Tenant
from headgate.allocation.simulator.world import Discipline, Requests, World

SERVICE = Service(mean_s=1.0, slots=2, slow=(1.0, 1.5), slack=((1.0, 2.0),))
START_S = 3.0


class Scene:
    """Pipelines on rented capacity, each with its own times of arrival; requests are a second of work."""

    def __init__(
        self, *at: np.ndarray, price: float = 1.0, budget: int = 8, queue: int = 64, cap: int = 8, floor: int = 0
    ) -> None:
        self.slack = [np.full(len(one), 2.0) for one in at]
        settings = replace(DEFAULTS, money=0.01)
        self.tenant = Tenant([SERVICE] * len(at), [1.0] * len(at), self.slack, START_S, price, settings)
        charge = Charge(service=SERVICE, cap=cap, floor=floor, cost=0.01 * price)
        self.rules = Rules(budget=budget, start_s=START_S, decide_s=LOOK_S)
        self.pilot = Pilot([charge] * len(at), self.rules, settings, self.tenant)
        way = Discipline(slots=2, depth=2, slow=SERVICE.slow, queue=queue, late_s=np.inf)
        requests = [Requests(at=one, work=np.ones(len(one))) for one in at]
        self.world = World([way] * len(at), requests, budget, turns=False)
        self.given: list[list[int]] = []
        self.kept: list[list[int]] = []
        self.late = np.zeros(len(at))

    def decide(self, view) -> np.ndarray:
        find = self.tenant._find_late

        def listen(world: World) -> np.ndarray:
            found = find(world)
            self.late += found
            return found

        self.tenant._find_late = listen
        self.given.append(self.pilot.decide(view).tolist())
        self.tenant._find_late = find
        self.kept.append([] if self.pilot._kept is None else self.pilot._kept.tolist())
        return np.array(self.given[-1])

    def play(self, seconds: float) -> Scene:
        run(self.world, self, self.rules, seconds)
        return self


def often(seconds: float, every_s: float) -> np.ndarray:
    return np.arange(0.0, seconds, every_s)


def test_who_is_called_often_enough_for_the_price_is_kept() -> None:
    cheap, dear = (Scene(often(5_000, 600.0), price=price).play(5_000) for price in (0.5, 50.0))
    held = [np.mean(np.array(one.given)[2_000:] > 0) for one in (cheap, dear)]
    assert held[0] > 0.9 and 0.2 < held[1] < 0.6


def test_every_late_request_is_told_once_when_it_is_settled_or_dropped() -> None:
    rng = np.random.default_rng(2)
    crowd = np.sort(np.concatenate([rng.uniform(0, 900, 300), rng.uniform(400, 402, 60)]))
    scene = Scene(crowd, often(900, 50.0), queue=20).play(960.0)
    for number in range(2):
        _, latency = scene.world.requests_of(number)
        assert not np.isnan(latency).any()
        assert scene.late[number] == np.count_nonzero(~(latency - 1.0 <= 2.0 + 1e-9)) > 0
    assert np.isinf(scene.world.requests_of(0)[1]).any()  # some found the queue full
    assert not len(scene.tenant._open)


def test_who_is_served_beside_others_is_known_to_take_longer() -> None:
    scene = Scene(often(600, 0.8), cap=1).play(600.0)
    assert scene.tenant._demands["00000"].service_s == pytest.approx(1.5, rel=0.2)


def swinging() -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    return [np.sort(rng.uniform(0, 600, 900)), np.sort(rng.uniform(200, 400, 500)), np.array([100.0, 450.0])]


def test_what_fits_is_given_as_the_solver_would() -> None:
    quick, slow = Scene(*swinging()).play(600.0), Scene(*swinging())
    slow.pilot._find_plenty = lambda budget: None if slow.pilot._kept.any() else slow.pilot._kept
    slow.play(600.0)
    assert quick.given == slow.given == quick.kept
    assert not quick.pilot.gaps and slow.pilot.gaps


def test_what_does_not_fit_is_shared() -> None:
    scene = Scene(*swinging(), budget=3).play(600.0)
    short = [sum(kept) > 3 for kept in scene.kept]
    assert any(short) and not all(short)
    for given, kept, is_short in zip(scene.given, scene.kept, short, strict=True):
        assert (sum(given) == 3) if is_short else (given == kept)
        assert all(one <= most for one, most in zip(given, kept, strict=True))


def test_floors_and_caps_hold() -> None:
    scene = Scene(often(60, 0.1), np.zeros(0), cap=2, floor=1).play(60.0)
    given = np.array(scene.given)
    assert given.min() == 1 and given[:, 0].max() == 2 and (given[:, 1] == 1).all()
