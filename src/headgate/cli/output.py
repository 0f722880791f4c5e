"""How answers look: JSON or tables on stdout, everything else (progress, warnings, errors) on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table

if TYPE_CHECKING:
    from headgate.app.plan import Watch

_PIPED_WIDTH = 250  # a table in a pipe is read by programs: no cell is folded

out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else _PIPED_WIDTH)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def print_json(value: object) -> None:
    """`value` as JSON on stdout, alone there."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def note(text: str) -> None:
    """A line for people, on stderr."""
    err.print(escape(text))


def warn(text: str) -> None:
    """A warning, on stderr."""
    err.print(f"[bold yellow]warning:[/] {escape(text)}")


def make_table(*columns: str, title: str | None = None) -> Table:
    """A table in the house's style. A column whose name begins with '>' is right-aligned."""
    table = Table(box=None, pad_edge=False, header_style="bold", title=title, title_justify="left", title_style="bold")
    for name in columns:
        right = name.startswith(">")
        table.add_column(name.removeprefix(">"), justify="right" if right else "left", overflow="fold")
    return table


def show_time(at: float | None) -> str:
    """Seconds since the epoch as UTC for people; '-' for None."""
    return "-" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")


def short(digest: str) -> str:
    """A digest as people tell it apart: its first twelve digits."""
    return digest.removeprefix("sha256:")[:12]


def count(value: int | None) -> str:
    """A large count for people: '5.3 M'."""
    if value is None:
        return "-"
    for limit, unit in ((1e9, " B"), (1e6, " M"), (1e3, " k")):
        if value >= limit:
            return f"{value / limit:.1f}{unit}"
    return str(value)


@contextmanager
def watching() -> Generator[Watch]:
    """Shows how models are fetched and tried: bars on a terminal, else a line for each step; always on stderr."""
    if not err.is_terminal:
        yield _tell_steps
        return
    columns = (SpinnerColumn(), TextColumn("{task.fields[model]}"), TextColumn("{task.description}"), BarColumn(20))
    with Progress(*columns, DownloadColumn(), console=err, transient=True) as progress:

        def watch(model: str) -> Any:
            task = progress.add_task("waiting", total=None, model=model)

            def tell(what: str, done: int, total: int | None) -> None:
                progress.update(task, description=what, completed=done, total=total)

            return tell

        yield watch


def _tell_steps(model: str) -> Any:
    told: set[str] = set()

    def tell(what: str, done: int, total: int | None) -> None:
        if what not in told:
            told.add(what)
            note(f"{model}: {what}")

    return tell
