"""How the demo looks while it runs and when it is over."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from headgate.cli.output import make_table

if TYPE_CHECKING:
    from headgate.app.demonstration import Progress

_LINE_EVERY_S = 2.0
_BARS = " ▂▄▆█"
_RECENT_S = 3.0
_LOOKS_MOST = 60
_OTHER_COLUMNS = 80  # characters that the table has beside the bars
_DECISIONS_SHOWN = 5


class View:
    """Shows progress: a table that changes on a terminal, else a line every two seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._next_s = 0.0

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, progress: Progress) -> None:
        """Show how it stands."""
        if self._live is not None:
            self._live.update(_live_view(progress, self._console.width), refresh=True)
        elif progress.elapsed_s >= self._next_s:
            self._next_s += _LINE_EVERY_S
            self._console.print(_line(progress), markup=False)


def closing_table(static: Progress, moving: Progress) -> Table:
    """Both loads beside each other: all requests, then those of each pipeline."""
    from headgate.app.demonstration import summarise_load

    table = make_table("", ">best static split", ">Headgate", title="\nThe same requests on the same cores")
    for name in [None, *sorted(moving.replicas)]:
        both = [summarise_load(progress, name) for progress in (static, moving)]
        table.add_row(Text(f"{name or 'all'}: {both[1].requests} requests", "bold"))
        table.add_row("  late", *_compared([one.late for one in both]))
        table.add_row("  lost", *_compared([one.failures for one in both]))
        table.add_row("  p95 ms", *_compared([one.latency_ms_p95 for one in both]))
        table.add_row("  first token p95 ms", *_compared([one.first_token_ms_p95 for one in both]))
        table.add_row("  replicas moved", str(static.moved(name)), str(moving.moved(name)))
    return table


def tell_verdict(static: Progress, moving: Progress) -> str:
    """Which did better, whichever it was, and by how much: a sentence in markup."""
    from headgate.app.demonstration import summarise_load

    split, headgate = summarise_load(static), summarise_load(moving)
    missed, without = headgate.late + headgate.failures, split.late + split.failures
    figures = f"{missed} of {headgate.requests} requests late or lost, {without} on the best static split"
    lost = f" [bold red]{headgate.failures} were lost.[/]" if headgate.failures else ""
    if missed == without:
        return f"\n[bold yellow]No difference[/]: with Headgate {figures}.{lost}"
    if missed > without:
        return f"\n[bold red]The static split did better here[/]: with Headgate {figures}.{lost}"
    moves = f"No request was lost while replicas came and went {moving.moved()} times."
    return f"\n[bold green]Headgate did better[/]: {figures}.{lost or ' ' + moves}"


def _compared(values: Sequence[float | None]) -> list[Text]:
    """The static split's value and Headgate's, which is green where it is the smaller one and red where it is not."""
    static, moving = values
    style = ""
    if static is not None and moving is not None and static != moving:
        style = "green" if moving < static else "red"
    return [Text(_ms(static)), Text(_ms(moving), style)]


def _live_view(progress: Progress, width: int) -> RenderableType:
    looks = max(8, min(_LOOKS_MOST, width - _OTHER_COLUMNS))
    names = ("pipeline", "replicas", "so far", ">in flight", ">queued", ">per s", ">p95 ms", ">moves")
    table = make_table(*names)
    for name, one in progress.status.get("pipelines", {}).items():
        hot = name == progress.hot
        count = one["ready"] + one["starting"]
        table.add_row(
            Text(f"{'>' if hot else ' '} {name}", "bold cyan" if hot else "", no_wrap=True),
            Text(f"{count} {'■' * count}", "bold green", no_wrap=True),
            Text(_bars(progress.replicas.get(name, [])[-looks:]), "green", no_wrap=True),
            str(one["in_flight"]),
            str(one["queued"]),
            f"{_recent_rate(progress, name):.1f}",
            _ms(_recent_p95(progress, name)),
            str(progress.moved(name)),
        )
    failures = sum(1 for one in progress.samples if one.failure is not None)
    elapsed_s = min(progress.elapsed_s, progress.seconds)
    head = Text.assemble(
        f"{elapsed_s:5.1f} of {progress.seconds:g} s   {len(progress.samples)} answered, ",
        f"{progress.in_flight} under way, ",
        (f"{failures} failed", "red" if failures else "green"),
    )
    why = [
        Text(f"{one.at_s:6.1f} s  {one.reason}", "dim", overflow="ellipsis", no_wrap=True) for one in progress.decisions
    ]
    return Group(head, "", table, "", *why[-_DECISIONS_SHOWN:])


def _line(progress: Progress) -> str:
    parts: list[str] = []
    for name, one in progress.status.get("pipelines", {}).items():
        count = one["ready"] + one["starting"]
        mark = ">" if name == progress.hot else " "
        parts.append(f"{mark}{name} {'#' * count:<4} {one['in_flight'] + one['queued']:>3} inside")
    failures = sum(1 for one in progress.samples if one.failure is not None)
    answered = f"{len(progress.samples)} answered, {failures} failed, {progress.moved()} moves"
    return f"  {progress.elapsed_s:5.1f} s | {' | '.join(parts)} | {answered}"


def _bars(counts: list[int]) -> str:
    return "".join(_BARS[min(count, len(_BARS) - 1)] for count in counts)


def _recent_rate(progress: Progress, name: str) -> float:
    since = progress.elapsed_s - _RECENT_S
    return sum(1 for one in progress.samples if one.pipeline == name and one.end_s >= since) / _RECENT_S


def _recent_p95(progress: Progress, name: str) -> float | None:
    from headgate.evaluation.samples import percentile

    since = progress.elapsed_s - _RECENT_S
    recent = [one.latency_s * 1e3 for one in progress.samples if one.pipeline == name and one.end_s >= since]
    return percentile(sorted(recent), 0.95)


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"
