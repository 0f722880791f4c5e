"""`doctor` and `version`: what is here, what is missing, and how to get it."""

from __future__ import annotations

import platform
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of

import typer
from rich.text import Text

from headgate import __version__
from headgate.cli.exits import FAILURE
from headgate.cli.options import AsJson, ConfigFile, StateFolder
from headgate.cli.output import make_table, out, print_json

_MARKS = {"ok": ("ok", "green"), "info": ("-", "dim"), "warn": ("warn", "yellow"), "bad": ("bad", "bold red")}


def doctor(config: ConfigFile = None, state: StateFolder = None, as_json: AsJson = False) -> None:
    """Look at hardware, limits, versions and configuration; say what is missing and how to get it."""
    from headgate.app.checkup import check_all
    from headgate.app.opening import Where

    findings = check_all(Where(config=config, state=state))
    bad = any(one.verdict == "bad" for one in findings)
    if as_json:
        print_json({"ok": not bad, "findings": [asdict(one) for one in findings]})
    else:
        table = make_table("", "what", "found")
        for one in findings:
            found = Text(one.found)
            if one.cure:
                found.append(f"\n{one.cure}", "italic")
            table.add_row(Text(*_MARKS[one.verdict]), Text(one.what), found)
        out.print(table)
    if bad:
        raise typer.Exit(FAILURE)


def version(as_json: AsJson = False) -> None:
    """Print versions."""
    facts = {
        "headgate": __version__,
        "python": platform.python_version(),
        "llama.cpp (xllamacpp)": _installed("xllamacpp"),
        "platform": platform.platform(),
    }
    if as_json:
        print_json({"headgate": facts["headgate"], "python": facts["python"], "xllamacpp": _installed("xllamacpp"),
                    "platform": facts["platform"]})  # fmt: skip
        return
    out.print("\n".join(f"{name} {value}" for name, value in facts.items()), markup=False)


def _installed(package: str) -> str | None:
    try:
        return version_of(package)
    except PackageNotFoundError:
        return None
