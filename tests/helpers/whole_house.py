"""A whole Headgate for flow tests: `headgate up --detach` in a state folder of its own, and what a test asks of it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openai import APIError, OpenAI

from headgate.workers.proc import is_running

Status = dict[str, Any]


@dataclass(slots=True)
class WholeHouse:
    """A Headgate that serves. `key` is its admin key."""

    folder: Path
    config: Path
    key: str = ""

    @property
    def state(self) -> Path:
        return self.folder / "s"

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {"HEADGATE_STATE": str(self.state), "NO_COLOR": "1"}

    def command(self, *arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run one command of the command line."""
        return subprocess.run(
            [sys.executable, "-m", "headgate", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def told(self, *words: str, code: int = 0) -> Any:
        """The JSON that a command answers with."""
        result = self.command(*words, "--config", str(self.config), "--json")
        assert result.returncode == code, (
            f"{words}: {result.returncode}\n{result.stdout}\n{result.stderr}\n{self.logs()}"
        )
        return json.loads(result.stdout)

    def up(self) -> None:
        told = self.command("up", "--detach", "--config", str(self.config))
        assert told.returncode == 0, told.stdout + told.stderr + self.logs()
        found = re.search(r"hg_[0-9A-Za-z]{49}", told.stdout + told.stderr)
        if found:
            self.key = found[0]

    @property
    def account(self) -> dict[str, Any]:
        """The supervisor's account of itself."""
        return json.loads((self.state / "run" / "supervisor.json").read_text())

    def pid(self, name: str) -> int:
        """The process id of a child of the supervisor; 0 while there is none."""
        return next(child["pid"] for child in self.account["children"] if child["name"] == name) or 0

    @property
    def url(self) -> str:
        return f"http://{self.account['listeners']['gateway']}"

    def client(self, **options: Any) -> OpenAI:
        """The official client with the admin key; it does not retry, so that nothing is hidden."""
        return OpenAI(base_url=self.url + "/v1", api_key=self.key, max_retries=options.pop("max_retries", 0), **options)

    def status(self) -> Status:
        asked = urllib.request.Request(self.url + "/admin/status", headers={"Authorization": f"Bearer {self.key}"})
        with urllib.request.urlopen(asked, timeout=10) as answer:
            return json.load(answer)

    def replicas(self, pipeline: str, state: str = "ready") -> list[dict[str, Any]]:
        """Replicas of a pipeline by the records that they leave in run/, with their rows' pids."""
        found = [one for one in self.status()["replicas"] if one["pipeline"] == pipeline and one["state"] == state]
        return sorted(found, key=lambda one: one["id"])

    def wait(self, what: str, check: Callable[[], object], seconds: float = 30.0) -> Any:
        """The first true answer of `check`."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            with contextlib.suppress(AssertionError, KeyError, OSError, StopIteration, ValueError, APIError):
                if answer := check():
                    return answer
            time.sleep(0.1)
        raise AssertionError(f"{what}: not within {seconds} s\n{self.logs()}")

    def logs(self) -> str:
        """The end of every log, for a failing test."""
        return "\n".join(
            f"--- {path.name}\n" + "\n".join(path.read_text(errors="replace").splitlines()[-15:])
            for path in sorted((self.state / "logs").glob("*.log"))
        )

    def kill(self, pid: int, number: int = signal.SIGKILL) -> None:
        os.kill(pid, number)

    def close(self) -> None:
        """Take everything down; whatever is left of it is killed."""
        with contextlib.suppress(OSError, ValueError, KeyError):
            account = self.account
            os.kill(account["pid"], signal.SIGTERM)
            for _ in range(150):
                if not is_running(account["pid"], account["started_ticks"]):
                    break
                time.sleep(0.1)
            else:
                os.kill(account["pid"], signal.SIGKILL)
        for record in (self.state / "run").glob("replica-*.json"):
            with contextlib.suppress(OSError, ValueError, KeyError):
                told = json.loads(record.read_text())
                if is_running(told["pid"], told["started_ticks"]):
                    os.killpg(told["pid"], signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def new_house(configuration: str) -> Iterator[WholeHouse]:
    """A house that is not up yet, in a folder of its own."""
    folder = Path(tempfile.mkdtemp(prefix="hgt-"))
    made = WholeHouse(folder, folder / "headgate.yaml")
    made.config.write_text(configuration)
    try:
        yield made
    finally:
        made.close()


@contextlib.contextmanager
def whole_house(configuration: str) -> Iterator[WholeHouse]:
    """A house with that headgate.yaml, up and ready."""
    with new_house(configuration) as house:
        house.up()
        yield house


class Background:
    """A call in a thread, with its result or its error."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.result: Any = None
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(call,), daemon=True)
        self._thread.start()

    def _run(self, call: Callable[[], Any]) -> None:
        try:
            self.result = call()
        except BaseException as error:
            self.error = error

    def join(self, seconds: float = 60.0) -> Any:
        self._thread.join(seconds)
        assert not self._thread.is_alive(), "still running"
        if self.error is not None:
            raise self.error
        return self.result
