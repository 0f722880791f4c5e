"""What the node decides stands in /metrics; a node that is away or hangs never spoils a scrape."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

from prometheus_client.parser import text_string_to_metric_families
from tests.unit.control.world import World, make_plan

from headgate.allocation.profile import Profile
from headgate.allocation.refine import Refinement
from headgate.control.status import build_status
from headgate.core.chance import SeededChance
from headgate.core.clock import ManualClock
from headgate.core.errors import HeadgateError
from headgate.core.ids import Ids
from headgate.core.principal import LOCAL_ADMIN
from headgate.core.table import ReplicaLoad
from headgate.gateway.admin import add_admin_api
from headgate.gateway.door import Door
from headgate.gateway.metrics import Metrics
from headgate.gateway.node_metrics import NodeFamilies
from headgate.serving.dispatch import Dispatcher
from headgate.serving.node_link import NodeLink

Samples = dict[tuple[str, tuple[str, ...]], float]
OWN = ("headgate_requests_total", ("p", "chat", "200"))


class Scraped:
    """A door with one request counted, and a node behind it when one is named."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        metrics = Metrics(Dispatcher(self.clock))
        metrics.count("p", "chat", 200)
        settings = SimpleNamespace(stalled_client_s=1.0)
        ids = Ids(self.clock, SeededChance(1))
        desk = SimpleNamespace(settings=settings, ids=ids, clock=self.clock, metrics=metrics, serving=None, access=None)
        self.desk = cast("Any", desk)
        self.door = Door(self.desk)

    async def scrape(self) -> Samples:
        """Every sample of one scrape, by name and label values."""
        sent: list[Any] = []

        async def receive() -> Any:
            raise AssertionError("a scrape has no body")

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "GET", "path": "/metrics", "headers": [], "headgate.principal": LOCAL_ADMIN}
        await self.door(scope, receive, send)
        assert sent[0]["status"] == 200
        return {
            (one.name, tuple(one.labels[label] for label in _order(one.labels))): one.value
            for family in text_string_to_metric_families(sent[1]["body"].decode())
            for one in family.samples
            if not one.name.endswith("_created")
        }


def _order(labels: dict[str, str]) -> list[str]:
    return sorted(labels, key=["pipeline", "configuration", "pool", "kind", "stage", "status"].index)


async def test_what_the_node_decides_is_told() -> None:
    plan = make_plan(cores=2, a={"floor": 1, "weight": 2.0}, b={})
    profiled = replace(plan.models["a"], profile=Profile(service_s=1.0))
    async with World(replace(plan, models={**plan.models, "a": profiled})) as world:
        world.work = {"a": (8, 4), "b": (8, 0)}
        world.served = dict.fromkeys("ab", ReplicaLoad(settled=10, busy_s=20.0, together_s=20.0))
        await world.run(3.0)
        world.reconciler.refined.take(world.reconciler.number, Refinement(gap=0.003))
        told = build_status(world.reconciler)
    scraped = Scraped()

    async def look() -> dict[str, Any]:
        return told

    scraped.door.add_node(look)
    found = await scraped.scrape()
    pool, a = told["pools"][0], told["pipelines"]["a"]
    assert found[OWN] == 1.0
    assert found["headgate_gap_to_bound", ()] == told["gap_to_bound"] is not None
    assert found["headgate_gap_to_exact", ()] == told["gap_to_exact"] == 0.003
    assert found["headgate_pool_price", ("cpu",)] == pool["price"] is not None
    assert found["headgate_pool_cores", ("cpu",)] == 2.0
    assert found["headgate_pool_cores_used", ("cpu",)] == pool["cores_used"] == 2.0
    assert found["headgate_replicas", ("a", "ready")] == a["ready"] >= 1
    assert found["headgate_replicas", ("a", "starting")] == a["starting"]
    assert found["headgate_replicas_wanted", ("a",)] == a["wanted"] >= 1
    assert found["headgate_replicas_unmet", ("a",)] == a["unmet"]
    assert found["headgate_marginal_value", ("a",)] == a["value"] > 0.0
    assert found["headgate_shed_part", ("a",)] == a["shed"]
    ((key, factor),) = a["corrections"].items()
    assert found["headgate_service_correction", ("a", key)] == factor > 1.5
    assert told["pipelines"]["b"]["corrections"] == {}, "nothing was profiled"
    assert key in {one["configuration"] for one in told["replicas"] if one["pipeline"] == "a"}
    assert found["headgate_moves_total", ("start",)] == told["moves"]["start"] >= 2
    assert found["headgate_decisions_total", ()] == told["decisions"] >= 1
    assert found["headgate_crashes_total", ()] == 0.0
    families = list(NodeFamilies({}).collect())
    names = {f"{one.name}_total" if one.type == "counter" else one.name for one in families}
    assert names == {name for name, _ in found} - {name for name, _ in await Scraped().scrape()}


async def test_what_the_node_does_not_know_has_no_sample() -> None:
    scraped = Scraped()

    async def look() -> dict[str, Any]:
        return {"gap_to_bound": None, "decisions": 3, "pools": [{"name": "cpu", "price": None}], "pipelines": {"a": {}}}

    scraped.door.add_node(look)
    found = await scraped.scrape()
    assert [name for name, _ in found if name not in {one for one, _ in await Scraped().scrape()}] == [
        "headgate_decisions_total"
    ]


async def test_a_node_that_is_away_spoils_no_scrape() -> None:
    scraped = Scraped()
    add_admin_api(scraped.door, scraped.desk, NodeLink("/nowhere/n.sock", "g", 7, scraped.clock, lambda table: None))
    assert await scraped.scrape() == await Scraped().scrape()


async def test_an_error_of_the_node_spoils_no_scrape() -> None:
    scraped = Scraped()

    async def look() -> dict[str, Any]:
        raise HeadgateError("Something failed.")

    scraped.door.add_node(look)
    assert await scraped.scrape() == await Scraped().scrape()


async def test_a_node_that_hangs_is_waited_for_one_second_and_no_longer_asked() -> None:
    scraped = Scraped()
    left = asyncio.Event()

    async def look() -> dict[str, Any]:
        try:
            await asyncio.Event().wait()
        finally:
            left.set()
        raise AssertionError

    scraped.door.add_node(look)
    scrape = asyncio.ensure_future(scraped.scrape())
    for _ in range(3):  # until it waits
        await asyncio.sleep(0)
    await scraped.clock.advance(0.9)
    assert not scrape.done()
    await scraped.clock.advance(0.2)
    assert await scrape == await Scraped().scrape()
    await asyncio.sleep(0)
    assert left.is_set()
