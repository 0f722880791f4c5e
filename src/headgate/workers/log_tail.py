"""The last lines of a process's log, for the operator. What is secret is blotted out."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from headgate.core.secret import Secret

_READ_BYTES = 16 * 1024
_LINE_CHARACTERS = 300


def load_tail(path: Path, offset: int, lines: int, secrets: Iterable[Secret] = ()) -> list[str]:
    """At most `lines` last lines of the log at `path` that stand after byte `offset`; [] when there is none.

    A log that was rotated since is shorter than `offset` and is read from its beginning.
    """
    try:
        with path.open("rb") as handle:
            size = handle.seek(0, os.SEEK_END)
            begin = offset if offset <= size else 0
            handle.seek(max(begin, size - _READ_BYTES))
            text = handle.read().decode("utf-8", "replace")
    except OSError:
        return []
    for secret in secrets:
        if secret.reveal():
            text = text.replace(secret.reveal(), "***")
    return [line[:_LINE_CHARACTERS] for line in text.splitlines()[-lines:]]
