"""`up`, `down`, `reload`, `systemd`: a house is started, stopped, changed, or left to the service manager."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headgate.cli.options import AsJson, ConfigFile, StateFolder
from headgate.cli.output import err, note, out, print_json, short, warn, watching
from headgate.core.clock import SystemClock
from headgate.core.errors import ConfigError
from headgate.core.units import format_bytes

if TYPE_CHECKING:
    from headgate.app.starting import Prepared
    from headgate.config import Settings
    from headgate.core.secret import Secret

_CHANGES = {
    "added": "added",
    "removed": "removed",
    "replaced": "changed, its replicas are replaced",
    "adjusted": "adjusted, its replicas stay",
}


def up(
    config: ConfigFile = None,
    state: StateFolder = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Serve in the background; return once ready.")] = False,
    as_json: AsJson = False,
) -> None:
    """Serve the pipelines of headgate.yaml; without that file, the bundled models."""
    from headgate.app.local_admin import url_of
    from headgate.app.opening import Where
    from headgate.app.starting import become_supervisor, make_admin_key, prepare, start_detached

    settings, text = Where(config=config, state=state).settings()
    _warn_of_bind(settings)
    with watching() as watch:
        prepared = prepare(settings, text, watch, config)
    if not detach:
        _tell_prepared(prepared, settings, make_admin_key(settings), as_json)
        become_supervisor(prepared)
    note("starting the processes")
    account = start_detached(prepared, SystemClock())
    key = make_admin_key(settings)
    url = url_of(account, tls=settings.gateway.tls is not None)
    if as_json:
        print_json({"pid": account.pid, "url": url, **_facts(prepared, settings, key)})
        return
    many = "" if len(settings.pipelines) == 1 else "s"
    out.print(f"Headgate serves {len(settings.pipelines)} pipeline{many} at [bold]{url}/v1[/] (pid {account.pid}).")
    _tell_models(prepared)
    _tell_key(settings, key, url)
    out.print("`headgate status` shows it, `headgate down` stops it.")


def down(
    config: ConfigFile = None,
    state: StateFolder = None,
    now: Annotated[bool, typer.Option("--now", help="Do not wait for requests in flight.")] = False,
    as_json: AsJson = False,
) -> None:
    """Stop serving. Requests in flight may finish first."""
    from headgate.app.local_admin import load_running
    from headgate.app.opening import Where
    from headgate.app.starting import stop

    clock = SystemClock()
    account = load_running(Where(config=config, state=state).places())
    began = clock.monotonic()
    with err.status("stopping") as status:
        stop(account, clock, now=now, watch=lambda waited_s: status.update(f"finishing requests, {waited_s:.0f} s"))
    took_s = clock.monotonic() - began
    if as_json:
        print_json({"stopped": True, "pid": account.pid, "took_s": round(took_s, 3)})
    else:
        out.print(f"Headgate has stopped ({took_s:.1f} s).")


def reload(config: ConfigFile = None, state: StateFolder = None, as_json: AsJson = False) -> None:
    """Apply a changed headgate.yaml without dropping a request. A file that is not valid changes nothing."""
    from headgate.app.local_admin import LocalAdmin, load_running
    from headgate.app.opening import Where
    from headgate.config import DEFAULT_FILE

    where = Where(config=config, state=state)
    path = where.file()
    if path is None:
        raise ConfigError(f"There is no {DEFAULT_FILE} here. Name the file to apply with --config.", param="config")
    settings, _ = where.settings()
    places = where.places()
    load_running(places)

    async def ask() -> Any:
        async with LocalAdmin(places, SystemClock()) as admin:
            # Why a day: a changed file may name a model that must be downloaded first.
            return await admin.ask("POST", "/admin/reload", {"path": str(path.absolute())}, patience_s=86_400.0)

    _warn_of_bind(settings)
    with err.status("reloading"):
        changed: dict[str, Any] = asyncio.run(ask())
    if as_json:
        print_json(changed)
        return
    pipelines: dict[str, list[str]] = changed["pipelines"]
    lines = [f"{name}: {words}" for key, words in _CHANGES.items() for name in pipelines.get(key, ())]
    out.print("\n".join(lines) if lines else f"{path} is in force; it changes no pipeline.", markup=False)


def systemd(
    config: ConfigFile = None,
    user: Annotated[str | None, typer.Option(help="User to run as.", show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """Print a systemd unit for this installation: `headgate systemd > /etc/systemd/system/headgate.service`."""
    from headgate.workers.systemd import load_unit

    program = shutil.which("headgate") or str(Path(sys.argv[0]).absolute())
    command = f"{program} up --config {(config or Path('/etc/headgate/headgate.yaml')).absolute()}"
    unit = load_unit(command, user)
    if as_json:
        print_json({"unit": unit})
    else:
        typer.echo(unit, nl=False)


def _warn_of_bind(settings: Settings) -> None:
    from headgate.gateway.settings import is_loopback

    gateway = settings.gateway
    if gateway.tls is None and not is_loopback(gateway.host):
        warn(
            f"{gateway.host} can be reached by other machines and there is no TLS: keys and prompts travel in the "
            "clear (gateway.allow_insecure_bind is set)."
        )


def _tell_prepared(prepared: Prepared, settings: Settings, key: Secret | None, as_json: bool) -> None:
    """What is known before the address is bound; the supervisor says on stderr when it serves."""
    gateway = settings.gateway
    scheme = "https" if gateway.tls else "http"
    url = f"{scheme}://{gateway.host}:{gateway.port or 'PORT'}"
    if as_json:
        told = {"pid": os.getpid(), "url": url if gateway.port else None}
        print_json({**told, **_facts(prepared, settings, key)})
        return
    out.print(f"Headgate will serve {len(settings.pipelines)} pipelines at [bold]{url}/v1[/]. Ctrl-C stops it.")
    if not gateway.port:
        out.print("The port is a free one: `headgate status` names it.")
    _tell_models(prepared)
    _tell_key(settings, key, url)


def _facts(prepared: Prepared, settings: Settings, key: Secret | None) -> dict[str, Any]:
    return {
        "state": str(prepared.places.state),
        "admin_socket": str(prepared.places.admin_socket),
        "admin_key": key.reveal() if key else None,
        "pipelines": sorted(settings.pipelines),
        "models": {name: version.digest for name, version in prepared.versions.items()},
    }


def _tell_models(prepared: Prepared) -> None:
    for name, version in prepared.versions.items():
        note(f"  {name}: {version.format}, {format_bytes(version.bytes)}, {short(version.digest)}")


def _tell_key(settings: Settings, key: Secret | None, url: str) -> None:
    if key is None:
        return
    out.print("\nAdmin key, shown this once; keep it as you keep a password:\n")
    out.print(f"  [bold green]{key.reveal()}[/]\n")
    if settings.pipelines:
        out.print(f"Try it:\n{curl_line(url, key.reveal(), preferred(settings.pipelines))}\n", markup=False)


def preferred(pipelines: Any) -> str:
    """The pipeline to try first: one that writes text where there is one."""
    names: list[str] = sorted(pipelines)
    return next((name for name in names if name.endswith("extract")), names[0])


def curl_line(url: str, key: str, pipeline: str) -> str:
    """One line that asks `pipeline` something."""
    ask = "My Lumo kettle K-45 arrived broken, order 48213. Please send me a refund. Maria Lopez"
    body = f'{{"model": "{pipeline}", "messages": [{{"role": "user", "content": "{ask}"}}]}}'
    headers = f"-H 'Authorization: Bearer {key}' -H 'Content-Type: application/json'"
    return f"curl {url}/v1/chat/completions {headers} -d '{body}'"
