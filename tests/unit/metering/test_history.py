"""The ledger read back request by request, and written as a trace that the simulator reads."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from headgate.core.clock import ManualClock
from headgate.core.errors import BadRequest
from headgate.core.principal import LOCAL_ADMIN
from headgate.core.usage import Usage
from headgate.evaluation.trace_writing import COLUMNS, write_trace
from headgate.evaluation.traces import load_trace
from headgate.metering import history
from headgate.metering.history import PastRequest, load_history
from headgate.metering.ledger import Ledger
from headgate.store.database import Database
from tests.helpers.database import REPLICA, make_database, make_ids


class Gateway:
    """A ledger that requests pass through, on a clock of its own."""

    def __init__(self, db: Database) -> None:
        self.clock = ManualClock()
        self.ledger = Ledger(db, make_ids(clock=self.clock), self.clock, gateway="g1")
        self.ledger.start()

    def serve(self, pipeline: str, *, compute: tuple[float, ...] = (), state: Any = "ok", **tokens: int) -> None:
        request = self.ledger.open_request(kind="chat", pipeline=pipeline, principal=LOCAL_ADMIN, stream=False)
        for number, compute_ms in enumerate(compute):
            call = self.ledger.open_call(
                request, kind="chat", principal=LOCAL_ADMIN, replica=REPLICA, attempt=number + 1
            )
            self.ledger.settle_call(call, state="ok", usage=Usage(**tokens), queue_ms=0.0, compute_ms=compute_ms)
        self.ledger.settle_request(request, state=state, status=200, usage=Usage(**tokens), queue_ms=4.0)

    async def end(self) -> None:
        await self.clock.advance(1.0) if hasattr(self.clock, "advance") else None
        self.ledger.close()


@pytest.fixture
async def served(tmp_path: Path) -> Database:
    db = make_database(tmp_path)
    gateway = Gateway(db)
    began = gateway.clock.now()
    assert began == 1_700_000_000.0
    for number in range(25):
        gateway.clock._elapsed = float(number)
        if number % 5 == 4:
            gateway.serve("b", state="refused")
        else:
            gateway.serve("a", compute=(40.0, 60.0), prompt_tokens=10, output_tokens=number)
    gateway.ledger.close()
    return db


async def test_requests_come_back_with_what_they_took_and_nobodys_name(
    served: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "_PAGE", 4)
    began = 1_700_000_000.0
    rows = list(load_history(served, since=began))
    assert [one.at - began for one in rows] == [float(number) for number in range(25)]
    assert rows[0] == PastRequest(
        at=began, pipeline="a", prompt_tokens=10, output_tokens=0, queue_s=0.004, compute_s=0.1, outcome="ok"
    )
    assert rows[4] == PastRequest(
        at=began + 4, pipeline="b", prompt_tokens=None, output_tokens=None, queue_s=0.004, compute_s=None,
        outcome="refused",
    )  # fmt: skip
    assert [one.at - began for one in load_history(served, since=began + 3, until=began + 9, pipeline="b")] == [4.0]
    assert list(load_history(served, since=began + 100)) == []


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.csv.gz", "t.jsonl.gz"])
async def test_a_recorded_trace_reads_back(served: Database, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    assert write_trace(path, load_history(served, since=0.0)) == 25
    text = (gzip.decompress(path.read_bytes()) if name.endswith(".gz") else path.read_bytes()).decode()
    assert LOCAL_ADMIN.user not in text and 'prompt"' not in text
    if ".csv" in name:
        assert text.splitlines()[0] == ",".join(COLUMNS)
        assert text.splitlines()[1] == "1700000000.0,a,10,0,0.1,0.004,ok"
    else:
        assert set(json.loads(text.splitlines()[4])) == {"at", "pipeline", "queue_s", "outcome"}
    a, b = load_trace(path).streams
    assert (len(a.at), len(b.at)) == (20, 5)
    assert a.seconds.tolist() == [0.1] * 20 and a.prompt_tokens.tolist() == [10.0] * 20
    assert b.at[0] == 4.0


def test_a_file_is_whole_or_not_there_and_never_replaced_unasked(tmp_path: Path) -> None:
    one = PastRequest(
        at=1.0, pipeline="a", prompt_tokens=1, output_tokens=1, queue_s=None, compute_s=None, outcome="ok"
    )
    path = tmp_path / "t.csv"

    def breaks() -> Any:
        yield one
        raise BadRequest("the ledger went away")

    with pytest.raises(BadRequest, match="went away"):
        write_trace(path, breaks())
    with pytest.raises(BadRequest, match="Nothing was asked"):
        write_trace(path, [])
    assert list(tmp_path.iterdir()) == []
    assert write_trace(path, [one]) == 1
    before = path.read_text()
    with pytest.raises(BadRequest, match="--force"):
        write_trace(path, [one, one])
    assert path.read_text() == before
    assert write_trace(path, [one, one], force=True) == 2
    assert [entry.name for entry in tmp_path.iterdir()] == ["t.csv"]

    def meanwhile() -> Any:
        other.write_text("mine")
        yield one

    other = tmp_path / "other.csv"
    with pytest.raises(BadRequest, match="is there already"):
        write_trace(other, meanwhile())
    assert other.read_text() == "mine"
    for bad in ("t.txt", "t.gz", "missing/t.csv"):
        with pytest.raises(BadRequest, match="--out"):
            write_trace(tmp_path / bad, [one])
