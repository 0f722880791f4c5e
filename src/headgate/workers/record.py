"""A replica process on record: what a restarted node needs to find it and to prove that it is the one."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headgate.core.secret import Secret
from headgate.workers.exits import write_private
from headgate.workers.proc import is_running
from headgate.workers.spawn import Placement

_PREFIX = "replica-"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaRecord:
    """One replica process. Its identity is (pid, started_ticks, epoch, secret).

    `address` is where it listens (see Launch); `started_ticks` is clock ticks since boot, `started_at` seconds since
    the Unix epoch; `log_offset` is where its lines begin in its log; `isolated` and `weighted` tell what it really
    got; `labels` is the owner's to use (which pipeline, which version).
    """

    replica: str
    pid: int
    started_ticks: int
    started_at: float
    epoch: int
    secret: Secret = field(repr=False)
    address: str
    placement: Placement
    log: str
    log_offset: int = 0
    isolated: bool = False
    weighted: bool = False
    labels: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def alive(self) -> bool:
        """Whether that very process still runs."""
        return is_running(self.pid, self.started_ticks)


def record_replica(run: Path, record: ReplicaRecord) -> None:
    """Write `record` into folder `run`, readable by this user only. Raises OSError."""
    placement = record.placement
    raw = {
        name: getattr(record, name)
        for name in ReplicaRecord.__dataclass_fields__
        if name not in ("secret", "placement", "labels")
    }
    raw["secret"] = record.secret.reveal()
    raw["labels"] = dict(record.labels)
    raw["placement"] = {"cores": placement.cores, "share": placement.share, "gpus": placement.gpus}
    write_private(run / f"{_PREFIX}{record.replica}.json", json.dumps(raw).encode())


def load_replicas(run: Path) -> list[ReplicaRecord]:
    """All replicas on record in folder `run`, dead or alive; what cannot be read is left out and removed."""
    found: list[ReplicaRecord] = []
    for path in sorted(run.glob(f"{_PREFIX}*.json")):
        try:
            raw: dict[str, Any] = json.loads(path.read_bytes())
            place = raw["placement"]
            raw["placement"] = Placement(cores=tuple(place["cores"]), share=place["share"], gpus=tuple(place["gpus"]))
            raw["secret"] = Secret(raw["secret"])
            found.append(ReplicaRecord(**raw))
        except (OSError, ValueError, TypeError, KeyError):
            path.unlink(missing_ok=True)
    return found


def forget_replica(run: Path, record: ReplicaRecord) -> None:
    """Remove the record and the socket, if it had one, of a replica that has ended."""
    paths = [run / f"{_PREFIX}{record.replica}.json"]
    if record.address.startswith("unix:"):
        paths.append(Path(record.address.removeprefix("unix:")))
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
