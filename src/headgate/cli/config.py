"""`config`: headgate.yaml looked at before it is applied."""

from __future__ import annotations

import typer

from headgate.cli.options import AsJson, ConfigFile
from headgate.cli.output import out, print_json

program = typer.Typer(help="Check headgate.yaml, or print its JSON Schema.")


@program.command("check")
def check(config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Check a configuration file; every mistake is told with its line and its cure."""
    from headgate.config import DEFAULT_FILE, load_settings

    settings = load_settings(config)
    name = str(config or (DEFAULT_FILE if DEFAULT_FILE.exists() else "the built-in configuration"))
    if as_json:
        facts = {"pools": sorted(settings.pools), "models": sorted(settings.models)}
        print_json({"valid": True, "file": name, **facts, "pipelines": sorted(settings.pipelines)})
        return
    out.print(
        f"{name} is valid: {len(settings.pools)} pools, {len(settings.models)} models, {len(settings.pipelines)} "
        "pipelines.",
        markup=False,
    )


@program.command("schema")
def schema(as_json: AsJson = False) -> None:
    """Print the JSON Schema of headgate.yaml, for editors."""
    from headgate.config import json_schema

    print_json(json_schema())
