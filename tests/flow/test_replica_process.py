"""Replica processes with real children: started as told, adopted when proven, ended without leftovers."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop
from pydantic import ValidationError

from headgate.core.chance import SystemChance
from headgate.core.clock import SystemClock
from headgate.core.errors import AdoptionRefused, ModelRefused, ReplicaNotReady, UpstreamFailed
from headgate.core.model import Version
from headgate.core.secret import Secret
from headgate.engines.engine import Command, Launch, Memory, ModelOptions, Upstream
from headgate.workers.exits import Exit, record_exit
from headgate.workers.isolation import find_isolation
from headgate.workers.proc import is_running, read_stat
from headgate.workers.readiness import wait_ready
from headgate.workers.record import ReplicaRecord, load_replicas
from headgate.workers.replica import ReplicaHost, ReplicaProcess, discard, prepare_host
from headgate.workers.settings import WorkerSettings
from headgate.workers.smoke import try_model
from headgate.workers.spawn import Placement

CLOCK = SystemClock()
CORE = max(os.sched_getaffinity(0))
VERSION = Version(
    digest="sha256:0",
    format="fake",
    task="generate",
    architecture="test",
    parameters=None,
    context=64,
    bytes=10,
    path="",
)
OPTIONS = ModelOptions(context=64, slots=1)

SERVER = """
import json, os, signal, socket, sys
launch = json.load(sys.stdin)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
handle = socket.socket(socket.AF_UNIX)
handle.bind(launch["socket"])
handle.listen()
print("serving", launch["secret"], flush=True)
while True:
    caller, _ = handle.accept()
    right = caller.recv(200).decode() == launch["secret"]
    caller.sendall(b"token" if right else b"refused")
    caller.close()
"""
TELL = """
import json, os, sys
print(json.dumps({
    "cores": sorted(os.sched_getaffinity(0)), "leader": os.getsid(0) == os.getpid() == os.getpgid(0),
    "umask": os.umask(0), "environment": dict(os.environ), "stdin": sys.stdin.read(),
    "devices": [line.split(":")[0].strip() for line in open("/proc/net/dev") if ":" in line],
    "nice": os.getpriority(os.PRIO_PROCESS, 0), "fds": sorted(os.listdir("/proc/self/fd")),
}), flush=True)
"""
STUBBORN = """
import signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
print(child.pid, flush=True)
while True: signal.pause()
"""


class SocketEngine:
    """Starts a given program and speaks its three-word protocol."""

    name = "test"
    leaves_walls = False

    def __init__(self, program: str = SERVER) -> None:
        self.program = program

    def check(self, version: Version, options: ModelOptions) -> None:
        pass

    def estimate_memory(self, version: Version, options: ModelOptions) -> Memory:
        return Memory(weights=1 << 20, kv_cache=0, compute=0, overhead=0)

    def command(self, launch: Launch) -> Command | None:
        given = json.dumps({"socket": launch.host, "secret": launch.secret.reveal()})
        return Command(argv=(sys.executable, "-c", self.program), stdin=given.encode())

    async def check_ready(self, upstream: Upstream, version: Version) -> None:
        try:
            reader, writer = await asyncio.open_unix_connection(upstream.address.removeprefix("unix:"))
            writer.write(upstream.secret.reveal().encode())
            said = await reader.read(100)
            writer.close()
        except OSError as error:
            raise UpstreamFailed from error
        if said != b"token":
            raise UpstreamFailed


ENGINE: Any = SocketEngine()


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="hg-") as name:
        yield Path(name)


@pytest.fixture
async def host(folder: Path) -> AsyncIterator[ReplicaHost]:
    made = prepare_host(folder / "run", folder / "logs", CLOCK, WorkerSettings(grace_s=5))
    yield made
    for record in load_replicas(made.run):
        await discard(made, record)


def launch_of(host: ReplicaHost, replica: str = "r1") -> Launch:
    return Launch(
        replica=replica,
        version=VERSION,
        options=OPTIONS,
        address=host.choose_address(replica),
        secret=Secret("hush-hush-hush"),
    )


async def start(host: ReplicaHost, program: str = SERVER, **options: Any) -> ReplicaProcess:
    launch = launch_of(host, options.pop("replica", "r1"))
    command = SocketEngine(program).command(launch)
    assert command is not None
    options.setdefault("placement", Placement(cores=(CORE,)))
    return await ReplicaProcess.start(host, command, launch, epoch=3, **options)


def upstream_of(record: ReplicaRecord) -> Upstream:
    return Upstream(address=record.address, secret=record.secret)


async def ready(process: ReplicaProcess, deadline_s: float = 15.0) -> float:
    return await wait_ready(ENGINE, upstream_of(process.record), VERSION, process, CLOCK, deadline_s=deadline_s)


async def accepts(record: ReplicaRecord) -> bool:
    try:
        await ENGINE.check_ready(upstream_of(record), VERSION)
    except UpstreamFailed:
        return False
    return True


async def test_started_as_told(host: ReplicaHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "leak")
    before = os.sched_getaffinity(0), os.getpriority(os.PRIO_PROCESS, 0)
    process = await start(host, TELL, placement=Placement(cores=(CORE,), share=0.5))
    ended = await process.wait()
    assert ended.clean
    told = json.loads(Path(process.record.log).read_text())
    assert told["cores"] == [CORE]
    assert told["leader"]
    assert told["umask"] == 0o077
    assert told["nice"] == max(3, before[1])
    assert "hush-hush-hush" in told["stdin"]
    assert told["environment"]["OMP_NUM_THREADS"] == "1"
    assert "OPENAI_API_KEY" not in told["environment"]
    assert told["fds"] == ["0", "1", "2", "3"]  # 3 is the listing itself
    if host.isolation != "none":
        assert told["devices"] == ["lo"]
    assert (os.sched_getaffinity(0), os.getpriority(os.PRIO_PROCESS, 0)) == before
    assert Path(process.record.log).stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(shutil.which("unshare") is None, reason="util-linux is not here")
async def test_a_network_of_its_own_by_a_program(host: ReplicaHost) -> None:
    process = await start(dataclasses.replace(host, isolation="program"), TELL)
    ended = await process.wait()
    if not ended.clean:
        pytest.skip("this kernel gives nobody a user namespace")
    told = json.loads(Path(process.record.log).read_text())
    assert told["devices"] == ["lo"]
    assert told["cores"] == [CORE]
    assert told["leader"]


def test_watched_on_the_loop_of_the_product(folder: Path) -> None:
    async def live_and_die() -> None:
        host = prepare_host(folder / "run", folder / "logs", CLOCK, WorkerSettings())
        process = await start(host)
        await ready(process)
        assert (process.read_cpu_s() or 0) >= 0
        os.kill(process.record.pid, signal.SIGKILL)
        assert (await asyncio.wait_for(process.wait(), 10)).signal == "SIGKILL"
        assert process.read_cpu_s() is None

    uvloop.run(live_and_die())


async def test_ready_measured_stopped_and_nothing_left(host: ReplicaHost) -> None:
    process = await start(host, labels={"pipeline": "p"})
    assert await ready(process) > 0
    memory = process.read_memory()
    assert memory.rss and memory.peak and memory.peak >= memory.rss
    (record,) = load_replicas(host.run)
    assert record == process.record
    assert record.labels == {"pipeline": "p"}
    assert (host.run / "replica-r1.json").stat().st_mode & 0o777 == 0o600
    assert "hush" not in repr(record)
    ended = await process.stop()
    assert ended.clean
    assert (ended.pid, ended.name) == (record.pid, "r1")
    assert list(host.run.iterdir()) == []
    assert process.log_tail() == ["serving ***"]
    assert process.read_memory().peak == memory.peak
    assert (await process.stop()) == ended  # once more does no harm


async def test_the_stubborn_are_killed_with_all_they_started(host: ReplicaHost) -> None:
    process = await start(host, STUBBORN)
    while not process.log_tail():
        await asyncio.sleep(0.01)
    child = int(process.log_tail()[0])
    stat = read_stat(child)
    assert stat is not None
    ended = await process.stop(0.1)
    assert ended.signal == "SIGKILL"
    assert not ended.out_of_memory  # we did it
    until = time.monotonic() + 5
    while is_running(child, stat.started_ticks) and time.monotonic() < until:
        await asyncio.sleep(0.01)
    assert not is_running(child, stat.started_ticks)


async def test_a_crash_is_noticed_at_once_with_its_code(host: ReplicaHost) -> None:
    process = await start(host, "import sys; print('why: hush-hush-hush'); sys.exit(3)")
    with pytest.raises(ReplicaNotReady, match="r1 exited with code 3 before it was ready") as caught:
        await ready(process)
    assert "why" not in caught.value.message
    assert process.log_tail() == ["why: ***"]
    assert process.exit is not None
    assert process.exit.code == 3


async def test_memory_errors_are_told_as_such(host: ReplicaHost) -> None:
    process = await start(host, "raise MemoryError('cannot allocate memory')")
    assert (await process.wait()).out_of_memory


async def test_not_ready_in_time(host: ReplicaHost) -> None:
    process = await start(host, "import signal; signal.pause()")
    with pytest.raises(ReplicaNotReady, match=r"no token in 0\.1 s"):
        await ready(process, 0.1)
    assert process.exit is None
    assert (await process.stop()).signal == "SIGTERM"


async def test_a_command_that_is_not_there(host: ReplicaHost) -> None:
    with pytest.raises(ReplicaNotReady, match="/no/such/engine cannot be started: No such file"):
        await ReplicaProcess.start(
            host, Command(argv=("/no/such/engine",)), launch_of(host), epoch=1, placement=Placement(cores=())
        )
    assert load_replicas(host.run) == []


async def test_two_replicas_share_a_core(host: ReplicaHost) -> None:
    shared = Placement(cores=(CORE,), share=0.25)
    first = await start(host, replica="a", placement=shared)
    second = await start(host, replica="b", placement=shared)
    assert await ready(first) > 0 and await ready(second) > 0
    assert os.sched_getaffinity(first.record.pid) == os.sched_getaffinity(second.record.pid) == {CORE}
    assert len(load_replicas(host.run)) == 2
    await asyncio.gather(first.stop(), second.stop())


async def test_standard_input_that_nobody_reads_does_not_block(host: ReplicaHost) -> None:
    command = Command(argv=(sys.executable, "-c", "import signal; signal.pause()"), stdin=b"x" * 2**21)
    process = await ReplicaProcess.start(host, command, launch_of(host), epoch=1, placement=Placement(cores=(CORE,)))
    await process.stop()


STARTER = """
import asyncio, sys
sys.path.insert(0, {root!r})
from pathlib import Path
from tests.flow.test_replica_process import *
async def main():
    host = prepare_host(Path({run!r}), Path({logs!r}), CLOCK, WorkerSettings())
    process = await start(host)
    await ready(process)
    process.detach()
    print("started", flush=True)
asyncio.run(main())
"""


async def start_elsewhere(host: ReplicaHost) -> ReplicaRecord:
    """A replica whose node has ended: a child of another process now."""
    root = str(Path(__file__).parents[2])
    text = STARTER.format(root=root, run=str(host.run), logs=str(host.logs))
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", text], capture_output=True, text=True, timeout=30
    )
    assert done.stdout == "started\n", done.stderr
    (record,) = load_replicas(host.run)
    return record


async def test_adopted_after_its_node_ended_and_its_end_read_from_the_record(host: ReplicaHost) -> None:
    record = await start_elsewhere(host)
    assert record.alive
    assert record.epoch == 3
    process = await ReplicaProcess.adopt(host, record, accepts)
    await ENGINE.check_ready(upstream_of(record), VERSION)
    seen = Exit(pid=record.pid, started_ticks=record.started_ticks, code=0, signal=None, at=1.0)
    record_exit(host.run / "exits.jsonl", seen)  # as the supervisor does
    ended = await process.stop()
    assert (ended.code, ended.signal) == (0, None)
    assert not record.alive
    assert load_replicas(host.run) == []


async def test_an_end_that_nobody_saw(host: ReplicaHost) -> None:
    record = await start_elsewhere(host)
    process = await ReplicaProcess.adopt(host, record, accepts)
    os.kill(record.pid, signal.SIGKILL)
    ended = await process.wait()
    assert (ended.code, ended.signal) == (None, None)
    assert ended.describe() == "ended, nobody saw how"


async def test_adoption_is_refused_to_all_others(host: ReplicaHost) -> None:
    process = await start(host)
    await ready(process)
    record = process.record
    other_start = _with(record, started_ticks=record.started_ticks - 1)
    with pytest.raises(AdoptionRefused, match="is gone"):
        await ReplicaProcess.adopt(host, other_start, accepts)
    with pytest.raises(AdoptionRefused, match="does not take the secret"):
        await ReplicaProcess.adopt(host, _with(record, secret=Secret("guess")), accepts)
    await discard(host, other_start)  # must not hit the process that bears the number now
    assert record.alive
    await process.stop()
    with pytest.raises(AdoptionRefused, match="is gone"):
        await ReplicaProcess.adopt(host, record, accepts)


async def test_discard_ends_what_is_not_adopted(host: ReplicaHost) -> None:
    record = await start_elsewhere(host)
    await discard(host, record)
    until = time.monotonic() + 5
    while record.alive and time.monotonic() < until:
        await asyncio.sleep(0.01)
    assert not record.alive
    assert list(host.run.iterdir()) == []


async def test_a_smoke_trial_of_a_good_model() -> None:
    result = await trial(SERVER)
    assert result is not None
    assert result.ready_s > 0
    assert result.peak_bytes


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("import sys; print('test: bad tensor in layer 3'); sys.exit(3)", "code 3.*bad tensor in layer 3"),
        ("import os; os.abort()", "SIGABRT"),
        ("x = bytearray(64 * 2**30)", "more memory than it was given"),
        ("import signal; signal.signal(15, lambda *_: exit(0)); signal.pause()", "no token in 1 s"),
        ("while True: pass", "no token in 1 s|processor time"),
    ],
)
async def test_a_smoke_trial_refuses_with_the_cause(program: str, words: str) -> None:
    with pytest.raises(ModelRefused, match=words) as caught:
        await trial(program)
    assert "hush" not in caught.value.message


async def trial(program: str) -> Any:
    before = set(Path(tempfile.gettempdir()).glob("hg-*"))
    engine: Any = SocketEngine(program)
    try:
        return await try_model(
            engine,
            VERSION,
            OPTIONS,
            cores=(CORE,),
            settings=WorkerSettings(smoke_s=15 if program == SERVER else 1),
            clock=CLOCK,
            chance=SystemChance(),
        )
    finally:
        left = set(Path(tempfile.gettempdir()).glob("hg-*")) - before
        assert not [path for path in left if path.is_dir() and (path / "replica-smoke.log").exists()]


def test_isolation_is_found_or_refused() -> None:
    assert find_isolation("off") == "none"
    assert find_isolation("auto") in ("thread", "program", "none")
    assert find_isolation("auto", "loopback") == "none"
    with pytest.raises(ValidationError, match="listen: unix"):
        WorkerSettings(isolate="on", listen="loopback")


@pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/usr/bin/setpriv").exists(), reason="needs another user to try it as"
)
def test_isolation_without_privilege() -> None:
    code = "from headgate.workers.isolation import find_isolation; print(find_isolation('auto'))"
    tried = subprocess.run(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=20,
    )
    if tried.returncode != 0:
        pytest.skip("the interpreter cannot be read by another user")
    assert tried.stdout.strip() in ("program", "none")


def _with(record: ReplicaRecord, **changes: Any) -> ReplicaRecord:
    fields = {name: getattr(record, name) for name in ReplicaRecord.__dataclass_fields__}
    return ReplicaRecord(**{**fields, **changes})
