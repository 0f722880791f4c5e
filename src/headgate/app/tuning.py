"""`headgate tune`: a model of this house measured on this machine, and the settings with which it does best here."""

from __future__ import annotations

import asyncio
import signal
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from headgate.allocation.profile import Profile
from headgate.app.plan import build_capacity, describe_subject, plan_model
from headgate.config import ModelSettings
from headgate.core.chance import SeededChance
from headgate.core.errors import AlreadyRunning, BadRequest, HeadgateError
from headgate.core.model import Version
from headgate.engines.catalogue import build_engines
from headgate.engines.engine import Knob, ModelOptions
from headgate.engines.http import HttpClient
from headgate.evaluation.profiles import describe_hardware, save_profile
from headgate.evaluation.profiling import measure_profile
from headgate.evaluation.quantisations import Beside, compare_versions, is_other_quantisation
from headgate.evaluation.replica_bench import ReplicaBench, Site
from headgate.evaluation.requests import RequestWriter, Shape
from headgate.evaluation.tuning import Outcome, Promise, Search
from headgate.pipelines.settings import SloSettings
from headgate.workers.hardware import load_hardware
from headgate.workers.replica import prepare_host
from headgate.workers.spawn import Placement

if TYPE_CHECKING:
    from headgate.app.house import House
    from headgate.config import Settings
    from headgate.control.node_plan import PlannedModel

LEAST_S = 10.0
# How the time is spent, as parts of it: the present profile, the search, its confirmation, other quantisations, the new
# profile. Less than all, because what has begun is finished.
_PARTS = (0.12, 0.55, 0.8, 0.8, 0.88)
_PARTS_BESIDE = (0.12, 0.4, 0.6, 0.75, 0.88)  # where other quantisations are there to be looked at

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """What tuning found. `best` is the profile of `outcome.chosen`; `beside` are other quantisations of the model.

    `disturbed` is the part of the machine that others took meanwhile; `snippet` is YAML for headgate.yaml, '' when
    the present settings stay.
    """

    name: str
    version: Version
    engine: str
    hardware: str
    knobs: tuple[Knob, ...]
    shape: Shape
    promise: Promise
    seconds: float
    outcome: Outcome
    present: Profile
    best: Profile
    beside: tuple[Beside, ...]
    disturbed: float | None
    snippet: str


def tune(house: House, name: str, *, seconds: float, shape: Shape, force: bool, tell: Tell = lambda _: None) -> Tuned:
    """Measure the model for at most about `seconds` and keep its profile. Blocks.

    Raises BadRequest when that is too short, AlreadyRunning when Headgate serves here and `force` is not set,
    ModelNotFound, ModelRefused (DoesNotFit), ConfigError.
    """
    if seconds < LEAST_S:
        raise BadRequest(f"--seconds is {seconds:g}; nothing is told apart from noise in less than {LEAST_S:g}.")
    if house.running() is not None and not force:
        raise AlreadyRunning(
            "Headgate serves on this state folder: its replicas would disturb the measurement, and the measurement "
            "them. `headgate down` first, or measure all the same with --force."
        )
    began = house.clock.monotonic()
    settings = house.settings
    registry = house.registry()
    model = settings.models.get(name) or ModelSettings()
    version = registry.ensure(name, model.source).version if model.source else registry.get(name)
    others = {entry.name: entry.version for entry in registry.list() if is_other_quantisation(version, entry.version)}

    async def measure() -> Tuned:
        client = HttpClient(house.clock)
        task = asyncio.current_task()
        assert task is not None
        # Why: replicas are no children that end with us; they are stopped on the way out.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        try:
            planned = plan_model(name, model, version, build_engines(settings.engines, client), settings)
            return await _Tuning(house, planned, model, (began, seconds), shape, tell).run(others)
        finally:
            await client.close()

    try:
        tuned = asyncio.run(measure())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    return tuned


class _Tuning:
    """One model being tuned."""

    def __init__(
        self,
        house: House,
        planned: PlannedModel,
        model: ModelSettings,
        time: tuple[float, float],
        shape: Shape,
        tell: Tell,
    ) -> None:
        """`time` is when it began (monotonic), and for how many seconds it may go on."""
        self._house, self._planned, self._model, self._tell = house, planned, model, tell
        self._clock = house.clock
        self._began, self._seconds = time
        self._hardware = load_hardware()
        kinds = planned.engine.supports(planned.version)
        self._writer = RequestWriter("chat" if "chat" in kinds else "embedding", shape, SeededChance(0))
        self._promise = _find_promise(house.settings, planned.name)

    async def run(self, others: Mapping[str, Version]) -> Tuned:
        """Measure, look, confirm, compare and keep."""
        planned, version = self._planned, self._planned.version
        knobs = tuple(one for one in planned.engine.knobs(version) if _turns(one, planned.options))
        pool = build_capacity(self._house.settings, self._hardware).pool(planned.pool)
        assert pool is not None, "the configuration was checked"
        devices = pool.nodes[0].devices
        with tempfile.TemporaryDirectory(prefix="hg-") as folder:  # short: a socket's path has 103 bytes at most
            site = _choose_site(self._house, Path(folder), devices, cpu=pool.kind == "cpu")
            async with self._bench(version, site) as bench:
                ends = [self._began + part * self._seconds for part in (_PARTS_BESIDE if others else _PARTS)]
                profiled, looked, confirmed, compared, done = ends
                present = best = await self._profile(bench, planned.options, profiled if knobs else done)
                search = Search(
                    bench=bench,
                    writer=self._writer,
                    promise=self._promise,
                    clock=self._clock,
                    cores=len(devices),
                    tell=self._tell,
                )
                outcome = await search.run(planned.options, knobs, look_until=looked, until=confirmed)
                beside = await self._compare(bench, site, others, outcome.chosen, compared)
                if outcome.chosen != planned.options:
                    best = await self._profile(bench, outcome.chosen, done)
                elif present.slow[-1][0] < planned.options.slots:  # there was no time for all of it at first
                    present = best = await self._profile(bench, planned.options, done)
                disturbed = bench.disturbed
        self._keep(outcome, present, best)
        return Tuned(
            name=planned.name,
            version=version,
            engine=planned.engine.name,
            hardware=describe_hardware(self._hardware, gpu=planned.options.gpu_layers > 0),
            knobs=knobs,
            shape=self._writer.shape,
            promise=self._promise,
            seconds=self._clock.monotonic() - self._began,
            outcome=outcome,
            present=present,
            best=best,
            beside=beside,
            disturbed=disturbed,
            snippet=_write_snippet(planned.name, self._model, outcome),
        )

    def _bench(self, version: Version, site: Site) -> ReplicaBench:
        return ReplicaBench(self._planned.engine, version, site, self._clock, self._house.chance)

    async def _profile(self, bench: ReplicaBench, options: ModelOptions, until: float) -> Profile:
        file_bytes = self._planned.version.bytes
        return await measure_profile(
            bench, options, self._writer, self._clock, file_bytes=file_bytes, until=until, tell=self._tell
        )

    async def _compare(
        self, bench: ReplicaBench, site: Site, others: Mapping[str, Version], options: ModelOptions, until: float
    ) -> tuple[Beside, ...]:
        found: list[Beside] = []
        for name, version in others.items():
            if self._clock.monotonic() >= until:
                break
            self._tell(f"beside {name}")
            try:
                async with self._bench(version, site) as theirs:
                    one = await compare_versions(
                        bench, theirs, options, self._writer, self._clock, name=name, version=version, until=until
                    )
            except HeadgateError as error:  # the version that was asked for is measured all the same
                self._tell(f"{name}: {error.message}")
                continue
            found += [one] if one is not None else []
        return tuple(found)

    def _keep(self, outcome: Outcome, present: Profile, best: Profile) -> None:
        """Both profiles as rows."""
        subject = describe_subject(self._planned, self._hardware)
        stays = outcome.chosen == outcome.present
        save_profile(self._house.database, self._clock, subject, present, best=stays)
        if not stays:
            chosen = replace(subject, options=outcome.chosen)
            save_profile(self._house.database, self._clock, chosen, best, best=True)


def _turns(knob: Knob, options: ModelOptions) -> bool:
    """Whether the knob means anything there: beside a GPU threads are no cores that the model holds."""
    return knob.name != "threads" or not options.gpu_layers


def _choose_site(house: House, folder: Path, devices: tuple[int, ...], *, cpu: bool) -> Site:
    """Replicas on the first cores of their pool, or on its first GPU."""

    def place(threads: int) -> Placement:
        return Placement(cores=devices[:threads]) if cpu else Placement(cores=(), gpus=(str(devices[0]),))

    return Site(
        host=prepare_host(folder, folder, house.clock, house.settings.workers),
        place=place,
        free_memory=lambda: load_hardware().memory_bytes_available,
        ready_s=house.settings.control.ready_s,
    )


def _find_promise(settings: Settings, model: str) -> Promise:
    """The strictest of the promises of the pipelines that use the model; the default where none does."""
    promises = [one.slo for one in settings.pipelines.values() if model in one.model] or [SloSettings()]
    return Promise(
        first_token_s=min(slo.first_token_ms for slo in promises) / 1e3,
        per_token_s=min(slo.per_token_ms for slo in promises) / 1e3,
    )


def _write_snippet(name: str, model: ModelSettings, outcome: Outcome) -> str:
    """The model's part of headgate.yaml with the chosen settings; '' when the present ones stay."""
    present, chosen = outcome.present, outcome.chosen
    if chosen == present:
        return ""
    told: dict[str, Any] = model.model_dump(mode="json", exclude_defaults=True)
    if chosen.slots != present.slots:
        told["slots"] = chosen.slots
    if chosen.threads != present.threads:
        told["cores"] = chosen.threads
    if dict(chosen.settings) != dict(present.settings):
        told["settings"] = dict(chosen.settings)
    return yaml.safe_dump({"models": {name: told}}, sort_keys=False)
