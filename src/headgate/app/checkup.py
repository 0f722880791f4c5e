"""What `headgate doctor` looks at: each finding says what is there, how bad it is, and how to mend it."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from headgate.app.opening import Where
from headgate.core.errors import ConfigError, HeadgateError, ModelNotFound
from headgate.core.units import format_bytes
from headgate.workers.hardware import HardwareFacts, load_hardware
from headgate.workers.supervisor_state import load_state

if TYPE_CHECKING:
    from headgate.config import Settings

Verdict = Literal["ok", "info", "warn", "bad"]

_FILES_WANTED = 4096  # two per connection and some per replica
_FREE_WANTED = 2 * 2**30
_CPU_FLAGS = ("avx", "avx2", "f16c", "fma", "avx512f", "avx512_vnni", "avx_vnni", "amx_tile", "asimd", "asimddp", "sve")
_EXTRAS = (
    ("hub", "huggingface_hub", "models from hf: sources"),
    ("postgres", "psycopg", "a PostgreSQL database for several gateways"),
    ("sim", "highspy", "decisions solved exactly in the background, and `headgate simulate`"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing looked at. `cure` is empty when there is nothing to do."""

    what: str
    verdict: Verdict
    found: str
    cure: str = ""


def check_all(where: Where) -> list[Finding]:
    """Every finding, in the order in which a person would look. A check that fails is itself a finding."""
    hardware = load_hardware()
    findings = [*_check_software(), *_check_machine(hardware)]
    try:
        settings, _ = where.settings()
    except ConfigError as error:
        cure = "`headgate config check` tells it again after each change."
        findings.append(Finding(what="configuration", verdict="bad", found=error.message, cure=cure))
        return [*findings, *_check_state(where.places().state)]
    name = str(where.config or ("headgate.yaml" if Path("headgate.yaml").exists() else "built-in: the bundled models"))
    findings.append(Finding(what="configuration", verdict="ok", found=name))
    checks: tuple[Callable[[], Iterator[Finding]], ...] = (
        lambda: _check_state(where.places().state),
        lambda: _check_port(where, settings),
        lambda: _check_llama_server(settings),
        lambda: _check_models(where, settings, hardware),
    )
    for check in checks:
        try:
            findings += check()
        except HeadgateError as error:
            findings.append(Finding(what="state folder", verdict="bad", found=error.message))
    return findings


def _check_software() -> Iterator[Finding]:
    yield Finding(what="Python", verdict="ok", found=f"{platform.python_version()} ({sys.executable})")
    try:
        from importlib.metadata import version

        found = f"xllamacpp {version('xllamacpp')}, in the package"
        yield Finding(what="llama.cpp", verdict="ok" if find_spec("xllamacpp") else "bad", found=found)
    except ImportError:
        yield Finding(what="llama.cpp", verdict="bad", found="not installed", cure="pip install xllamacpp")
    for extra, module, purpose in _EXTRAS:
        if find_spec(module) is not None:
            yield Finding(what=f"extra [{extra}]", verdict="ok", found=f"installed: {purpose}")
        else:
            yield Finding(
                what=f"extra [{extra}]",
                verdict="info",
                found=f"not installed: {purpose}",
                cure=f"If you need it: pip install 'headgate[{extra}]'",
            )


def _check_machine(hardware: HardwareFacts) -> Iterator[Finding]:
    flags = [flag for flag in _CPU_FLAGS if flag in _load_cpu_flags()]
    yield Finding(
        what="processor",
        verdict="ok",
        found=f"{hardware.cpu_model or 'unknown'}; {', '.join(flags) or 'no SIMD known'}",
    )
    cores = f"{hardware.cores:g}: {len(hardware.core_ids)} by affinity of {os.cpu_count()} in the machine"
    quota = f", {hardware.cpu_quota:g} by control group" if hardware.cpu_quota is not None else ", no quota"
    yield Finding(what="cores", verdict="ok", found=cores + quota)
    limit = hardware.memory_bytes_limit
    bound = f"limited to {format_bytes(limit)} by control group" if limit else "no control group limit"
    memory = (
        f"{format_bytes(hardware.memory_bytes_total)}, {format_bytes(hardware.memory_bytes_available)} free; {bound}"
    )
    yield Finding(what="memory", verdict="ok", found=memory)
    if hardware.cgroup_delegated:
        yield Finding(what="core shares", verdict="ok", found="weights, by a control group of our own")
    else:
        yield Finding(
            what="core shares",
            verdict="info",
            found=f"by dispatch alone: no control group of our own (version {hardware.cgroup_version or 'none'})",
            cure="The systemd unit has one: `headgate systemd`.",
        )
    yield _check_isolation()
    if hardware.gpus:
        for gpu in hardware.gpus:
            yield Finding(what="GPU", verdict="ok", found=f"{gpu.name} at {gpu.address}")
    else:
        yield Finding(what="GPU", verdict="info", found="none; nothing here needs one")
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = soft == resource.RLIM_INFINITY or soft >= _FILES_WANTED
    yield Finding(
        what="open files",
        verdict="ok" if enough else "warn",
        found="no limit" if soft == resource.RLIM_INFINITY else str(soft),
        cure="" if enough else f"For many connections: ulimit -n {_FILES_WANTED * 4}",
    )


def _check_isolation() -> Finding:
    from headgate.workers.isolation import find_isolation

    way = find_isolation("auto")
    if way == "none":
        return Finding(
            what="replica networks",
            verdict="warn",
            found="replicas share this machine's network; this kernel allows no other",
            cure="Allow user namespaces (sysctl kernel.unprivileged_userns_clone=1) and install util-linux.",
        )
    return Finding(what="replica networks", verdict="ok", found=f"each replica gets one without a way out ({way})")


def _check_state(state: Path) -> Iterator[Finding]:
    there = next(path for path in (state, *state.parents) if path.exists())
    usage = shutil.disk_usage(there)
    free = format_bytes(usage.free)
    low = usage.free < _FREE_WANTED
    yield Finding(
        what="disk",
        verdict="warn" if low else "ok",
        found=f"{free} free at {there}",
        cure="Models need room: free some, or set state: to a larger disk." if low else "",
    )
    if there != state:
        writable = os.access(there, os.W_OK)
        yield Finding(
            what="state folder",
            verdict="ok" if writable else "bad",
            found=f"{state} does not exist yet",
            cure="" if writable else f"{there} is not ours to write; set state: to another folder, or HEADGATE_STATE.",
        )
        return
    about = state.stat()
    if about.st_uid != os.geteuid():
        cure = "Run as that user, or set state: to another folder."
        yield Finding(what="state folder", verdict="bad", found=f"{state} belongs to user {about.st_uid}", cure=cure)
    elif stat.S_IMODE(about.st_mode) & 0o077:
        mode = f"{stat.S_IMODE(about.st_mode):04o}"
        cure = f"chmod 700 {state}"
        yield Finding(what="state folder", verdict="warn", found=f"{state} is open to others ({mode})", cure=cure)
    else:
        yield Finding(what="state folder", verdict="ok", found=str(state))


def _check_port(where: Where, settings: Settings) -> Iterator[Finding]:
    from headgate.workers.listeners import bind_tcp

    account = load_state(where.places().run / "supervisor.json")
    if account is not None:
        address = account.listeners.get("gateway", "")
        yield Finding(what="serving", verdict="ok", found=f"yes, at {address} (pid {account.pid}, {account.stage})")
        return
    gateway = settings.gateway
    try:
        bind_tcp("gateway", gateway.host, gateway.port).close()
    except ConfigError as error:
        yield Finding(what="port", verdict="bad", found=error.message)
    else:
        shown = f"{gateway.host}:{gateway.port}" if gateway.port else f"{gateway.host}, any free port"
        yield Finding(what="port", verdict="ok", found=f"{shown} is free")


def _check_llama_server(settings: Settings) -> Iterator[Finding]:
    """Whether one's own llama-server starts, and sees the GPUs that models want.

    Why asked: a build without CUDA warns of it in its log and runs all layers on the CPU.
    """
    from headgate.engines.llamacpp_devices import list_devices

    binary = settings.engines.llamacpp.binary
    if binary is None:
        return
    wanted = [name for name, model in settings.models.items() if model.gpu_layers]
    what, cure = "own llama-server", "Set engines.llamacpp.binary to a llama-server that runs here."
    try:
        devices = list_devices(Path(binary))
    except (OSError, ValueError) as error:
        told = (error.strerror or "it cannot be started") if isinstance(error, OSError) else str(error)
        yield Finding(what=what, verdict="bad" if wanted else "warn", found=f"{binary}: {told}", cure=cure)
        return
    for one in devices:
        memory = f"{format_bytes(one.total_bytes)}, {format_bytes(one.free_bytes)} free"
        yield Finding(what=what, verdict="ok", found=f"sees {one.name}: {one.description}, {memory}")
    if not devices:
        yield Finding(
            what=what,
            verdict="bad" if wanted else "info",
            found=f"{binary} sees no GPU" + (f", and gpu_layers is set for {', '.join(wanted)}" if wanted else ""),
            cure="Build it with CUDA (-DGGML_CUDA=ON), or remove gpu_layers." if wanted else "",
        )


def _check_models(where: Where, settings: Settings, hardware: HardwareFacts) -> Iterator[Finding]:
    """Each model's memory need against what there is. Adds nothing: a model that is not here yet is told as such."""
    from headgate.app.plan import build_plan
    from headgate.core.model import Version
    from headgate.engines.catalogue import build_engines
    from headgate.engines.http import HttpClient

    if not where.places().state.exists():
        yield Finding(what="models", verdict="info", found=f"{len(settings.models)} to be added by `headgate up`")
        return
    versions: dict[str, Version] = {}
    with where.house() as house:
        registry = house.registry()
        for name in settings.models:
            try:
                versions[name] = registry.get(name)
            except ModelNotFound:
                source = settings.models[name].source
                cure = "" if source else f"`headgate model add {name} SOURCE`, or give it a source."
                told = "not here yet" + ("; `headgate up` adds it" if source else "")
                yield Finding(what=f"model {name}", verdict="info" if source else "bad", found=told, cure=cure)
            except HeadgateError as error:
                yield Finding(what=f"model {name}", verdict="bad", found=error.message)
        engines = build_engines(settings.engines, HttpClient(house.clock))
        for name, version in versions.items():
            one = settings.model_copy(update={"models": {name: settings.models[name]}, "pipelines": {}})
            try:
                plan = build_plan(one, {name: version}, engines, house.clock.now())
                planned = plan.models[name]
                pool = plan.capacity.pool(planned.pool)
            except HeadgateError as error:
                yield Finding(what=f"model {name}", verdict="bad", found=error.message)
                continue
            # Why not what is free of a GPU: it was said how much of it may be used, and nothing here asks its driver.
            each = max((node.device_memory_bytes or 0 for node in pool.nodes), default=0) if pool else 0
            need, budget = planned.memory_bytes, each or hardware.memory_bytes_available
            fits = need <= budget
            yield Finding(
                what=f"model {name}",
                verdict="ok" if fits else "bad",
                found=f"a replica needs {format_bytes(need)} of {format_bytes(budget)} {'on a GPU' if each else 'free'}"
                + ("" if fits else f"; {format_bytes(need - budget)} are missing"),
                cure="" if fits else f"Lower models.{name}.context or .slots, or take a smaller model.",
            )


def _load_cpu_flags() -> frozenset[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    found = (line.partition(":")[2] for line in lines if line.partition(":")[0].strip() in ("flags", "Features"))
    return frozenset(next(found, "").split())
