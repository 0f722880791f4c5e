"""How processes ended, on record: the supervisor writes, the node reads what became of replicas it did not
start.

A NamedTuple and not a dataclass, because the supervisor stays small by not loading dataclasses.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import NamedTuple

_KEPT_BYTES = 64 * 1024
_KEPT_LINES = 200


class Exit(NamedTuple):
    """The end of one process. Exactly one of `code` and `signal` is set; both are None when nobody saw the
    end.

    `at` is seconds since the Unix epoch; `name` what the supervisor called it (None for an orphan).
    `out_of_memory` says that it looks like that, no more.
    """

    pid: int
    started_ticks: int
    code: int | None
    signal: str | None
    at: float
    name: str | None = None
    out_of_memory: bool = False

    @property
    def clean(self) -> bool:
        """Whether it ended by itself with code 0."""
        return self.code == 0

    def describe(self) -> str:
        """Words for people: 'exited with code 1', 'was killed by SIGKILL (looks like out of memory)'."""
        if self.signal is not None:
            words = f"was killed by {self.signal}"
        elif self.code is not None:
            words = f"exited with code {self.code}"
        else:
            words = "ended, nobody saw how"
        return f"{words} (looks like out of memory)" if self.out_of_memory else words


def read_status(result: os.waitid_result) -> tuple[int | None, str | None]:
    """(exit code, signal name) of what waitid returned; one of them is None."""
    if result.si_code == os.CLD_EXITED:
        return result.si_status, None
    return None, name_signal(result.si_status)


def name_signal(number: int) -> str:
    """'SIGKILL' for 9; a real-time signal is named by its number."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def record_exit(path: Path, ended: Exit) -> None:
    """Append one line to the record at `path`; old lines are dropped when it grows past 64 KiB."""
    line = json.dumps(ended._asdict()).encode() + b"\n"
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.write(handle, line)
        size = os.fstat(handle).st_size
    finally:
        os.close(handle)
    if size > _KEPT_BYTES:
        kept = path.read_bytes().splitlines(keepends=True)[-_KEPT_LINES:]
        write_private(path, b"".join(kept))


def load_exit(path: Path, pid: int, started_ticks: int) -> Exit | None:
    """What the record says of that very process; None when it is not (yet) there."""
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return None
    for line in reversed(lines):
        try:
            found = Exit(**json.loads(line))
        except (ValueError, TypeError):  # a line cut short by a full disk
            continue
        if (found.pid, found.started_ticks) == (pid, started_ticks):
            return found
    return None


def write_private(path: Path, content: bytes) -> None:
    """Replace the file at `path`, readable by this user only, whole or not at all. Raises OSError."""
    temporary = path.with_name(path.name + ".new")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(handle, content)
    finally:
        os.close(handle)
    temporary.replace(path)
