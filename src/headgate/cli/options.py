"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headgate.core.errors import BadRequest
from headgate.core.units import parse_seconds


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


def read_duration(text: str | None, option: str) -> float | None:
    """Seconds in '250ms' or '2h'; None when it was not said. Raises BadRequest naming the option."""
    if text is None:
        return None
    try:
        return parse_seconds(text)
    except ValueError as error:
        raise BadRequest(f"--{option}: {error}", param=option) from None


def read_pairs(texts: list[str] | None, option: str) -> dict[str, float]:
    """Numbers by name in 'NAME=NUMBER' (several with commas). Raises BadRequest naming the option."""
    pairs: dict[str, float] = {}
    for part in (one.strip() for text in texts or () for one in text.split(",") if one.strip()):
        name, _, number = part.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            value = -1.0
        if not name or not 0.0 <= value < float("inf"):
            raise BadRequest(f"--{option}: {part!r} is not NAME=NUMBER, such as cpu=8.", param=option)
        pairs[name] = value
    return pairs
