"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def _note_json(context: typer.Context, value: bool) -> bool:
    # So that an error is told as JSON too, wherever it happens.
    context.meta["headgate.json"] = value
    return value


ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        envvar="HEADGATE_CONFIG",
        help="Configuration file. Left out: ./headgate.yaml; without one, the bundled models.",
        show_default=False,
    ),
]
StateFolder = Annotated[
    Path | None,
    typer.Option("--state", help="State folder, instead of the one that the configuration names.", show_default=False),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Answer with JSON on stdout and nothing else there.", callback=_note_json)
]
