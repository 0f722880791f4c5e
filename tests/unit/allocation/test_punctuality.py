"""On-time tables against formulas that are known, and against the simulator."""

from __future__ import annotations

import math

import numpy as np
import pytest

from headgate.allocation import punctuality
from headgate.allocation.punctuality import Service
from headgate.allocation.simulator import world


def on_time(service: Service, replicas: int, load: float) -> float:
    return float(punctuality.table(service, replicas)[replicas, round(load * 100)])


def test_one_exponential_server_is_late_as_the_formula_of_mm1_says() -> None:
    service = Service(mean_s=1.0, variation=1.0, slack=((1.0, 2.0),))
    assert on_time(service, 1, 0.8) == pytest.approx(1.0 - 0.8 * math.exp(-0.2 * 2.0))


def test_more_replicas_never_hurt_and_more_load_never_helps() -> None:
    table = punctuality.table(Service(mean_s=0.2, variation=0.4, slots=4, slow=(1.0, 1.3, 1.6, 2.0)), 12)
    assert (np.diff(table, axis=0) >= 0.0).all()
    assert (np.diff(table, axis=1) <= 1e-12).all()
    assert table[0].max() == 0.0 and table[-1, 0] == 1.0


def test_a_request_that_takes_longer_than_the_slo_is_late_on_an_idle_replica() -> None:
    service = Service(mean_s=0.2, slack=((0.9, 1.0), (0.1, -0.5)))
    assert on_time(service, 4, 0.0) == pytest.approx(0.9)


def test_reading_interpolates_between_loads_and_knows_each_pipelines_table() -> None:
    disciplines = (Service(mean_s=1.0), Service(mean_s=0.5))
    tables = np.stack([punctuality.table(service, 3) for service in disciplines])
    rates = np.array([[0.5, 1.234], [1.0, 0.0]])
    read = punctuality.read(tables, np.array([0, 1]), rates, np.array([1.0, 2.0]))
    assert read.shape == (2, 2, 4)
    assert read[0, 0, 1] == pytest.approx(tables[0, 1, 50])
    assert read[1, 0, 2] == pytest.approx(tables[1, 2, 25])
    low, high = tables[0, 3, 41], tables[0, 3, 42]
    assert read[0, 1, 3] == pytest.approx(low + (high - low) * (1.234 / 3 - 0.41) / 0.01)
    assert (read[:, :, 0] == 0.0).all()


@pytest.mark.parametrize(("replicas", "load"), [(1, 0.7), (2, 0.8), (4, 0.85), (6, 0.9)])
def test_lognormal_service_is_within_three_points_of_the_simulator(replicas: int, load: float) -> None:
    rng = np.random.default_rng(5)
    count = 60_000
    work = 0.08 + 0.069 * np.exp(0.42 * rng.standard_normal(count))
    mean = float(work.mean())
    at = np.cumsum(rng.exponential(mean / (load * replicas), count))
    service = world.Discipline(queue=5000, depth=1, late_s=0.72)
    place = world.World([service], [world.Requests(at=at, work=work)], 8, turns=False)
    for _ in range(replicas):
        place.start(0, 0.0)
    place.advance(float(at[-1]) + 60.0)
    slack = tuple((0.01, 0.72 - float(own)) for own in np.quantile(work, np.linspace(0.005, 0.995, 100)))
    table_service = Service(mean_s=mean, variation=float(work.var() / mean**2), slack=slack)
    assert on_time(table_service, replicas, load) == pytest.approx(float((place.latency <= 0.72).mean()), abs=0.03)
