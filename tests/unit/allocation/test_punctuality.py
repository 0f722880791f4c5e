"""On-time tables against formulas that are known, and against the simulator."""

from __future__ import annotations

import math

import numpy as np
import pytest

from headgate.allocation import punctuality
from headgate.allocation.punctuality import Lines, Service
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
    tables = np.stack([punctuality.table(service, 3) for service in (Service(mean_s=1.0), Service(mean_s=0.5))])
    which, replicas = np.array([0, 0, 0, 1, 1, 1]), np.array([0, 1, 3, 0, 2, 3])
    load = np.array([[0.0, 0.5, 0.414, 0.3, 0.25, 5.0]], np.float32)
    read = punctuality.read(tables, which, replicas, load)
    assert read.shape == (1, 6)
    assert read[0, 0] == read[0, 3] == 0.0
    assert read[0, 1] == pytest.approx(tables[0, 1, 50])
    assert read[0, 2] == pytest.approx(tables[0, 3, 41] + 0.4 * (tables[0, 3, 42] - tables[0, 3, 41]))
    assert read[0, 4] == pytest.approx(tables[1, 2, 25])
    assert read[0, 5] == pytest.approx(tables[1, 3, -1], rel=1e-4)


def test_up_to_a_calm_load_replicas_do_as_well_as_can_be() -> None:
    service = Service(mean_s=0.2, slots=2, slack=((0.9, 1.0), (0.1, -0.5)))
    table = punctuality.table(service, 8)
    calm = punctuality.find_calm(table[None])[0]
    assert calm[0] == 0.0 and (np.diff(calm) >= 0.0).all() and 3.0 < calm[8] < 8.0
    step = round(100 * float(calm[8]) / 8)
    assert table[8, step] == pytest.approx(0.9, abs=2e-7) and table[8, step + 1] < 0.9 - 1e-7


def passed(
    rate: float, replicas: int, waiting: float, seconds: float, service: Service | None = None, room: float = math.inf
) -> tuple[float, float]:
    service = service or Service(mean_s=0.5, slack=((1.0, 2.0),))
    lines = Lines(
        tables=punctuality.table(service, replicas)[None],
        which=np.array([0]),
        replica_rates=single(service.replica_rate),
        slack_s=single(service.slack_s),
        room=single(room),
    )
    on_time, after = punctuality.pass_stretch(
        lines, single(rate)[None], np.array([replicas]), single(waiting)[None], single(seconds)
    )
    return float(on_time[0, 0]), float(after[0, 0])


def single(number: float) -> np.ndarray:
    return np.array([number], np.float32)


def test_a_queue_grows_by_what_cannot_be_served_and_no_further_than_there_is_room() -> None:
    assert passed(rate=10.0, replicas=4, waiting=3.0, seconds=20.0)[1] == pytest.approx(43.0)
    assert passed(rate=10.0, replicas=4, waiting=3.0, seconds=20.0, room=30.0)[1] == 30.0
    assert passed(rate=2.0, replicas=4, waiting=3.0, seconds=20.0)[1] == 0.0


def test_requests_are_late_while_more_wait_than_are_served_within_their_slack() -> None:
    # Four replicas serve 8 a second: 16 may wait. 40 wait, 2 a second come: 4 s until there are 16.
    calm = passed(rate=2.0, replicas=4, waiting=0.0, seconds=20.0)[0]
    assert passed(rate=2.0, replicas=4, waiting=40.0, seconds=20.0)[0] == pytest.approx(calm * (1.0 - 4.0 / 20.0))
    # 10 a second come to who serves 8: after 8 s there are 16.
    full = passed(rate=10.0, replicas=4, waiting=0.0, seconds=20.0)[0]
    assert 0.3 < full <= 8.0 / 20.0
    assert passed(rate=8.0, replicas=4, waiting=17.0, seconds=20.0)[0] == 0.0
    assert passed(rate=1.0, replicas=0, waiting=0.0, seconds=20.0) == (0.0, 20.0)


def test_in_a_short_stretch_heavy_load_shows_less_than_in_the_long_run() -> None:
    shorter, short, long = (passed(rate=7.9, replicas=4, waiting=0.0, seconds=lasts)[0] for lasts in (2.0, 30.0, 9e4))
    assert shorter > short > long
    assert passed(rate=2.0, replicas=4, waiting=0.0, seconds=30.0)[0] == pytest.approx(
        passed(rate=2.0, replicas=4, waiting=0.0, seconds=9e4)[0]
    )


def test_a_queue_of_the_simulator_fares_as_is_reckoned() -> None:
    rng = np.random.default_rng(8)
    late: list[float] = []
    for _ in range(40):
        at = np.sort(rng.uniform(0.0, 30.0, rng.poisson(30.0 * 4.5)))
        at = np.concatenate([np.zeros(60), at])  # sixty wait when it begins
        requests = world.Requests(at=at, work=rng.exponential(0.5, len(at)))
        place = world.World([world.Discipline(queue=5000, late_s=2.5)], [requests], 8, turns=False)
        for _ in range(4):
            place.start(0, 0.0)
        place.advance(90.0)
        late.append(float((place.latency[60:] <= 2.5).mean()))
    slack = tuple((0.1, 2.5 - float(own)) for own in -0.5 * np.log(1.0 - np.linspace(0.05, 0.95, 10)))
    service = Service(mean_s=0.5, slack=slack)
    assert passed(rate=4.5, replicas=4, waiting=56.0, seconds=30.0, service=service)[0] == pytest.approx(
        float(np.mean(late)), abs=0.12
    )


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
