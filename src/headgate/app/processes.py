"""What the supervisor is to run, and how its children find the configuration in force."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from headgate import __version__
from headgate.app.house import Places
from headgate.workers.exits import write_private
from headgate.workers.spec import Spec, Supervised, TcpListener, UnixListener, dump_spec

if TYPE_CHECKING:
    from headgate.config import Settings


def build_spec(settings: Settings, places: Places) -> Spec:
    """What the supervisor is to run: one node and the gateways, with their listeners."""
    gateway = settings.gateway
    environment = {"HEADGATE_APPLIED": str(places.applied), "HEADGATE_STATE": str(places.state)}
    if gateway.processes > 1:
        environment["PROMETHEUS_MULTIPROC_DIR"] = str(places.run / "metrics")
    run = [
        Supervised(
            name="node",
            role="node",
            argv=(sys.executable, "-P", "-m", "headgate", "node"),
            environment=environment,
            log=str(places.logs / "node.log"),
            leave_signal="SIGUSR2",
        )
    ]
    run += [
        Supervised(
            name=f"gateway-{number}",
            role="gateway",
            argv=(sys.executable, "-P", "-m", "headgate", "gateway"),
            sockets=("gateway", "admin"),
            environment=environment,
            log=str(places.logs / f"gateway-{number}.log"),
        )
        for number in range(gateway.processes)
    ]
    return Spec(
        state=str(places.run.parent),
        version=__version__,
        tcp=(TcpListener(name="gateway", host=gateway.host, port=gateway.port),),
        unix=(UnixListener(name="admin", path=str(places.admin_socket)),),
        children=tuple(run),
        drain_s=gateway.drain_s,
        grace_s=settings.workers.grace_s,
        ready_s=settings.workers.ready_s,
        fleeting=places.apart,
    )


def write_spec(settings: Settings, places: Places) -> Path:
    """Make the run folder ready for a start, with the supervisor's spec in it; the spec's path."""
    places.make()  # a house that ended just now may have taken its run folder along
    if settings.gateway.processes > 1:
        _empty_counts(places.run / "metrics")
    path = places.run / "spec.json"
    write_private(path, dump_spec(build_spec(settings, places)).encode())
    return path


def _empty_counts(folder: Path) -> None:
    """Where several gateways share their counts: there, and without those of an earlier start."""
    folder.mkdir(mode=0o700, exist_ok=True)
    for old in folder.glob("*.db"):
        old.unlink()


def load_applied() -> Settings:
    """The configuration in force, as the supervisor's children find it. The state folder is the one they were told."""
    from headgate.config import load_settings

    settings = load_settings(Path(os.environ["HEADGATE_APPLIED"]))
    return settings.model_copy(update={"state": Path(os.environ["HEADGATE_STATE"])})


def calm_collector() -> None:
    """Have the garbage collector look at new objects only, and seldom: requests leave no cycles behind."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 5, 2)  # what is frozen is not looked at again, so a full look costs little


def raise_file_limit() -> None:
    """Take as many open files as the machine allows this user: each request is a connection in and one out."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def log_to_stderr(name: str) -> None:
    logging.basicConfig(
        level=logging.INFO, format=f"%(asctime)s {name}[{os.getpid()}] %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    with contextlib.suppress(AttributeError):
        sys.stderr.reconfigure(line_buffering=True)  # pyright: ignore
