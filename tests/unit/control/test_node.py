import asyncio
import os
import signal
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from headgate.control.fleets.fake import FakeFleet
from headgate.control.journal import MemoryJournal
from headgate.control.node import NodeParts, NodeProcess
from headgate.core.chance import SeededChance
from headgate.core.clock import ManualClock
from headgate.core.errors import BadRequest, ConfigError
from headgate.core.ids import Ids
from headgate.core.link_codec import Ask
from headgate.core.table import RoutingTable
from tests.unit.control.test_link import Gateway
from tests.unit.control.world import make_plan


class Scene:
    """A node process with its signals, in this process."""

    def __init__(self, folder: str):
        self.clock = ManualClock()
        self.fleet = FakeFleet(self.clock, load_s=0.0)
        self.next_plan = make_plan(a={"floor": 1}, b={"floor": 1})
        self.error = None
        self.asked = []
        self.downs = 0
        self.ready = asyncio.Event()
        chance = SeededChance(1)
        self.socket = Path(folder) / "node.sock"
        self.node = NodeProcess(
            NodeParts(
                id="n1", plan=make_plan(a={"floor": 1}), fleet=self.fleet, journal=MemoryJournal(), socket=self.socket,
                clock=self.clock, chance=chance, ids=Ids(self.clock, chance), load_plan=self.load, down=self.down,
            )
        )  # fmt: skip

    async def load(self, params):
        self.asked.append(dict(params))
        if self.error:
            raise self.error
        return self.next_plan

    def down(self):
        self.downs += 1

    async def ask(self, gateway, method, **params):
        gateway.say(Ask(id=len(self.asked) + 100, method=method, params=params))
        while isinstance(said := await gateway.hear(), RoutingTable):
            pass
        return said.unwrap()


@pytest.fixture
async def scene():
    with tempfile.TemporaryDirectory(prefix="hg", dir="/tmp") as folder:
        scene = Scene(folder)
        task = asyncio.ensure_future(scene.node.run(scene.ready.set))
        await scene.ready.wait()
        await scene.clock.advance(0.1)
        yield scene
        scene.node.stop(keep_replicas=False)
        await task


async def test_a_node_serves_its_floors_and_tells_its_status(scene):
    gateway = await Gateway.connect(scene.socket, "g1")
    table = await gateway.hear()
    assert [route.state for route in table.replicas.values()] == ["ready"]
    status = await scene.ask(gateway, "status")
    assert status["pipelines"]["a"]["ready"] == 1
    assert (await scene.ask(gateway, "decisions", limit=5))[0]["reason"].startswith("a 0 -> 1: floor")
    with pytest.raises(BadRequest, match="limit"):
        await scene.ask(gateway, "decisions", limit="all")
    gateway.writer.close()


async def test_a_good_file_is_applied_and_a_bad_one_leaves_the_last_good_one(scene):
    gateway = await Gateway.connect(scene.socket, "g1")
    assert (await scene.ask(gateway, "reload", path="x"))["pipelines"]["added"] == ["b"]
    assert scene.asked == [{"path": "x"}]
    before = scene.node.reconciler.plan
    scene.error = ConfigError("headgate.yaml:3: unknown setting 'flor'; did you mean 'floor'?")
    with pytest.raises(ConfigError, match="did you mean"):
        await scene.ask(gateway, "reload")
    scene.error = None
    scene.next_plan = replace(before, pipelines=tuple(replace(one, floor=9, cap=9) for one in before.pipelines))
    with pytest.raises(ConfigError, match="do not fit"):
        await scene.ask(gateway, "reload")
    assert scene.node.reconciler.plan is before
    assert {route.pipeline for route in scene.node.reconciler.table.replicas.values()} >= {"a"}
    gateway.writer.close()


async def test_sighup_reloads_and_a_bad_file_is_logged(scene, caplog):
    os.kill(os.getpid(), signal.SIGHUP)
    await asyncio.sleep(0.01)
    assert len(scene.node.reconciler.plan.pipelines) == 2
    scene.error = ConfigError("line 7")
    os.kill(os.getpid(), signal.SIGHUP)
    await asyncio.sleep(0.01)
    assert "line 7" in caplog.text and len(scene.node.reconciler.plan.pipelines) == 2


async def test_down_is_passed_on(scene):
    gateway = await Gateway.connect(scene.socket, "g1")
    await scene.ask(gateway, "down")
    assert scene.downs == 1
    gateway.writer.close()


@pytest.mark.parametrize(
    ("number", "left"), [(signal.SIGTERM, 0), (signal.SIGUSR2, 1), (signal.SIGINT, 1)], ids=["term", "usr2", "int"]
)
async def test_signals_end_the_node_with_or_without_its_replicas(number, left):
    with tempfile.TemporaryDirectory(prefix="hg", dir="/tmp") as folder:
        scene = Scene(folder)
        task = asyncio.ensure_future(scene.node.run(scene.ready.set))
        await scene.ready.wait()
        await scene.clock.advance(0.1)
        os.kill(os.getpid(), number)
        async with asyncio.timeout(5):
            await task
        assert len(scene.fleet.members()) == left
        assert not scene.socket.exists()
