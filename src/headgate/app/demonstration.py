"""The demo's house and its measuring: three bundled pipelines on two cores, under a load that goes from one to another,
with the best static split of the same cores and with capacity that moves.

Owns no words and no screen: the command shows what comes out of here.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from headgate.allocation.capacity import Capacity, Node, Pool
from headgate.allocation.pipeline import Configuration
from headgate.app.house import Places
from headgate.app.local_admin import LocalAdmin
from headgate.app.starting import stop
from headgate.core.chance import SeededChance
from headgate.core.clock import SystemClock
from headgate.core.errors import HeadgateError, UpstreamFailed
from headgate.core.secret import Secret
from headgate.engines.http import HttpClient
from headgate.evaluation.burst import Arrival, Phase, plan_arrivals, plan_phases
from headgate.evaluation.load_probe import ChatProbe, drive
from headgate.evaluation.samples import Sample, Summary, summarise
from headgate.evaluation.static_split import Speed, Split, list_splits, rank_splits
from headgate.evaluation.tickets import write_ticket
from headgate.workers.hardware import load_hardware
from headgate.workers.supervisor_state import load_state

SHARES = {"ticket-extract": 0.9, "ticket-summary": 0.9, "ticket-category": 0.1}
"""Cores of one replica: a language model has a core, and leaves a little of it to the linear one."""

LATE_AFTER_S = dict.fromkeys(SHARES, 0.5)
"""When a first token is late: what a pipeline that says nothing else promises."""

ORDER = ("ticket-extract", "ticket-summary", "ticket-extract", "ticket-summary")
_STEADY = "ticket-category"
_STEADY_PER_S = 15.0
_MAX_TOKENS = {"ticket-extract": 120, "ticket-summary": 48}
_MOST_CORES = 2  # few, so that there is something to share
_SLOTS = 4
_BUSY = (
    0.55  # part of what both cores can do that the hot pipeline is asked for on average; its bursts ask for nearly all
)
_LOOK_S = 0.25
_TRIAL_S = 2.5
_TRIAL_GROWS_S = 0.7  # of the trial: until then replicas are still being started, and it does not count
_TRIAL_AT_ONCE = 10
_SETTLE_LOOK_S = 0.1
_SETTLE_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A running demo house. `started_s` is how long `headgate up` took."""

    config: Path
    places: Places
    url: str
    key: Secret = field(repr=False)
    started_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What a pipeline did before the load: seconds from asleep to its first token, how many requests a second it
    answered when asked for more than it could, and with how many replicas.
    """

    wake_s: float
    requests_per_s: float
    replicas: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One decision of the node and its reason, `at_s` seconds after the load began."""

    at_s: float
    reason: str


@dataclass(slots=True)
class Progress:
    """How the load goes, as it goes. By pipeline: `replicas` has one count for each look; `started` and `stopped`
    count the replicas that got devices and gave them up since the load began.
    """

    seconds: float
    elapsed_s: float = 0.0
    sent: int = 0
    in_flight: int = 0
    hot: str = ""
    status: dict[str, Any] = field(default_factory=dict[str, Any])
    samples: list[Sample] = field(default_factory=list[Sample])
    decisions: list[Decision] = field(default_factory=list[Decision])
    replicas: dict[str, list[int]] = field(default_factory=dict[str, list[int]])
    started: Counter[str] = field(default_factory=Counter[str])
    stopped: Counter[str] = field(default_factory=Counter[str])

    def moved(self, pipeline: str | None = None) -> int:
        """How often a replica got devices or gave them up, of one pipeline or of all."""
        both = self.started + self.stopped
        return both.total() if pipeline is None else both[pipeline]


def write_configuration(folder: Path, split: Split | None = None) -> Path:
    """The demo's headgate.yaml in `folder`. A `split` is held whatever happens: its counts are floors and caps."""
    cores = min(_MOST_CORES, len(load_hardware().core_ids))
    pipelines: dict[str, dict[str, Any]] = {}
    for name in SHARES:
        bounds = {"floor": split[name], "cap": split[name]} if split else {"cap": cores}
        slo = {"first_token_ms": LATE_AFTER_S[name] * 1e3}
        pipelines[name] = {"model": name, "slo": slo, **bounds, "queue": 4096, "idle_s": 4, "timeout_s": 20}
    document = {
        "state": str(folder / "state"),
        "gateway": {"port": 0, "drain_s": 10},
        "pools": {"cpu": {"cores": cores}},
        "models": {
            name: {"source": f"bundled:{name}", "cores": share, "slots": _SLOTS} for name, share in SHARES.items()
        },
        "pipelines": pipelines,
    }
    path = folder / "headgate.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return path


def open_house(config: Path, clock: SystemClock) -> Opened:
    """Run `headgate up` as a user would. Raises HeadgateError with what it said."""
    began = clock.monotonic()
    command = (sys.executable, "-P", "-m", "headgate", "up", "--config", str(config), "--detach", "--json")
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, env=_environment()
    )
    try:
        output, errors = process.communicate()
    except BaseException:
        process.wait()  # it either serves by then, and is taken down, or it never will
        raise
    if process.returncode:
        raise HeadgateError(f"`headgate up` failed: {errors.decode(errors='replace').strip()[-2000:]}")
    told: dict[str, Any] = json.loads(output)
    return Opened(
        config=config,
        places=Places(state=Path(told["state"])),
        url=told["url"],
        key=Secret(told["admin_key"]),
        started_s=clock.monotonic() - began,
    )


def close_house(config: Path, clock: SystemClock) -> None:
    """Take the demo's house down, if it runs, dropping what is in flight."""
    places = Places(state=config.parent / "state")
    account = load_state(places.run / "supervisor.json")
    if account is not None:
        stop(account, clock, now=True, watch=lambda _waited_s: None)


async def try_pipelines(
    opened: Opened,
    clock: SystemClock,
    on_trial: Callable[[str, Trial], None] = lambda _name, _trial: None,
    *,
    names: Iterable[str] = tuple(SHARES),
) -> dict[str, Trial]:
    """How fast each pipeline wakes, and how much it can do on this machine as it is now. Raises UpstreamFailed.

    Why not by the time of one request: what matters is what is left beside the gateway, the load generator and
    whatever else runs here.
    """
    client = HttpClient(clock)
    trials: dict[str, Trial] = {}
    async with LocalAdmin(opened.places, clock) as admin:
        try:
            probe = ChatProbe(client, opened.url, opened.key, clock, make_body(0))
            for name in names:
                first = await probe(Arrival(number=0, at_s=0.0, pipeline=name), clock.monotonic())
                samples = await _press(probe, name, clock) if first.failure is None else [first]
                failed = next((one for one in samples if one.failure is not None), None)
                if failed is not None:
                    raise UpstreamFailed(f"{name} does not answer: {failed.failure}. `headgate doctor` may say why.")
                status = await admin.ask("GET", "/admin/status")
                trials[name] = Trial(
                    wake_s=first.first_token_s or 0.0,
                    requests_per_s=_steady_rate(samples),
                    replicas=max(1, status["pipelines"][name]["ready"]),
                )
                on_trial(name, trials[name])
        finally:
            await client.close()
    return trials


async def _press(probe: ChatProbe, pipeline: str, clock: SystemClock) -> list[Sample]:
    """A few askers, each asking again as soon as it is answered, for a moment."""
    samples: list[Sample] = []
    numbers = itertools.count(1)
    began = clock.monotonic()

    async def ask_on() -> None:
        while clock.monotonic() < began + _TRIAL_S:
            arrival = Arrival(number=next(numbers), at_s=clock.monotonic() - began, pipeline=pipeline)
            samples.append(await probe(arrival, began))

    await asyncio.gather(*(ask_on() for _ in range(_TRIAL_AT_ONCE)))
    return samples


def _steady_rate(samples: Sequence[Sample]) -> float:
    """Answers a second once all replicas were there; of the whole trial where it was over before."""
    ends_s = max(one.end_s for one in samples)
    late = [one for one in samples if one.end_s > _TRIAL_GROWS_S]
    return len(late) / (ends_s - _TRIAL_GROWS_S) if len(late) > 1 else len(samples) / ends_s


def plan_load(
    trials: Mapping[str, Trial], *, seconds: float, seed: int
) -> tuple[tuple[Phase, ...], tuple[Arrival, ...]]:
    """The phases and arrivals, as much as this machine's trials allow.

    One language model is asked at a time, and the linear one all the time.
    """
    rates = {name: _BUSY * trials[name].requests_per_s for name in ORDER}
    steady = {_STEADY: min(_BUSY * trials[_STEADY].requests_per_s, _STEADY_PER_S)}
    phases = plan_phases(ORDER, seconds=seconds, hot_per_s=rates, cold=0.0, steady_per_s=steady)
    return phases, plan_arrivals(phases, SeededChance(seed))


def choose_split(trials: Mapping[str, Trial], arrivals: Sequence[Arrival]) -> tuple[Split, int]:
    """The static split that would serve `arrivals` best, and of how many it is the best.

    It is chosen with hindsight: by a replay of all that is going to come, which nobody who splits knows.
    """
    cores = tuple(range(min(_MOST_CORES, len(load_hardware().core_ids))))
    node = Node(name="local", devices=cores, share=float(len(cores)), memory_bytes=0)
    sizes = {
        name: Configuration(key=name, pool="cpu", share=share, slots=_SLOTS, memory_bytes=0)
        for name, share in SHARES.items()
    }
    splits = list_splits(Capacity(pools=(Pool(name="cpu", kind="cpu", nodes=(node,)),)), sizes)
    speeds = {
        name: Speed(slots=_SLOTS, requests_per_s=one.requests_per_s / one.replicas, late_after_s=LATE_AFTER_S[name])
        for name, one in trials.items()
    }
    return rank_splits(splits, arrivals, speeds)[0][1], len(splits)


async def use_split(opened: Opened, split: Split | None, clock: SystemClock) -> None:
    """Have the demo's house hold `split` from now on, or move as it sees fit; return once it does.

    Raises HeadgateError when it is not there in time.
    """
    write_configuration(opened.config.parent, split)
    await reload_house(opened, clock, split)


async def reload_house(opened: Opened, clock: SystemClock, split: Split | None = None) -> None:
    """Have a house take its configuration file again; return once just the replicas of `split` are ready.

    Raises HeadgateError when they are not in time.
    """
    async with LocalAdmin(opened.places, clock) as admin:
        await admin.ask("POST", "/admin/reload", {"path": str(opened.config)})
        until = clock.monotonic() + _SETTLE_S
        while split is not None:
            status = await admin.ask("GET", "/admin/status")
            present = Counter(one["pipeline"] for one in status["replicas"] if one["state"] == "ready")
            if len(status["replicas"]) == present.total() and present == Counter(split):
                return
            if clock.monotonic() > until:
                raise HeadgateError(f"the static split {dict(split)} was not there after {_SETTLE_S:g} s")
            await clock.sleep(_SETTLE_LOOK_S)


async def run_load(
    opened: Opened,
    phases: tuple[Phase, ...],
    arrivals: tuple[Arrival, ...],
    clock: SystemClock,
    *,
    seed: int,
    show: Callable[[Progress], None],
) -> Progress:
    """Send the load and watch the house while it is answered; `show` is called about four times a second."""
    progress = Progress(seconds=phases[-1].until_s)
    client = HttpClient(clock)
    probe = ChatProbe(client, opened.url, opened.key, clock, make_body(seed))
    async with LocalAdmin(opened.places, clock) as admin:
        watcher = _Watcher(admin, progress, phases, clock)
        await watcher.begin()
        watching = asyncio.create_task(watcher.run(lambda: probe.in_flight, show))
        try:
            await drive(arrivals, probe, clock, progress.samples.append)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            await client.close()
        await watcher.look(probe.in_flight)
    show(progress)
    return progress


def summarise_load(progress: Progress, pipeline: str | None = None) -> Summary:
    """What one pipeline's requests came to, or those of all."""
    chosen = (one for one in progress.samples if pipeline in (None, one.pipeline))
    return summarise(chosen, seconds=progress.elapsed_s, late_after_s=LATE_AFTER_S)


def make_body(seed: int) -> Callable[[Arrival], dict[str, Any]]:
    """From an arrival to its request: a ticket of its own, the same for the same seed and number."""

    def body(arrival: Arrival) -> dict[str, Any]:
        ticket = write_ticket(SeededChance(seed * 1_000_003 + arrival.number))
        made: dict[str, Any] = {"messages": [{"role": "user", "content": ticket}], "temperature": 0}
        kind = next((kind for kind in _MAX_TOKENS if arrival.pipeline.startswith(kind)), None)
        return made | {"max_tokens": _MAX_TOKENS[kind]} if kind else made

    return body


class _Watcher:
    """Looks at the house over the admin socket, as `headgate top` does."""

    def __init__(self, admin: LocalAdmin, progress: Progress, phases: tuple[Phase, ...], clock: SystemClock) -> None:
        self._admin = admin
        self._progress = progress
        self._phases = phases
        self._clock = clock
        self._began = clock.monotonic()
        self._began_at = clock.now()
        self._known = 0
        self._present: dict[str, str] = {}

    async def begin(self) -> None:
        """Note what is there before the load begins."""
        decisions = await self._decisions()
        self._known = max((one["number"] for one in decisions), default=0)
        self._present = _replicas(await self._admin.ask("GET", "/admin/status"))
        self._began, self._began_at = self._clock.monotonic(), self._clock.now()

    async def run(self, in_flight: Callable[[], int], show: Callable[[Progress], None]) -> None:
        """Look again and again until cancelled."""
        while True:
            await self.look(in_flight())
            show(self._progress)
            await self._clock.sleep(_LOOK_S)

    async def look(self, in_flight: int) -> None:
        """One look."""
        progress = self._progress
        progress.status = await self._admin.ask("GET", "/admin/status")
        present = _replicas(progress.status)
        progress.started.update(name for one, name in present.items() if one not in self._present)
        progress.stopped.update(name for one, name in self._present.items() if one not in present)
        self._present = present
        for one in sorted(await self._decisions(), key=lambda one: one["number"]):
            if one["number"] > self._known:
                self._known = one["number"]
                progress.decisions.append(Decision(at_s=one["at"] - self._began_at, reason=one["reason"]))
        progress.elapsed_s = self._clock.monotonic() - self._began
        phase = next((one for one in self._phases if progress.elapsed_s < one.until_s), None)
        progress.hot = phase.hot if phase else ""
        progress.in_flight = in_flight
        progress.sent = in_flight + len(progress.samples)
        for name, one in progress.status.get("pipelines", {}).items():
            progress.replicas.setdefault(name, []).append(one["ready"] + one["starting"])

    async def _decisions(self) -> list[dict[str, Any]]:
        return await self._admin.ask("GET", "/admin/decisions")


def _replicas(status: dict[str, Any]) -> dict[str, str]:
    """The pipeline of each replica that has devices, by its id."""
    return {one["id"]: one["pipeline"] for one in status.get("replicas", ()) if one["state"] != "warm"}


def _environment() -> dict[str, str]:
    """Ours without what would lead `headgate up` to another house."""
    return {key: value for key, value in os.environ.items() if key not in ("HEADGATE_STATE", "HEADGATE_CONFIG")}
