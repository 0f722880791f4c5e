from dataclasses import replace

import pytest
from pydantic import ValidationError

from headgate.allocation.capacity import Capacity
from headgate.allocation.pipeline import Configuration, PipelineSpec
from headgate.allocation.profile import Profile
from headgate.allocation.state import Running
from headgate.control.demands import STALE_S, DemandBook
from headgate.control.faults import FaultBook
from headgate.control.settings import ControlSettings, PoolSettings
from headgate.core.chance import SeededChance
from headgate.core.table import LoadReport, PipelineLoad, ReplicaLoad
from headgate.pipelines.settings import PipelineSettings

ONLY = Configuration(key="v1", pool="cpu", share=1.0, slots=4, memory_bytes=1, wake_s=10.0)
NOWHERE = Capacity(pools=())
ONLY_A = {"a": PipelineSpec(name="a", configurations=(ONLY,))}


def report(gateway, number=1, in_flight=None, **loads) -> LoadReport:
    return LoadReport(
        gateway=gateway, pid=1, table_number=number, pipelines=loads, in_flight=in_flight or {}, suspects=("bad",)
    )


def test_reports_of_all_gateways_add_up_and_counts_are_counted_once():
    book = DemandBook()
    book.learn(ONLY_A, NOWHERE, 0.0)
    load = PipelineLoad(arrivals=5, settled=2, queued=1, in_flight=2, busy_s=1.0, oldest_wait_s=0.5)
    book.take(report("g1", in_flight={"r1": 2}, a=load), 0.5)
    book.take(report("g2", in_flight={"r1": 3}, a=PipelineLoad(queued=4, oldest_wait_s=0.2)), 0.6)
    demand = book.learn(ONLY_A, NOWHERE, 1.0)["a"]
    assert (demand.queued, demand.in_flight, demand.oldest_wait_s, demand.service_s) == (5, 2, 0.5, 0.5)
    assert book.in_flight("r1") == 5 and book.suspects() == {"bad"}
    before = demand.arrivals_per_s
    assert book.learn(ONLY_A, NOWHERE, 1.5)["a"].arrivals_per_s < before
    assert book.names == {"g1", "g2"}


def test_a_replica_is_drained_when_every_gateway_says_so_knowing_the_table():
    book = DemandBook()
    book.join("g1", 0.0)
    assert not book.is_drained("r1", 7), "nothing was said yet"
    book.take(report("g1", number=6), 0.1)
    assert not book.is_drained("r1", 7), "said before it knew"
    book.take(report("g1", number=7, in_flight={"r1": 1}), 0.2)
    assert not book.is_drained("r1", 7)
    book.take(report("g1", number=7), 0.3)
    assert book.is_drained("r1", 7)
    book.join("g2", 0.4)
    assert not book.is_drained("r1", 7)
    book.leave("g2")
    assert book.is_drained("r1", 7)


def test_a_silent_gateway_is_forgotten():
    book = DemandBook()
    book.take(report("g1", a=PipelineLoad(queued=9)), 0.0)
    assert book.learn(ONLY_A, NOWHERE, STALE_S)["a"].queued == 9
    assert book.learn(ONLY_A, NOWHERE, STALE_S + 0.1)["a"].queued == 0


def test_a_forecast_is_told_once_enough_is_known_and_forgotten_with_its_pipeline():
    book = DemandBook()
    book.learn(ONLY_A, NOWHERE, 0.0)
    for second in range(1, 31):
        book.take(report("g1", a=PipelineLoad(arrivals=4, in_flight=2)), float(second))
        outlook = book.learn(ONLY_A, NOWHERE, float(second))["a"].outlook
        assert (outlook is not None) == (second >= 10)
    assert list(outlook.near) == sorted(outlook.near) and outlook.near[3] == pytest.approx(4.0, rel=0.2)
    book.learn({}, NOWHERE, 31.0)
    assert book.learn(ONLY_A, NOWHERE, 33.0)["a"].outlook is None


def test_what_replicas_took_corrects_their_configuration_whoever_else_is_on_them():
    told = {}
    for crowd in (0, 1):
        spec = PipelineSpec(
            name="a",
            configurations=tuple(
                replace(ONLY, key=key, profile=Profile(service_s=1.0, slow=((1, 1.0), (2, 2.0))))
                for key in ("v1", "v2")
            ),
        )
        running = [
            Running(
                id=f"r{number}", pipeline="a", configuration=key, pool="cpu", node="n", devices=(0,), share=1.0,
                memory_bytes=1, stage="ready",
            )
            for number, key in enumerate(("v1", "v2", "gone"))
        ]  # fmt: skip
        book = DemandBook()
        for second in range(60):
            fast, slow = (ReplicaLoad(settled=10, busy_s=busy_s, together_s=busy_s) for busy_s in (10.0, 30.0))
            loads = {"r0": fast, "r1": slow, "r2": slow, "unknown": slow}
            book.take(report("g2", in_flight={"r1": crowd}), float(second))
            book.take(replace(report("g1", in_flight={"r1": 1}), replicas=loads), float(second))
            told = book.learn({"a": spec}, NOWHERE, float(second), running=running)["a"].corrections
        # With one more request of another gateway beside each of its own, half of the time is the company's.
        assert list(told) == ["v1", "v2"]
        assert told["v2"] / told["v1"] == pytest.approx((3.0, 1.5)[crowd], rel=0.15)


def test_failures_back_off_block_and_are_forgotten_with_the_configuration():
    book = FaultBook(ControlSettings(block_after=3, block_retry_s=60), SeededChance(1))
    waits = [book.count("a", "v1", "exited with code 1", 0.0, now=0.0) for _ in range(3)]
    assert 0.7 < waits[0] < waits[1] and waits[2] == 60.0
    assert "3 times in a row" in book.blocked("a", ["v1"]) and book.held(59.0) == {"a": {"v1": "exited with code 1"}}
    assert book.held(60.0) == {} and book.next_retry(50.0) == 10.0
    book.settle({"a": ("v1",)})
    assert book.failures("a") == 3
    book.settle({"a": ("v2",)})
    assert book.failures("a") == 0 and book.blocked("a", ["v2"]) is None


def test_a_long_healthy_run_starts_the_count_anew():
    book = FaultBook(ControlSettings(), SeededChance(1))
    for _ in range(3):
        book.count("a", "v1", "x", 0.0, now=0.0)
    book.count("a", "v1", "x", 3600.0, now=0.0)
    assert book.failures("a") == 1


@pytest.mark.parametrize(
    ("kind", "told", "text"),
    [
        (PoolSettings, {"cores": []}, "at least one core"),
        (PoolSettings, {"cores": [1, 1]}, "twice"),
        (PoolSettings, {"cores": 0}, "greater than or equal to 1"),
        (PoolSettings, {"memory": "much"}, "not a size"),
        (PoolSettings, {"colour": "red"}, "not permitted"),
        (PipelineSettings, {"model": "m", "floor": 5, "cap": 2}, "raise cap or lower floor"),
        (PipelineSettings, {"model": "m", "weight": 0}, "greater than 0"),
        (PipelineSettings, {"model": "m", "idle_s": "soon"}, "not a duration"),
        (PipelineSettings, {"model": "m", "timeout_s": float("nan")}, "not a duration"),
        (ControlSettings, {"tick_s": 0}, "greater than 0"),
    ],
)
def test_impossible_settings_are_refused_with_the_cure(kind, told, text):
    with pytest.raises(ValidationError, match=text):
        kind(**told)


def test_quantities_are_read_with_their_units():
    assert PoolSettings(memory="8GiB").memory == 8 * 2**30
    assert PipelineSettings(model="m", idle_s="2m").idle_s == 120.0
    assert PoolSettings(cores=[2, 3]).cores == (2, 3) and PoolSettings(cores=2).cores == 2
