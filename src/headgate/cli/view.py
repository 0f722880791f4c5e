"""`status`, `top`: what a running house does, once or live."""

from __future__ import annotations

import asyncio
import select
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headgate.cli.options import AsJson, ConfigFile, StateFolder
from headgate.cli.output import out, print_json
from headgate.cli.tables import status_tables
from headgate.core.clock import SystemClock
from headgate.core.errors import Unavailable

if TYPE_CHECKING:
    from headgate.app.house import Places

_LEAST_INTERVAL_S = 0.1


def status(config: ConfigFile = None, state: StateFolder = None, as_json: AsJson = False) -> None:
    """Show pipelines, replicas, pools and processes."""
    from headgate.app.opening import Where

    told = asyncio.run(_load_status(Where(config=config, state=state).places()))
    if as_json:
        print_json(told)
    else:
        out.print(status_tables(told))


def top(
    interval: Annotated[float, typer.Option(help="Seconds between two looks.")] = 0.5,
    count: Annotated[
        int | None, typer.Option(help="Looks before it ends. Left out: until q or Ctrl-C.", show_default=False)
    ] = None,
    config: ConfigFile = None,
    state: StateFolder = None,
    as_json: AsJson = False,
) -> None:
    """Show the same live; q ends it. With --json, one line of JSON for each look."""
    from headgate.app.opening import Where

    places = Where(config=config, state=state).places()
    interval_s = max(interval, _LEAST_INTERVAL_S)
    if as_json or not out.is_terminal:
        asyncio.run(_print_looks(places, interval_s, count or 1, as_json))
        return
    asyncio.run(_show_live(places, interval_s, count))


async def _load_status(places: Places) -> dict[str, Any]:
    """The node's and gateways' state beside the supervisor's; the latter alone while the former do not answer."""
    from headgate.app.local_admin import LocalAdmin

    async with LocalAdmin(places, SystemClock()) as admin:
        return await _look(admin, places)


async def _look(admin: Any, places: Places) -> dict[str, Any]:
    from headgate.app.local_admin import load_running, url_of

    account = load_running(places)
    try:
        answered: dict[str, Any] = await admin.ask("GET", "/admin/status")
    except Unavailable as error:
        answered = {"fault": error.message}
    house = {
        "stage": account.stage,
        "pid": account.pid,
        "started_at": account.started_at,
        "version": account.version,
        "url": url_of(account, tls=bool(answered.get("gateway", {}).get("tls"))),
        "state": str(places.state),
        "listeners": account.listeners,
        "processes": [child._asdict() for child in account.children],
    }
    return {"house": house, **answered}


async def _print_looks(places: Places, interval_s: float, count: int, as_json: bool) -> None:
    import orjson

    from headgate.app.local_admin import LocalAdmin

    clock = SystemClock()
    async with LocalAdmin(places, clock) as admin:
        for number in range(count):
            if number:
                await clock.sleep(interval_s)
            told = await _look(admin, places)
            if as_json:
                typer.echo(orjson.dumps(told).decode())
            else:
                out.print(status_tables(told))


async def _show_live(places: Places, interval_s: float, count: int | None) -> None:
    from rich.live import Live

    from headgate.app.local_admin import LocalAdmin

    looks = 0
    async with LocalAdmin(places, SystemClock()) as admin:
        first = status_tables(await _look(admin, places))
        with _keys() as pressed, Live(first, console=out, screen=True, auto_refresh=False) as live:
            while count is None or looks < count:
                live.update(status_tables(await _look(admin, places)), refresh=True)
                looks += 1
                if await asyncio.to_thread(pressed, interval_s) in ("q", "Q", "\x03", "\x04"):
                    return


def _wait(seconds: float) -> str:
    SystemClock().block(seconds)
    return ""


@contextmanager
def _keys() -> Generator[Callable[[float], str]]:
    """Waits for a key for some seconds: the key, or '' when none was pressed."""
    if not sys.stdin.isatty():
        yield _wait
        return
    import termios
    import tty

    handle = sys.stdin.fileno()
    before = termios.tcgetattr(handle)

    def pressed(seconds: float) -> str:
        readable, _, _ = select.select([handle], [], [], seconds)
        return sys.stdin.read(1) if readable else ""

    try:
        tty.setcbreak(handle)
        yield pressed
    finally:
        termios.tcsetattr(handle, termios.TCSADRAIN, before)
