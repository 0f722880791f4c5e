"""A gateway's ledger, killed at any moment: what a barrier let pass is on record, the rest is settled."""

import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from sqlalchemy import select, text

from headgate.core.clock import SystemClock
from headgate.metering.upkeep import settle_lost
from headgate.store.database import sqlite_url
from headgate.store.schema import calls, requests
from tests.helpers.database import make_database

_WRITER = """
import asyncio, os, sys
from headgate.core.chance import SystemChance
from headgate.core.clock import SystemClock
from headgate.core.ids import Ids
from headgate.core.principal import LOCAL_ADMIN
from headgate.metering.ledger import Ledger
from headgate.store.database import Database
from tests.helpers.database import REPLICA

clock = SystemClock()
ledger = Ledger(Database(sys.argv[1]), Ids(clock, SystemChance()), clock, gateway=sys.argv[2])
ledger.start()

async def client(number):
    while True:
        request = ledger.open_request(kind="chat", pipeline="p", principal=LOCAL_ADMIN, stream=False)
        call = ledger.open_call(request, kind="chat", principal=LOCAL_ADMIN, replica=REPLICA)
        if await ledger.durable(request):
            os.write(1, f"open {request}\\n".encode())
        ledger.settle_call(call, state="ok")
        ledger.settle_request(request, state="ok", status=200)
        if number % 2 and await ledger.durable(request):
            os.write(1, f"settled {request}\\n".encode())

async def main():
    await asyncio.gather(*(client(number) for number in range(8)))

asyncio.run(main())
"""


def test_a_killed_gateway_loses_nothing_that_was_let_pass(tmp_path: Path) -> None:
    db = make_database(tmp_path)
    promised: Counter[str] = Counter()
    settled: set[str] = set()
    for turn in range(4):
        command = [sys.executable, "-c", _WRITER, sqlite_url(tmp_path / "headgate.db"), f"gateway-{turn}"]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
        assert child.stdout is not None
        lines = [child.stdout.readline()]
        time.sleep(0.02 + 0.07 * turn)  # the moment of death is the point here
        child.send_signal(signal.SIGKILL)
        lines += child.stdout.read().splitlines(keepends=True)
        child.wait(10)
        child.stdout.close()
        for line in lines:
            if line.endswith(b"\n"):
                what, row = line.decode().split()
                if what == "open":
                    promised[row] += 1
                else:
                    settled.add(row)
    assert len(promised) > 20 and max(promised.values()) == 1

    swept = settle_lost(db, SystemClock(), alive=[])
    with db.read() as connection:
        rows = {row.id: row.state for row in connection.execute(select(requests))}
        states = Counter(connection.execute(select(calls.c.state)).scalars())
        count = connection.execute(text("SELECT count(*) FROM requests")).scalar()
        assert connection.execute(text("PRAGMA integrity_check")).scalar() == "ok"
    assert count == len(rows)
    assert set(promised) <= set(rows)
    assert {rows[row] for row in settled} == {"ok"}
    assert set(rows.values()) <= {"ok", "lost"}
    assert list(rows.values()).count("lost") == swept.requests
    assert states["lost"] == swept.calls and set(states) <= {"ok", "lost"}
