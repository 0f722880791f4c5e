import asyncio
from dataclasses import replace
from types import SimpleNamespace

import orjson
import pytest

from headgate.control.fleets import local
from headgate.control.fleets.fleet import Gone, StartOrder
from headgate.control.fleets.local import LocalFleet
from headgate.control.fleets.looks import Looks, Suspect
from headgate.control.journal import MemoryJournal
from headgate.core.chance import SeededChance
from headgate.core.clock import ManualClock
from headgate.core.errors import UpstreamFailed
from headgate.workers.exits import Exit
from tests.unit.control.world import StubEngine, make_model


class Patient:
    """A replica as a look sees it: `says` is what comes of asking it ('fails', 'hangs' or an answer)."""

    def __init__(self, says: str) -> None:
        self.says = says
        self.asked = 0
        self.busy = False
        self.verdicts: list[str] = []

    async def ask(self) -> None:
        self.asked += 1
        if self.says == "fails":
            raise UpstreamFailed("no", code="replica_unreachable")
        if self.says == "hangs":
            await asyncio.Event().wait()

    def look(self, looks: Looks) -> None:
        looks.begin(Suspect(replica="r", ask=self.ask, busy=lambda: self.busy, condemn=self.verdicts.append))


async def pass_time(clock: ManualClock, seconds: float) -> None:
    for _ in range(round(seconds / 0.5)):
        await clock.advance(0.5)
        for _ in range(10):
            await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("says", "least_s", "most_s", "words"),
    [("fails", 0.4, 1.5, "replica_unreachable"), ("hangs", 25.0, 35.0, "no token in 10 s")],
)
async def test_one_that_does_not_answer_is_condemned_after_three_tries(says, least_s, most_s, words):
    clock, patient = ManualClock(), Patient(says)
    looks = Looks(clock)
    patient.look(looks)
    await pass_time(clock, least_s)
    assert not patient.verdicts
    await pass_time(clock, most_s - least_s)
    assert len(patient.verdicts) == 1 and words in patient.verdicts[0] and patient.asked == 3
    patient.says = "answers"
    patient.look(looks)  # another look is possible
    await pass_time(clock, 0.5)
    assert patient.asked == 4
    looks.close()


async def test_one_that_answers_is_asked_once_for_many_reports():
    clock, patient = ManualClock(), Patient("answers")
    looks = Looks(clock)
    for _ in range(4):
        patient.look(looks)
        await pass_time(clock, 0.5)
    assert (patient.asked, patient.verdicts) == (1, [])
    await pass_time(clock, 1.0)
    patient.look(looks)
    await pass_time(clock, 0.5)
    assert patient.asked == 2
    looks.close()
    await asyncio.sleep(0)


async def test_one_that_is_busy_is_condemned_only_once_it_is_not():
    clock, patient = ManualClock(), Patient("fails")
    patient.busy = True
    looks = Looks(clock)
    patient.look(looks)
    await pass_time(clock, 10.0)
    assert patient.asked > 3 and not patient.verdicts
    patient.busy = False
    await pass_time(clock, 1.0)
    assert len(patient.verdicts) == 1


async def test_one_that_recovers_or_ends_is_not_condemned():
    clock, patient = ManualClock(), Patient("fails")
    looks = Looks(clock)
    patient.look(looks)
    patient.says = "answers"
    await pass_time(clock, 5.0)
    patient.says = "hangs"
    patient.look(looks)
    await pass_time(clock, 5.0)
    looks.end("r")
    await pass_time(clock, 60.0)
    assert not patient.verdicts


class Process:
    """A replica's process, as far as the fleet looks at it."""

    def __init__(self, labels) -> None:
        self.record = SimpleNamespace(pid=7, started_ticks=1, labels=labels)
        self.exit = None
        self.ended = asyncio.get_running_loop().create_future()

    async def wait(self) -> Exit:
        return await asyncio.shield(self.ended)

    async def stop(self) -> Exit:
        self.kill()
        return await self.wait()

    def kill(self) -> None:
        if not self.ended.done():
            self.ended.set_result(Exit(pid=7, started_ticks=1, code=None, signal="SIGKILL", at=0.0))


class Engine(StubEngine):
    broken = False

    def command(self, launch):
        return SimpleNamespace()

    async def check_ready(self, upstream, version) -> None:
        assert version.task == "generate"
        if self.broken:
            raise UpstreamFailed("no")


async def make_fleet(monkeypatch, folder, clock, engine, events) -> tuple[LocalFleet, MemoryJournal]:
    """A fleet with one ready replica 'r' that has no real process."""

    async def start(host, command, launch, *, labels, **more):
        return Process(labels)

    async def wait_ready(*given, **more) -> float:
        return 0.1

    monkeypatch.setattr(local.ReplicaProcess, "start", start)
    monkeypatch.setattr(local, "wait_ready", wait_ready)
    journal = MemoryJournal()
    fleet = LocalFleet(
        host=SimpleNamespace(choose_address=lambda replica: f"unix:{folder / replica}.sock"),
        engines={"stub": engine}, journal=journal, clock=clock,
        chance=SeededChance(1),
    )  # fmt: skip
    fleet.listen(events.append)
    seat = SimpleNamespace(pool="cpu", node="local", devices=(0,), share=1.0, memory_bytes=1)
    order = StartOrder(
        replica="r", pipeline="p", model=replace(make_model("m"), engine=engine), configuration="c", seat=seat,
        kind="cpu", epoch=1, ready_s=1.0,
    )  # fmt: skip
    fleet.start(order)
    await pass_time(clock, 0.5)
    assert [one.stage for one in fleet.members()] == ["ready"]
    return fleet, journal


async def test_the_local_fleet_takes_back_what_drains_and_nothing_that_stops(monkeypatch, tmp_path):
    clock = ManualClock()
    fleet, journal = await make_fleet(monkeypatch, tmp_path, clock, Engine(), [])
    fleet.drain("r", "idle")
    fleet.take_back("r")
    assert [one.stage for one in fleet.members()] == ["ready"]
    assert (journal.replicas["r"]["state"], journal.replicas["r"]["reason"]) == ("ready", None)
    fleet.drain("r", "idle")
    fleet.stop("r", "idle")
    fleet.take_back("r")
    assert [one.stage for one in fleet.members()] == ["draining"]
    await pass_time(clock, 1.0)
    assert fleet.members() == () and journal.replicas["r"]["reason"] == "idle"


async def test_the_local_fleet_ends_a_broken_replica_as_one_that_failed(monkeypatch, tmp_path):
    clock, engine, events = ManualClock(), Engine(), []
    fleet, journal = await make_fleet(monkeypatch, tmp_path, clock, engine, events)
    fleet.look_at("r", lambda: False)
    fleet.look_at("another", lambda: False)
    await pass_time(clock, 5.0)
    assert [one.stage for one in fleet.members()] == ["ready"], "it answers: it stays"
    engine.broken = True
    fleet.look_at("r", lambda: False)
    await pass_time(clock, 2.0)
    assert fleet.members() == ()
    gone = events[-1]
    assert isinstance(gone, Gone) and not gone.asked and "suspect" in gone.why
    assert journal.replicas["r"]["state"] == "failed" and orjson.dumps(journal.replicas["r"])
    await fleet.close(stop_replicas=True)
