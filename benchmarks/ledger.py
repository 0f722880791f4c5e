"""What the ledger costs: microseconds of CPU a request, in the event loop and in the writing thread; barrier times.

    python benchmarks/ledger.py [--json FILE]

Compares four ways to write a group (all durable, same rows), beside the floor of one bare fdatasync on the same disk.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import itertools
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from sqlalchemy import bindparam, insert, text, update

from headgate.core.chance import SystemChance
from headgate.core.clock import SystemClock
from headgate.core.ids import Ids
from headgate.core.principal import LOCAL_ADMIN
from headgate.core.secret import Secret
from headgate.core.table import ReplicaRoute
from headgate.core.usage import Usage
from headgate.metering import entries
from headgate.metering.ledger import Ledger
from headgate.store.bulk import BulkWriter
from headgate.store.database import Database, sqlite_url
from headgate.store.migrate import migrate
from headgate.store.schema import calls, requests

CLOCK = SystemClock()
IDS = Ids(CLOCK, SystemChance())
USAGE = Usage(prompt_tokens=100, output_tokens=50)
REPLICA = ReplicaRoute(
    id=IDS.new(), pipeline="ticket-extract", version="sha256:" + "a" * 64, engine="llamacpp", address="unix:/x",
    secret=Secret("x"), epoch=1, slots=4, device="cpu0", pool="cpu", share=1.0, state="ready",
)  # fmt: skip
TABLES = {"requests": requests, "calls": calls}


def measure_fdatasync(folder: Path) -> float:
    """Milliseconds of one fdatasync after a write of 20 kB, median of 200."""
    descriptor = os.open(folder / "floor", os.O_RDWR | os.O_CREAT)
    times: list[float] = []
    for number in range(200):
        os.pwrite(descriptor, b"x" * 20_000, number * 20_000)
        began = time.perf_counter()
        os.fdatasync(descriptor)
        times.append(time.perf_counter() - began)
    os.close(descriptor)
    return sorted(times)[100] * 1e3


def open_rows(ledger: Ledger) -> tuple[str, str]:
    """One request and its call, opened."""
    request = ledger.open_request(kind="chat", pipeline="ticket-extract", principal=LOCAL_ADMIN, stream=False)
    return request, ledger.open_call(request, kind="chat", principal=LOCAL_ADMIN, replica=REPLICA)


def settle_rows(ledger: Ledger, request: str, call: str) -> None:
    """Settle what `open_rows` opened."""
    ledger.settle_call(call, state="ok", usage=USAGE, queue_ms=0.1, compute_ms=20.0)
    ledger.settle_request(request, state="ok", status=200, usage=USAGE, total_ms=21.0, attempts=1)


def measure_caller(folder: Path) -> float:
    """Microseconds of CPU a request costs the event loop: two opens and two settlements, best of 5 runs."""
    db = make_database(folder, "caller")
    best = float("inf")
    for _ in range(5):
        ledger = Ledger(db, IDS, CLOCK, gateway="g", waiting_rows=10**9)
        began = time.thread_time()
        for _ in range(4000):
            settle_rows(ledger, *open_rows(ledger))
        best = min(best, (time.thread_time() - began) / 4000 * 1e6)
    return best


def make_database(folder: Path, name: str) -> Database:
    """A new SQLite database in the folder."""
    db = Database(sqlite_url(folder / f"{name}.db"))
    migrate(db)
    return db


def measure_way(folder: Path, way: str, size: int, groups: int) -> dict[str, Any]:
    """Write groups of `size` requests opened and `size` of the group before settled: 4 rows written a request."""
    db = make_database(folder, f"{way}-{size}")
    source = Ledger(db, IDS, CLOCK, gateway="g", waiting_rows=10**9)
    plan = entries.Statements(db)
    writer = BulkWriter(db)
    cpu = wall = 0.0
    before: list[tuple[str, str]] = []
    for _ in range(groups):
        source._entries.clear()
        opened = [open_rows(source) for _ in range(size)]
        for pair in before:
            settle_rows(source, *pair)
        batches = plan.plan_group(list(source._entries))
        cpu_0, wall_0 = time.thread_time(), time.perf_counter()
        if way == "executemany":
            writer.write(batches)
        else:
            with db.write(durable=True) as connection:
                for statement, rows in batches:
                    _WAYS[way](connection, statement, rows)
        cpu += time.thread_time() - cpu_0
        wall += time.perf_counter() - wall_0
        before = opened
    writer.close()
    with db.read() as connection:
        count = connection.execute(text("SELECT count(*) FROM requests WHERE state = 'ok'")).scalar_one()
    assert count == (groups - 1) * size
    done = groups * size
    return {"way": way, "group": size, "cpu_us": cpu / done * 1e6, "wall_us": wall / done * 1e6}


def _columns(statement: str) -> tuple[str, tuple[str, ...], bool]:
    table = statement.split()[2] if statement.startswith("INSERT") else statement.split()[1]
    opening, settling = (
        (entries.REQUEST_OPENING, entries.REQUEST_SETTLING)
        if table == "requests"
        else (entries.CALL_OPENING, entries.CALL_SETTLING)
    )
    is_insert = statement.startswith("INSERT")
    return table, opening + settling if is_insert else settling, is_insert


def _by_core(connection: Any, statement: str, rows: list[Any]) -> None:
    core, names = _core(statement)
    connection.execute(core, [dict(zip(names, row, strict=True)) for row in rows])


@functools.cache
def _core(statement: str) -> tuple[Any, list[str]]:
    table, columns, is_insert = _columns(statement)
    if is_insert:
        return insert(TABLES[table]), list(columns)
    target = TABLES[table]
    core = update(target).where(target.c.id == bindparam("which"), target.c.state == "open")
    return core.values({name: bindparam(f"new_{name}") for name in columns}), [f"new_{c}" for c in columns] + ["which"]


def _by_many_values(connection: Any, statement: str, rows: list[Any]) -> None:
    table, columns, is_insert = _columns(statement)
    connection.exec_driver_sql(_many(table, columns, is_insert, len(rows)), tuple(itertools.chain.from_iterable(rows)))


@functools.cache
def _many(table: str, columns: tuple[str, ...], is_insert: bool, count: int) -> str:
    width = len(columns) + (not is_insert)
    values = ", ".join([f"({', '.join('?' * width)})"] * count)
    if is_insert:
        names = ", ".join(f'"{name}"' for name in columns)
        return f"INSERT INTO {table} ({names}) VALUES {values} ON CONFLICT (id) DO NOTHING"
    fields = ", ".join(f"c{number}" for number in range(width - 1))
    changes = ", ".join(f'"{name}" = v.c{number}' for number, name in enumerate(columns))
    return (
        f"WITH v ({fields}, k) AS (VALUES {values}) UPDATE {table} SET {changes} FROM v "
        f"WHERE {table}.id = v.k AND {table}.state = 'open'"
    )


_WAYS = {
    "core": _by_core,
    "exec_driver_sql": lambda connection, statement, rows: connection.exec_driver_sql(statement, rows),
    "many_values": _by_many_values,
}


async def measure_load(folder: Path, clients: int, engine_ms: float, count: int) -> dict[str, Any]:
    """A closed loop of clients; each waits for the barrier after `engine_ms`, as serving does before an answer ends."""
    ledger = Ledger(make_database(folder, f"load-{clients}"), IDS, CLOCK, gateway="g")
    ledger.start()
    waits: list[float] = []

    async def client() -> None:
        for _ in range(count // clients):
            rows = open_rows(ledger)
            await asyncio.sleep(engine_ms / 1e3)
            began = time.perf_counter()
            assert await ledger.durable(rows[0])
            waits.append(time.perf_counter() - began)
            settle_rows(ledger, *rows)

    process_0, loop_0, wall_0 = time.process_time(), time.thread_time(), time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    thread = (time.process_time() - process_0) - (time.thread_time() - loop_0)
    wall = time.perf_counter() - wall_0
    await asyncio.to_thread(ledger.close)
    waits.sort()
    done = len(waits)
    return {
        "clients": clients,
        "engine_ms": engine_ms,
        "requests_per_second": done / wall,
        "thread_cpu_us": thread / done * 1e6,
        "barrier_ms_p50": waits[done // 2] * 1e3,
        "barrier_ms_p99": waits[int(done * 0.99)] * 1e3,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="What the ledger costs.")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--folder", type=Path, help="where to write (the disk that is measured)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        floor = measure_fdatasync(folder)
        caller = measure_caller(folder)
        sizes = ((1, 200), (10, 150), (50, 60))
        ways = ["core", "exec_driver_sql", "many_values", "executemany"]
        written = [measure_way(folder, way, size, groups) for size, groups in sizes for way in ways]
        loads = [
            asyncio.run(measure_load(folder, clients, engine_ms, count))
            for clients, engine_ms, count in ((1, 2.0, 400), (8, 5.0, 3000), (64, 30.0, 8000))
        ]
    print(f"one bare fdatasync      {floor:8.2f} ms")
    print(f"event loop, a request   {caller:8.1f} us of CPU (two ids among it)\n")
    print(f"{'group':>5} {'way':<16} {'CPU us/request':>15} {'wall us/request':>16}")
    for row in written:
        print(f"{row['group']:>5} {row['way']:<16} {row['cpu_us']:>15.1f} {row['wall_us']:>16.1f}")
    print(f"\n{'clients':>7} {'engine ms':>10} {'requests/s':>11} {'thread us/request':>18} {'barrier p50/p99 ms':>20}")
    for row in loads:
        barrier = f"{row['barrier_ms_p50']:.2f} / {row['barrier_ms_p99']:.2f}"
        print(
            f"{row['clients']:>7} {row['engine_ms']:>10.0f} {row['requests_per_second']:>11.0f} "
            f"{row['thread_cpu_us']:>18.1f} {barrier:>20}"
        )
    if arguments.json:
        result = {"fdatasync_ms": floor, "caller_cpu_us": caller, "ways": written, "loads": loads}
        arguments.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
