"""What a llama-server of one's own says of the GPUs it sees: `llama-server --list-devices`."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

_PATIENCE_S = 30.0  # Why so long: a driver that nobody uses is loaded first
_LINE = re.compile(r"^\s+(\S+): (.+) \((\d+) MiB, (\d+) MiB free\)\s*$")  # Source: common/arg.cpp of llama.cpp 11549


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenDevice:
    """One GPU as llama.cpp names it ('CUDA0'), the maker's name, and bytes of its memory: all, and free now."""

    name: str
    description: str
    total_bytes: int
    free_bytes: int


def list_devices(binary: Path) -> tuple[SeenDevice, ...]:
    """The GPUs that this build sees, in the order of the bus as Headgate counts them; () when it sees none.

    Starts the program. Raises OSError when it cannot be started, ValueError when it does not tell.
    """
    environment = {**os.environ, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    try:
        told = subprocess.run(
            [str(binary), "--list-devices"],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PATIENCE_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ValueError(f"it did not list its devices within {_PATIENCE_S:g} s") from error
    if told.returncode != 0:
        ends = f"code {told.returncode}" if told.returncode > 0 else f"signal {-told.returncode}"
        said = next((line.strip() for line in reversed(told.stderr.splitlines()) if line.strip()), "nothing")
        raise ValueError(f"it ended with {ends} when asked for its devices and said: {said[:200]}")
    if "available devices" not in told.stdout.lower():
        raise ValueError("it does not know --list-devices")
    return read_devices(told.stdout)


def read_devices(text: str) -> tuple[SeenDevice, ...]:
    """The devices in what it printed."""
    found = (_LINE.match(line) for line in text.splitlines())
    return tuple(
        SeenDevice(name=one[1], description=one[2], total_bytes=int(one[3]) << 20, free_bytes=int(one[4]) << 20)
        for one in found
        if one is not None
    )
