"""A whole Headgate in a state folder of its own, for benchmarks: started, asked, taken down."""

from __future__ import annotations

import contextlib
import io
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from sqlalchemy import select

from headgate.core.secret import Secret
from headgate.engines.engine import Upstream
from headgate.store.database import Database, sqlite_url
from headgate.store.schema import replicas


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A Headgate that serves: its folder, its base address ('http://127.0.0.1:port'), an admin key, its supervisor."""

    state: Path
    address: str
    key: str
    pid: int

    @property
    def bearer(self) -> tuple[tuple[str, str], ...]:
        """Headers of a JSON request with the key."""
        return (("Content-Type", "application/json"), ("Authorization", f"Bearer {self.key}"))

    def upstream(self, pipeline: str) -> Upstream:
        """The first ready replica of a pipeline, to be called without the gateway; waited for."""
        for _ in range(600):
            if (found := self._find(pipeline)) is not None:
                return found
            time.sleep(0.1)
        raise RuntimeError(f"no replica of {pipeline} is ready")

    def _find(self, pipeline: str) -> Upstream | None:
        database = Database(sqlite_url(self.state / "headgate.db"))
        with contextlib.closing(database), database.read() as connection:
            row = connection.execute(
                select(replicas.c.id, replicas.c.address)
                .where(replicas.c.pipeline == pipeline, replicas.c.state == "ready")
                .order_by(replicas.c.created_at)
            ).first()
        if row is None:
            return None
        record = json.loads((self.state / "run" / f"replica-{row.id}.json").read_text())
        return Upstream(address=row.address, secret=Secret(record["secret"]))


@contextlib.contextmanager
def headgate(configuration: str) -> Iterator[Running]:
    """`headgate up` with that headgate.yaml; taken down, folder and all, at the end."""
    folder = Path(tempfile.mkdtemp(prefix="hg-bench-"))
    state = folder / "state"
    config = folder / "headgate.yaml"
    config.write_text(configuration)
    environment = os.environ | {"HEADGATE_STATE": str(state)}
    command = [sys.executable, "-m", "headgate", "up", "--detach", "--config", str(config), "--json"]
    try:
        told = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
        if told.returncode:
            raise RuntimeError(f"headgate up failed:\n{told.stdout}{told.stderr}")
        account = json.loads((state / "run" / "supervisor.json").read_text())
        found = re.search(r"hg_[0-9A-Za-z]{49}", told.stdout + told.stderr)
        assert found is not None, told.stdout + told.stderr
        address = f"http://{account['listeners']['gateway']}"
        yield Running(state=state, address=address, key=found[0], pid=account["pid"])
    finally:
        with contextlib.suppress(OSError, ValueError, KeyError):
            pid = json.loads((state / "run" / "supervisor.json").read_text())["pid"]
            os.kill(pid, signal.SIGTERM)
            for _ in range(300):
                os.kill(pid, 0)
                time.sleep(0.1)
        shutil.rmtree(folder, ignore_errors=True)


def machine() -> dict[str, object]:
    """What a result was measured on."""
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    return {
        "date": time.strftime("%Y-%m-%d"),
        "machine_cpu": model,
        "machine_cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
    }


def write_json(path: str | None, result: dict[str, object]) -> None:
    """Write a flat result where it was asked for."""
    if path:
        Path(path).write_text(json.dumps(machine() | result, indent=2) + "\n")


def side_by_side(parts: Sequence[Callable[[], dict[str, float]]]) -> dict[str, float]:
    """The figures of all parts, each run in a process of its own, as many at once as there are cores.

    What they print comes whole, in their order. Not for what is timed.
    """
    found: dict[str, float] = {}
    with ProcessPoolExecutor(min(len(parts), os.cpu_count() or 1), mp_context=get_context("spawn")) as pool:
        for told, figures in pool.map(_overhear, parts):
            print(told, end="", flush=True)
            found |= figures
    return found


def _overhear(part: Callable[[], dict[str, float]]) -> tuple[str, dict[str, float]]:
    with contextlib.redirect_stdout(io.StringIO()) as told:
        figures = part()
    return told.getvalue(), figures
