"""How long a request waits for a pipeline that has no device: asleep (unloaded, page cache warm), or warm.

Both in the same run, by one client, with the bundled language models: the pipeline is asked, left alone until its
replica has given its core up, and asked again. Milliseconds from the request to the first token, gateway included.
"""

from __future__ import annotations

import asyncio
import shutil
import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path

import yaml

from headgate.app.demonstration import Opened, close_house, make_body, open_house
from headgate.app.local_admin import LocalAdmin
from headgate.core.clock import SystemClock
from headgate.engines.http import HttpClient
from headgate.evaluation.burst import Arrival
from headgate.evaluation.load_probe import ChatProbe

MODELS = ("ticket-extract", "ticket-summary")
_STATES = {"asleep": 0.0, "warm": 600.0}  # what warm_s is to be, so that a replica that gave its core up is that
_TIMES = 9
_IDLE_S = 0.5
_LOOK_S = 0.05


def figures() -> dict[str, float]:
    """The table, printed, and its numbers by state and model."""
    clock = SystemClock()
    print(f"\n{'first token, ms':24} {'serving':>8} {'warm':>8} {'asleep':>8} {'asleep, worst':>14}")
    told: dict[str, float] = {}
    for model in MODELS:
        waited = {state: asyncio.run(_measure(model, state, clock)) for state in _STATES}
        hot = [one for times in waited.values() for one in times["serving"]]
        row = {"serving": statistics.median(hot)}
        row |= {state: statistics.median(times["woken"]) for state, times in waited.items()}
        row["asleep_worst"] = max(waited["asleep"]["woken"])
        print(
            f"{model:24} {row['serving']:8.1f} {row['warm']:8.1f} {row['asleep']:8.1f} {row['asleep_worst']:14.1f}",
            flush=True,
        )
        told |= {f"live_wake_{model.replace('-', '_')}_{state}_ms": round(value, 2) for state, value in row.items()}
    for state in ("serving", "warm", "asleep", "asleep_worst"):
        told[f"live_wake_{state}_ms"] = max(value for key, value in told.items() if key.endswith(f"_{state}_ms"))
    return told


async def _measure(model: str, state: str, clock: SystemClock) -> dict[str, list[float]]:
    """Milliseconds to the first token of requests to a pipeline that serves, and of those that wake it."""
    folder = Path(tempfile.mkdtemp(prefix="hg-wake-"))
    config = folder / "headgate.yaml"
    pipeline = {"model": model, "cap": 1, "idle_s": _IDLE_S, "warm_s": _STATES[state]}
    document = {
        "state": str(folder / "state"),
        "gateway": {"port": 0},
        "models": {model: {"source": f"bundled:{model}"}},
        "pipelines": {model: pipeline},
    }
    config.write_text(yaml.safe_dump(document), encoding="utf-8")
    client = HttpClient(clock)
    try:
        opened = await asyncio.to_thread(open_house, config, clock)
        probe = ChatProbe(client, opened.url, opened.key, clock, make_body(0))
        waited: dict[str, list[float]] = {"serving": [], "woken": []}
        await _ask(probe, model, clock)
        for _ in range(_TIMES):
            waited["serving"].append(await _ask(probe, model, clock))
            await _leave_alone(opened, model, clock, {"ready": 0, "draining": 0, "warm": int(state == "warm")})
            waited["woken"].append(await _ask(probe, model, clock))
        return waited
    finally:
        await client.close()
        await asyncio.to_thread(close_house, config, clock)
        shutil.rmtree(folder, ignore_errors=True)


async def _ask(probe: ChatProbe, model: str, clock: SystemClock) -> float:
    sample = await probe(Arrival(number=0, at_s=0.0, pipeline=model), clock.monotonic())
    assert sample.first_token_s is not None, sample.failure
    return 1e3 * sample.first_token_s


async def _leave_alone(opened: Opened, model: str, clock: SystemClock, until: Mapping[str, int]) -> None:
    """Ask nothing until the pipeline's replicas are in the stages that `until` counts."""
    async with LocalAdmin(opened.places, clock) as admin:
        while True:
            one = (await admin.ask("GET", "/admin/status"))["pipelines"][model]
            if until.items() <= one.items():
                return
            await clock.sleep(_LOOK_S)
