"""GPUs of this machine as the kernel's driver shows them; no tool is started. None is a fine answer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU. `uuid` is how CUDA names it, `address` its place on the bus, `minor` the N of /dev/nvidiaN."""

    name: str
    uuid: str
    address: str
    minor: int | None


def load_gpus(root: Path = Path("/")) -> tuple[Gpu, ...]:
    """The NVIDIA GPUs of this machine that have a device file here, in bus order; () when there are none."""
    found: list[Gpu] = []
    try:
        folders = sorted((root / "proc/driver/nvidia/gpus").iterdir())
    except OSError:
        return ()
    for folder in folders:
        try:
            text = (folder / "information").read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}
        number = facts.get("Device Minor", "")
        minor = int(number) if number.isdigit() else None
        # Why the device file: a container sees every GPU in /proc, but may use only those it was given.
        if minor is not None and not (root / f"dev/nvidia{minor}").exists():
            continue
        found.append(
            Gpu(
                name=facts.get("Model", "NVIDIA"),
                uuid=facts.get("GPU UUID", ""),
                address=folder.name,
                minor=minor,
            )
        )
    return tuple(found)
