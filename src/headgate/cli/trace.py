"""`trace`: what this house has served as a file for `simulate`, and what is in such a file."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from headgate.cli.options import AsJson, ConfigFile, StateFolder, read_duration
from headgate.cli.output import err, make_table, out, print_json, show_time
from headgate.core.errors import BadRequest
from headgate.core.units import parse_seconds

program = typer.Typer(help="Record what was served as a trace for `headgate simulate`, or look at one.")


@program.command("record")
def record(
    target: Annotated[Path, typer.Option("--out", "-o", help="File to write: .csv or .jsonl, also with .gz.")],
    since: Annotated[str, typer.Option(help="From when on: so long ago (7d), or a time (2026-01-31T12:00).")] = "7d",
    until: Annotated[str | None, typer.Option(help="Until when, said alike. Left out: until now.")] = None,
    pipeline: Annotated[str | None, typer.Option(help="Only the requests of this one.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")] = False,
    config: ConfigFile = None,
    state: StateFolder = None,
    as_json: AsJson = False,
) -> None:
    """Write when requests came and what they took: no prompts, no keys, no users."""
    from headgate.app.opening import Where
    from headgate.evaluation.trace_writing import check_target, write_trace
    from headgate.metering.history import load_history

    check_target(target, force=force)
    with Where(config=config, state=state).house() as house:
        now = house.clock.now()
        begin = _read_moment(since, now, "since")
        end = now if until is None else _read_moment(until, now, "until")
        if end <= begin:
            raise BadRequest("--until: the end must come after --since.", param="until")
        rows = load_history(house.database, since=begin, until=end, pipeline=pipeline)
        with err.status("reading the ledger"):
            count = write_trace(target, rows, force=force)
    if as_json:
        print_json({"file": str(target), "requests": count, "since": begin, "until": end})
        return
    out.print(f"{target}: {count:,} requests from {show_time(begin)} to {show_time(end)} (UTC).", markup=False)
    out.print(f"`headgate simulate --trace {target}` plays them.", markup=False)


@program.command("show")
def show(
    trace: Annotated[Path, typer.Argument(help="The trace.")],
    form: Annotated[
        str | None, typer.Option("--format", help="requests, lines, counts or windows. Left out: by the first line.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Read counts and windows only to here, such as 1d.")] = None,
    step: Annotated[str | None, typer.Option(help="How long a row of counts (1m) or windows (10m) is.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say what is in a trace: pipelines, requests, span, rates."""
    from headgate.cli.simulate import read_format
    from headgate.evaluation.report_charts import tell_time
    from headgate.evaluation.traces import Reading, load_trace

    reading = Reading(
        format=read_format(form), until_s=read_duration(until, "until"), step_s=read_duration(step, "step")
    )
    with err.status("reading the trace"):
        told = load_trace(trace, reading)
    facts = [one.facts(told.span_s) for one in told.streams]
    if as_json:
        head = {"file": str(trace), "format": told.format, "requests": told.requests, "span_s": told.span_s}
        print_json({**head, "notes": told.notes, "pipelines": facts})
        return
    out.print(f"{trace}: {told.requests:,} requests in {tell_time(told.span_s)}", markup=False)
    table = make_table(
        "pipeline", ">requests", ">per s", ">peak per s", ">prompt tokens", ">output tokens", ">seconds of work"
    )
    for one in sorted(facts, key=lambda one: -one["requests"]):
        table.add_row(one["pipeline"], *(_number(value) for value in list(one.values())[1:]))
    out.print(table)
    for text in told.notes:
        err.print(f"  {text}", markup=False)


def _number(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"


def _read_moment(text: str, now: float, option: str) -> float:
    """Seconds since the epoch: so long ago, or a time (UTC where it names no zone)."""
    try:
        return now - parse_seconds(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        cure = "write how long ago, such as 7d, or a time, such as 2026-01-31T12:00"
        raise BadRequest(f"--{option}: {text!r} is no moment; {cure}.", param=option) from None
