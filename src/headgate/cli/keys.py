"""`key`: who may ask."""

from __future__ import annotations

import getpass
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, cast

import typer

from headgate.cli.options import AsJson, ConfigFile, StateFolder
from headgate.cli.output import make_table, out, print_json, show_time
from headgate.core.errors import BadRequest
from headgate.core.units import parse_seconds

if TYPE_CHECKING:
    from headgate.core.principal import Role
    from headgate.store.keys import KeyRow

program = typer.Typer(help="Make, list and revoke API keys. Works while Headgate runs and while it does not.")


@program.command("create")
def create(
    name: Annotated[str, typer.Argument(help="What the key is for.")] = "",
    user: Annotated[str | None, typer.Option(help="Whose it is. Left out: your login.", show_default=False)] = None,
    team: Annotated[str, typer.Option(help="Whose budget it is.")] = "default",
    role: Annotated[str, typer.Option(help="user (asks pipelines), scrape (reads /metrics) or admin.")] = "user",
    expires: Annotated[
        str | None,
        typer.Option(help="After how long it ends, such as 12h or 90d. Left out: never.", show_default=False),
    ] = None,
    config: ConfigFile = None,
    state: StateFolder = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and show it, this once."""
    from headgate.app.opening import Where
    from headgate.store.keys import create_key

    with Where(config=config, state=state).house() as house:
        key, row = create_key(
            house.database,
            house.pepper(),
            ids=house.ids,
            clock=house.clock,
            chance=house.chance,
            user=getpass.getuser() if user is None else user,
            team=team,
            role=cast("Role", role),  # checked there
            name=name,
            expires_at=None if expires is None else house.clock.now() + _parse_expiry(expires),
        )
    if as_json:
        print_json({"key": key.reveal(), **asdict(row)})
        return
    out.print(f"Key for {row.user} ({row.role}), shown this once:\n", markup=False)
    out.print(f"  [bold green]{key.reveal()}[/]\n")
    out.print(f"`headgate key revoke {row.prefix}` ends it.", markup=False)


@program.command("list")
def list_(
    every: Annotated[bool, typer.Option("--all", help="Those that no longer work, too.")] = False,
    config: ConfigFile = None,
    state: StateFolder = None,
    as_json: AsJson = False,
) -> None:
    """List keys; never the keys themselves."""
    from headgate.app.opening import Where
    from headgate.store.keys import list_keys

    with Where(config=config, state=state).house() as house:
        now = house.clock.now()
        rows = list_keys(house.database, now=None if every else now)
    if as_json:
        print_json({"keys": [{**asdict(row), "state": _state(row, now)} for row in rows]})
        return
    table = make_table("key", "name", "user", "team", "role", "created (UTC)", "expires", "last used", "state")
    for row in rows:
        times = (show_time(row.created_at), show_time(row.expires_at), show_time(row.last_used_at))
        table.add_row(f"{row.prefix}...", row.name, row.user, row.team, row.role, *times, _state(row, now))
    out.print(table if rows else "No keys. `headgate key create` makes one.")


@program.command("revoke")
def revoke(
    key: Annotated[str, typer.Argument(help="Its id, name or first characters, as `headgate key list` shows them.")],
    config: ConfigFile = None,
    state: StateFolder = None,
    as_json: AsJson = False,
) -> None:
    """End a key. A running Headgate refuses it within a second."""
    from headgate.app.opening import Where
    from headgate.store.keys import revoke_key

    with Where(config=config, state=state).house() as house:
        row = revoke_key(house.database, key.removesuffix("..."), clock=house.clock)
    if as_json:
        print_json({"revoked": asdict(row)})
    else:
        out.print(f"Key {row.prefix}... of {row.user} is revoked.", markup=False)


def _parse_expiry(text: str) -> float:
    try:
        seconds = parse_seconds(text)
    except ValueError as error:
        raise BadRequest(f"--expires: {error}", param="expires") from None
    if seconds <= 0:
        raise BadRequest("--expires: give a time to come, such as 90d", param="expires")
    return seconds


def _state(row: KeyRow, now: float) -> str:
    if row.active(now):
        return "works"
    return "revoked" if row.revoked_at is not None else "expired"
