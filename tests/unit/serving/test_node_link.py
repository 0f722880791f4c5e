"""The gateway's end of the link: tables are taken, questions answered, a lost node comes back."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from headgate.core import link_codec
from headgate.core.clock import ManualClock, SystemClock
from headgate.core.errors import Unavailable
from headgate.core.link_codec import Ask, Hello, Message, Reply
from headgate.core.table import LoadReport, RoutingTable
from headgate.serving import node_link
from headgate.serving.node_link import NodeLink


class Node:
    """Listens where a node would, and notes what it is told."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.told: list[Message] = []
        self.writers: list[asyncio.StreamWriter] = []
        self.server: asyncio.Server | None = None

    async def start(self) -> None:
        self.server = await asyncio.start_unix_server(self._listen, self.path)

    async def _listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        while line := await reader.readline():
            self.told.append(link_codec.decode(line))

    def say(self, line: bytes) -> None:
        self.writers[-1].write(line)

    async def stop(self) -> None:
        if self.server is not None:
            self.server.close()
        for writer in self.writers:
            writer.close()
        self.writers.clear()


class World:
    def __init__(self, folder: Path, clock: ManualClock | SystemClock) -> None:
        self.node = Node(str(folder / "n.sock"))
        self.tables: list[int] = []
        self.link = NodeLink(self.node.path, "g", 7, clock, self.take)

    def take(self, table: RoutingTable) -> None:
        if table.number == 13:
            raise ZeroDivisionError
        self.tables.append(table.number)

    async def until(self, condition: object) -> None:
        async with asyncio.timeout(5):
            while not condition():  # type: ignore[operator]
                await asyncio.sleep(0.001)


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(node_link, "_RETRY_S", 0.005)
    folder = Path(tempfile.mkdtemp(prefix="hgl", dir="/tmp"))
    made = World(folder, SystemClock())
    running = asyncio.create_task(made.link.run())
    yield made
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    await made.node.stop()
    shutil.rmtree(folder)


def table(number: int) -> bytes:
    return link_codec.encode(RoutingTable(node="n", number=number, pipelines={}, replicas={}))


LOAD = LoadReport(gateway="g", pid=7, table_number=0, pipelines={}, in_flight={})


async def test_it_says_who_it_is_and_takes_tables(world: World) -> None:
    world.link.report(LOAD)  # nobody listens: dropped
    await world.node.start()
    await world.until(lambda: world.node.told)
    assert world.node.told == [Hello(gateway="g", pid=7)]
    world.node.say(table(1))
    await world.until(lambda: world.tables == [1])
    world.link.report(LOAD)
    await world.until(lambda: world.node.told[-1] == LOAD)


@pytest.mark.parametrize("line", [b"garbage\n", b'{"kind":"what"}\n', table(13)])
async def test_it_survives_what_it_cannot_take(world: World, line: bytes) -> None:
    await world.node.start()
    await world.until(lambda: world.node.writers)
    world.node.say(line)
    await world.until(lambda: len(world.node.writers) == 2)
    world.node.say(table(2))
    await world.until(lambda: world.tables == [2])


async def test_a_lost_node_comes_back_and_open_questions_end(world: World) -> None:
    with pytest.raises(Unavailable):
        await world.link.ask("status")
    await world.node.start()
    await world.until(lambda: world.link.connected)
    asked = asyncio.create_task(world.link.ask("status"))
    await world.until(lambda: any(isinstance(message, Ask) for message in world.node.told))
    await world.node.stop()
    with pytest.raises(Unavailable):
        await asked
    await world.until(lambda: not world.link.connected)
    await world.node.start()
    await world.until(lambda: world.link.connected and world.node.writers)
    again = asyncio.create_task(world.link.ask("status", {"a": 1}))
    await world.until(lambda: isinstance(world.node.told[-1], Ask))
    number = world.node.told[-1].id  # type: ignore[union-attr]
    world.node.say(link_codec.encode(Reply(id=number, result={"fine": True})))
    assert await again == {"fine": True}


@pytest.fixture
async def patient() -> AsyncIterator[tuple[World, ManualClock]]:
    """A link that is up, and the clock it waits by."""
    folder = Path(tempfile.mkdtemp(prefix="hgl", dir="/tmp"))
    clock = ManualClock()
    made = World(folder, clock)
    await made.node.start()
    running = asyncio.create_task(made.link.run())
    await made.until(lambda: made.link.connected and made.node.writers)
    yield made, clock
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    await made.node.stop()
    shutil.rmtree(folder)


def asks(world: World) -> list[Ask]:
    return [message for message in world.node.told if isinstance(message, Ask)]


async def test_a_long_answer_is_waited_for_while_the_node_answers_others(patient: tuple[World, ManualClock]) -> None:
    world, clock = patient
    reload = asyncio.create_task(world.link.ask("reload", {"path": "x"}))
    await world.until(lambda: len(asks(world)) == 1)
    for signs in range(1, 11):  # ten times half a minute
        await clock.advance(node_link._SILENCE_S)
        await world.until(lambda signs=signs: len(asks(world)) == 1 + signs)
        assert asks(world)[-1].method == "status"
        world.node.say(link_codec.encode(Reply(id=asks(world)[-1].id, result={})))
        await world.until(lambda: list(world.link._asked) == [asks(world)[0].id])
        assert not reload.done()
    world.node.say(link_codec.encode(Reply(id=asks(world)[0].id, result={"pipelines": {}})))
    assert await reload == {"pipelines": {}}
    assert not world.link._asked


async def test_a_node_that_hangs_is_given_up(patient: tuple[World, ManualClock]) -> None:
    world, clock = patient
    asked = asyncio.create_task(world.link.ask("reload"))
    await world.until(lambda: len(asks(world)) == 1)
    await clock.advance(node_link._SILENCE_S)
    await world.until(lambda: len(asks(world)) == 2)
    assert not asked.done()
    await clock.advance(node_link._SILENCE_S)
    with pytest.raises(Unavailable, match="did not answer in time"):
        await asked
    assert not world.link._asked


async def test_a_node_that_goes_meanwhile_ends_the_wait(patient: tuple[World, ManualClock]) -> None:
    world, clock = patient
    asked = asyncio.create_task(world.link.ask("reload"))
    await world.until(lambda: len(asks(world)) == 1)
    await clock.advance(node_link._SILENCE_S)
    await world.until(lambda: len(asks(world)) == 2)
    await world.node.stop()
    with pytest.raises(Unavailable, match="restarted"):
        await asked
