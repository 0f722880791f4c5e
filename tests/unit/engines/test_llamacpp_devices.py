"""What a llama-server of one's own is understood to say of its devices."""

from __future__ import annotations

from pathlib import Path

import pytest

from headgate.engines.llamacpp_devices import SeenDevice, list_devices, read_devices

TWO = """Available devices:
  CUDA0: NVIDIA GeForce RTX 3090 (24124 MiB, 23860 MiB free)
  CUDA1: NVIDIA RTX A2000 (12 GB) (12036 MiB, 11000 MiB free)
"""


def write_server(folder: Path, script: str) -> Path:
    path = folder / "llama-server"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_reads_names_and_memory() -> None:
    first, second = read_devices(TWO)
    assert first == SeenDevice(
        name="CUDA0", description="NVIDIA GeForce RTX 3090", total_bytes=24124 << 20, free_bytes=23860 << 20
    )
    assert second.description == "NVIDIA RTX A2000 (12 GB)"
    assert read_devices("Available devices:\n  (none)\n") == ()


def test_asks_the_program_in_the_order_of_the_bus(tmp_path: Path) -> None:
    server = write_server(
        tmp_path, '[ "$1 $CUDA_DEVICE_ORDER" = "--list-devices PCI_BUS_ID" ] && printf "%s" "' + TWO + '"'
    )
    assert [one.name for one in list_devices(server)] == ["CUDA0", "CUDA1"]


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo 'error while loading shared libraries: libcudart.so.13' >&2; exit 127", "libcudart"),
        ("kill -SEGV $$", "signal 11"),
        ("echo usage", "does not know --list-devices"),
    ],
)
def test_says_why_it_tells_nothing(tmp_path: Path, script: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        list_devices(write_server(tmp_path, script))


def test_a_program_that_is_none_cannot_be_started(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        list_devices(tmp_path / "none")
