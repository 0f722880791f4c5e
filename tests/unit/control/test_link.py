import asyncio
import stat
import tempfile
from pathlib import Path

import pytest

from headgate.control.link import Link
from headgate.core.errors import ConfigError, NotFound
from headgate.core.link_codec import Ask, Hello, Reply, decode, encode
from headgate.core.table import LoadReport, RoutingTable


class Ear:
    def __init__(self):
        self.heard = []

    def join(self, gateway):
        self.heard.append(("join", gateway))

    def leave(self, gateway):
        self.heard.append(("leave", gateway))

    def take_load(self, report):
        self.heard.append(("load", report.gateway))


class Gateway:
    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    @classmethod
    async def connect(cls, path: Path, name: str) -> "Gateway":
        gateway = cls(*await asyncio.open_unix_connection(str(path)))
        gateway.say(Hello(gateway=name, pid=1))
        return gateway

    def say(self, message) -> None:
        self.writer.write(encode(message))

    async def hear(self):
        async with asyncio.timeout(5):
            return decode(await self.reader.readline())


async def fail(params):
    raise ConfigError("line 3 is wrong", param="pipelines")


async def break_down(params):
    raise RuntimeError("a secret detail")


async def echo(params):
    return {"said": dict(params)}


@pytest.fixture
async def link():
    with tempfile.TemporaryDirectory(prefix="hg", dir="/tmp") as folder:
        link = Link(Path(folder) / "node.sock", {"echo": echo, "fail": fail, "break": break_down})
        link.ear = Ear()
        link.path = Path(folder) / "node.sock"
        await link.open(link.ear)
        yield link
        await link.close()


def make_table(number: int) -> RoutingTable:
    return RoutingTable(node="n", number=number, pipelines={}, replicas={})


async def until(happened):
    async with asyncio.timeout(5):
        while not happened():
            await asyncio.sleep(0.001)


async def test_a_gateway_gets_the_newest_table_when_it_comes_and_every_one_after(link):
    link.publish(make_table(1))
    link.publish(make_table(2))
    one, other = [await Gateway.connect(link.path, name) for name in ("g1", "g2")]
    assert (await one.hear()).number == (await other.hear()).number == 2
    link.publish(make_table(3))
    assert (await one.hear()).number == (await other.hear()).number == 3
    one.writer.close()
    other.writer.close()


async def test_coming_reporting_and_leaving_are_told(link):
    gateway = await Gateway.connect(link.path, "g1")
    gateway.say(LoadReport(gateway="g1", pid=1, table_number=0, pipelines={}, in_flight={}))
    await until(lambda: len(link.ear.heard) == 2)
    gateway.writer.close()
    await until(lambda: link.ear.heard[-1] == ("leave", "g1"))
    assert link.ear.heard == [("join", "g1"), ("load", "g1"), ("leave", "g1")]


async def test_a_gateway_that_connects_anew_is_not_struck_off_by_the_end_of_its_old_link(link):
    old = await Gateway.connect(link.path, "g1")
    await until(lambda: link.ear.heard)
    new = await Gateway.connect(link.path, "g1")
    await until(lambda: len(link.ear.heard) == 2)
    old.writer.close()
    new.say(Ask(id=1, method="echo"))
    await new.hear()
    assert ("leave", "g1") not in link.ear.heard
    new.writer.close()


async def test_questions_are_answered_and_errors_come_back_as_their_class(link, caplog):
    gateway = await Gateway.connect(link.path, "g1")
    gateway.say(Ask(id=1, method="echo", params={"x": 1}))
    assert await gateway.hear() == Reply(id=1, result={"said": {"x": 1}})
    gateway.say(Ask(id=2, method="fail"))
    with pytest.raises(ConfigError, match="line 3"):
        (await gateway.hear()).unwrap()
    gateway.say(Ask(id=3, method="dance"))
    with pytest.raises(NotFound, match="echo"):
        (await gateway.hear()).unwrap()
    gateway.say(Ask(id=4, method="break"))
    reply = await gateway.hear()
    assert reply.error.status == 500 and "secret detail" not in reply.error.message
    gateway.writer.close()


async def test_nonsense_closes_that_link_only(link):
    bad, good = [await Gateway.connect(link.path, name) for name in ("bad", "good")]
    bad.writer.write(b"hello?\n")
    assert await bad.reader.read() == b""
    good.say(Ask(id=1, method="echo"))
    assert (await good.hear()).id == 1
    good.writer.close()


async def test_only_this_user_may_open_the_socket_and_an_old_one_is_replaced(link):
    assert stat.S_IMODE(link.path.stat().st_mode) == 0o600
    second = Link(link.path, {})
    await second.open(Ear())
    gateway = await Gateway.connect(link.path, "g1")
    second.publish(make_table(9))
    assert (await gateway.hear()).number == 9
    gateway.writer.close()
    await second.close()


def test_a_path_that_is_too_long_is_refused_with_the_cure():
    with pytest.raises(ConfigError, match="shorter state folder"):
        Link(Path("/tmp") / ("x" * 120), {})
