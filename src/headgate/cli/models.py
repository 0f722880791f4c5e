"""`model`: which models are here."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headgate.cli.exits import FAILURE
from headgate.cli.measured import profile_table
from headgate.cli.options import AsJson, ConfigFile, StateFolder
from headgate.cli.output import count, err, make_table, out, print_json, short, show_time, watching
from headgate.core.units import format_bytes

if TYPE_CHECKING:
    from headgate.registry.catalogue import Entry

program = typer.Typer(help="Add, list, check and remove models. Works while Headgate runs and while it does not.")

Name = Annotated[str, typer.Argument(help="The model's name.")]


@program.command("add")
def add(
    name: Name,
    source: Annotated[
        str,
        typer.Argument(
            help="A GGUF file, a safetensors folder, hf:owner/repo[@revision]/file, https://..., bundled:NAME, "
            "endpoint:https://host/v1"
        ),
    ],
    licence: Annotated[str | None, typer.Option(help="Its licence, if it does not say it.", show_default=False)] = None,
    config: ConfigFile = None,
    state: StateFolder = None,
    as_json: AsJson = False,
) -> None:
    """Fetch a model, check it, try it, and give it a name. A broken model is refused here, not at a request."""
    from headgate.app.opening import Where

    with Where(config=config, state=state).house() as house, watching() as watch:
        added = house.registry().add(name, source, licence=licence, progress=watch(name))
    version = added.version
    if as_json:
        print_json({"name": name, "outcome": added.outcome, "left_out": added.left_out, **_plain(version)})
        return
    words = {"added": "is added", "moved": "now is another version", "unchanged": "was here already"}
    out.print(f"{name} {words[added.outcome]}: {_describe(version)}.", markup=False)
    if added.left_out:
        out.print(f"Not taken, because they are no part of the model: {', '.join(added.left_out)}", markup=False)
    if added.outcome == "added":
        out.print(f"To serve it, declare it in headgate.yaml under models: and pipelines:, as {name}.", markup=False)


@program.command("list")
def list_(config: ConfigFile = None, state: StateFolder = None, as_json: AsJson = False) -> None:
    """List models."""
    from headgate.app.opening import Where

    with Where(config=config, state=state).house() as house:
        entries = house.registry().list()
    if as_json:
        print_json({"models": [_plain_entry(entry) for entry in entries]})
        return
    table = make_table("name", "format", "task", ">parameters", ">size", ">context", "licence", "version", "origin")
    for entry in entries:
        one = entry.version
        facts = (one.format, one.task, count(one.parameters), format_bytes(one.bytes), str(one.context or "-"))
        table.add_row(entry.name, *facts, one.licence or "-", short(one.digest), one.origin)
    out.print(table if entries else "No models. `headgate model add NAME SOURCE` adds one.")


@program.command("show")
def show(name: Name, config: ConfigFile = None, state: StateFolder = None, as_json: AsJson = False) -> None:
    """Show everything that is known of a model."""
    from headgate.app.opening import Where
    from headgate.evaluation.profiles import list_profiles

    with Where(config=config, state=state).house() as house:
        entry = house.registry().show(name)
        profiles = list_profiles(house.database, entry.version.digest)
    if as_json:
        print_json(_plain_entry(entry) | {"profiles": [asdict(row) for row in profiles]})
        return
    one = entry.version
    table = make_table("", "")
    rows = {
        "name": entry.name,
        "version": one.digest,
        "format": f"{one.format} ({one.architecture})",
        "task": one.task,
        "parameters": count(one.parameters),
        "size": format_bytes(one.bytes),
        "context": f"{one.context} tokens" if one.context else "-",
        "chat template": "yes" if one.chat_template else "no",
        "licence": one.licence or "unknown",
        "origin": one.origin,
        "bytes lie at": one.path or "-",
        "added (UTC)": show_time(entry.history[0][1] if entry.history else entry.created_at),
        "verified (UTC)": show_time(entry.verified_at),
        "earlier versions": ", ".join(short(digest) for digest, _ in entry.history[1:]) or "none",
    }
    for key, value in rows.items():
        table.add_row(f"[bold]{key}[/]", value)
    out.print(table)
    if not profiles:
        out.print(f"\nIts speed here is not measured: `headgate tune {name}` does it.", markup=False)
    for row in profiles:
        out.print()
        out.print(profile_table(row))


@program.command("verify")
def verify(
    name: Annotated[str | None, typer.Argument(help="The model's name. Left out: all.", show_default=False)] = None,
    config: ConfigFile = None,
    state: StateFolder = None,
    as_json: AsJson = False,
) -> None:
    """Read a model's bytes again and compare them with their digest."""
    from headgate.app.opening import Where

    results: dict[str, list[dict[str, Any]]] = {}
    with Where(config=config, state=state).house() as house:
        registry = house.registry()
        for one in [name] if name else [entry.name for entry in registry.list()]:
            with err.status(f"reading {one}"):
                results[one] = [asdict(damage) for damage in registry.verify(one).damages]
    damaged = any(results.values())
    if as_json:
        print_json({"models": [{"name": one, "damages": found} for one, found in results.items()], "ok": not damaged})
    else:
        for one, found in results.items():
            told = "; ".join(f"{damage['name']} {damage['what']}" for damage in found)
            out.print(f"{one}: {'damaged: ' + told if found else 'as it was added'}", markup=False)
    if damaged:
        raise typer.Exit(FAILURE)


@program.command("remove")
def remove(
    name: Name,
    digest: Annotated[str | None, typer.Option(help="Only this earlier version.", show_default=False)] = None,
    config: ConfigFile = None,
    state: StateFolder = None,
    as_json: AsJson = False,
) -> None:
    """Remove a model that no pipeline uses; bytes that no other model shares are freed."""
    from headgate.app.opening import Where

    with Where(config=config, state=state).house() as house:
        freed = house.registry().remove(name, digest=digest)
    if as_json:
        print_json({"removed": name, "digest": digest, "freed_bytes": freed})
    else:
        out.print(f"{name} is removed, {format_bytes(freed)} freed.", markup=False)


def _plain(version: Any) -> dict[str, Any]:
    facts = asdict(version)
    facts.pop("header", None)
    facts["has_chat_template"] = facts.pop("chat_template") is not None
    facts["path"] = str(Path(version.path)) if version.path else None
    return facts


def _plain_entry(entry: Entry) -> dict[str, Any]:
    history = [{"digest": digest, "added_at": at} for digest, at in entry.history]
    return {
        "name": entry.name,
        "created_at": entry.created_at,
        "verified_at": entry.verified_at,
        **_plain(entry.version),
        "history": history,
    }


def _describe(version: Any) -> str:
    words = [version.format, f"{count(version.parameters)} parameters" if version.parameters else ""]
    words += [format_bytes(version.bytes), version.licence or "licence unknown", f"version {short(version.digest)}"]
    return ", ".join(word for word in words if word)
