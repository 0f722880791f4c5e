"""`simulate`: what would have happened to a trace, under Headgate and under others, on the capacity that is named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from headgate.cli.options import AsJson, ConfigFile, read_duration, read_pairs
from headgate.cli.output import err, make_table, note, out, print_json
from headgate.core.errors import BadRequest

if TYPE_CHECKING:
    from headgate.evaluation.simulation import Outcome, PolicyName
    from headgate.evaluation.traces import Trace
    from headgate.evaluation.what_if import Case, Rent, Terms

_MOST_ROWS = 30
_COLUMNS = (
    ">late", ">of all requests", ">dropped", ">latency p95", ">wait p95", ">wait p99", ">device-hours", ">moves/h",
)  # fmt: skip
_RENTED_COLUMNS = (">minutes kept", ">money")
_WORK, _TIME, _WHAT_IF = "What a request takes", "Which part of the trace", "What if"


def simulate(
    trace: Annotated[Path, typer.Option("--trace", "-t", help="The trace: CSV or JSONL, may be gzipped (.gz).")],
    pools: Annotated[
        list[str] | None, typer.Option("--pools", help="Devices there are, such as cpu=8. Left out: as many as suit.")
    ] = None,
    rent: Annotated[
        list[str] | None,
        typer.Option(help="Pools paid for by use: NAME=money for a device's hour. 0: it is there anyway."),
    ] = None,
    policy: Annotated[
        str, typer.Option(help="Who is played: headgate, equal, proportional, static (the best split in hindsight).")
    ] = "headgate,equal,proportional,static",
    html: Annotated[Path | None, typer.Option("--html", help="Write a report with charts here.")] = None,
    form: Annotated[
        str | None, typer.Option("--format", help="requests, lines, counts or windows. Left out: by the first line.")
    ] = None,
    pipeline: Annotated[list[str] | None, typer.Option(help="Only this one; may be said again.")] = None,
    begin: Annotated[str, typer.Option("--from", help="Begin here, such as 6h.", rich_help_panel=_TIME)] = "0s",
    until: Annotated[str | None, typer.Option(help="End here, such as 1d.", rich_help_panel=_TIME)] = None,
    step: Annotated[
        str | None, typer.Option(help="How long a row of counts (1m) or windows (10m) is.", rich_help_panel=_TIME)
    ] = None,
    seconds: Annotated[
        str | None, typer.Option(help="Work of a request that the trace says nothing of.", rich_help_panel=_WORK)
    ] = None,
    prefill: Annotated[
        float | None, typer.Option(min=1e-3, help="Prompt tokens a second.", rich_help_panel=_WORK)
    ] = None,
    decode: Annotated[
        float | None, typer.Option(min=1e-3, help="Output tokens a second.", rich_help_panel=_WORK)
    ] = None,
    times: Annotated[
        float, typer.Option(min=1e-3, max=1e3, help="So many times the load.", rich_help_panel=_WHAT_IF)
    ] = 1.0,
    first_token: Annotated[
        str | None, typer.Option(help="On time: the first token within this.", rich_help_panel=_WHAT_IF)
    ] = None,
    answer: Annotated[
        str | None, typer.Option(help="On time: the whole answer within this.", rich_help_panel=_WHAT_IF)
    ] = None,
    slo_minutes: Annotated[
        float | None,
        typer.Option(help="Part of the minutes to keep on time where it is paid by use.", rich_help_panel=_WHAT_IF),
    ] = None,
    start: Annotated[
        str | None, typer.Option(help="From asking for a replica to its serving.", rich_help_panel=_WHAT_IF)
    ] = None,
    warm: Annotated[
        str | None,
        typer.Option(help="How long who gave its devices up stays loaded; 0s: not at all.", rich_help_panel=_WHAT_IF),
    ] = None,
    slots: Annotated[
        int | None, typer.Option(min=1, max=256, help="Requests at once on a replica.", rich_help_panel=_WHAT_IF)
    ] = None,
    queue: Annotated[
        int | None, typer.Option(min=0, max=100_000, help="Requests that may wait.", rich_help_panel=_WHAT_IF)
    ] = None,
    weight: Annotated[
        list[str] | None, typer.Option(help="NAME=WEIGHT; may be said again.", rich_help_panel=_WHAT_IF)
    ] = None,
    floor: Annotated[
        list[str] | None, typer.Option(help="NAME=REPLICAS always kept.", rich_help_panel=_WHAT_IF)
    ] = None,
    cap: Annotated[list[str] | None, typer.Option(help="NAME=REPLICAS at most.", rich_help_panel=_WHAT_IF)] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of everything drawn by chance.")] = 1,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Play a trace through the simulator: what would have been late, on this capacity, under whom.

    `headgate trace record` makes a trace of what this house has served. Every assumption is told.
    """
    from headgate.app.opening import Where
    from headgate.app.what_if import load_terms
    from headgate.evaluation.simulation import check_installed
    from headgate.evaluation.simulation import simulate as play
    from headgate.evaluation.traces import Reading, load_trace
    from headgate.evaluation.what_if import Terms, build_cases

    policies = _policies(policy)
    devices, prices = read_pairs(pools, "pools"), read_pairs(rent, "rent")
    changes: dict[str, Any] = {
        "seconds": read_duration(seconds, "seconds"),
        "prefill_tokens_per_s": prefill,
        "decode_tokens_per_s": decode,
        "first_token_s": read_duration(first_token, "first-token"),
        "answer_s": read_duration(answer, "answer"),
        "start_s": read_duration(start, "start"),
        "warm_s": read_duration(warm, "warm"),
        "slots": slots,
        "queue": queue,
    }
    own = {"weight": read_pairs(weight, "weight"), "floor": read_pairs(floor, "floor"), "cap": read_pairs(cap, "cap")}
    reading = Reading(
        format=read_format(form),
        pipelines=tuple(pipeline or ()),
        seed=seed,
        step_s=read_duration(step, "step"),
        until_s=read_duration(until, "until"),
    )
    check_installed()
    with err.status("reading the trace"):
        told = load_trace(trace, reading)
    told = told.between(read_duration(begin, "from") or 0.0, reading.until_s).times(times, seed)
    known = load_terms(Where(config=config), told)
    terms = known.terms if known else {one.pipeline: Terms() for one in told.streams}
    rents = _change_rents(known.rents if known else {}, prices, slo_minutes)
    there, memory = (known.devices, known.memory) if known else ({}, {})
    cases = build_cases(told, _change(terms, changes, own), there | devices, rents, memory)
    if changes["warm_s"] and all(one.memory_bytes is None for one in cases):
        raise BadRequest("--warm: nobody can rest: " + _why_cold(cases), param="warm")
    if known is not None and not as_json:
        note(f"pipelines and pools as {known.path} says")
    outcomes: list[list[Outcome]] = []
    with err.status("") as status:
        for case in cases:
            outcomes.append(play(case, policies, lambda name: status.update(f"playing {name}")))
    if html is not None:
        _write(html, told, cases, outcomes)
    if as_json:
        print_json(_plain(told, cases, outcomes))
    else:
        _show(told, cases, outcomes, html)


def _policies(text: str) -> list[PolicyName]:
    from headgate.evaluation.simulation import POLICIES

    named = [one.strip() for one in text.split(",") if one.strip()]
    if unknown := [one for one in named if one not in POLICIES]:
        raise BadRequest(f"--policy: {unknown[0]!r} is not known; take of {', '.join(POLICIES)}.", param="policy")
    if not named:
        raise BadRequest(f"--policy: name one of {', '.join(POLICIES)}.", param="policy")
    return cast("list[PolicyName]", list(dict.fromkeys(named)))


def read_format(text: str | None) -> Any:
    """One of the formats of traces, or None when it was not said. Raises BadRequest."""
    from headgate.evaluation.traces import FORMATS

    if text is not None and text not in FORMATS:
        known = "; ".join(f"{name}: {meaning}" for name, meaning in FORMATS.items())
        raise BadRequest(f"--format: {text!r} is not known. {known}.", param="format")
    return text


def _change(terms: dict[str, Terms], changes: dict[str, Any], own: dict[str, dict[str, float]]) -> dict[str, Terms]:
    """The terms with what the options say of all pipelines, and of single ones."""
    said = {name: value for name, value in changes.items() if value is not None}
    changed = {name: replace(one, **said) for name, one in terms.items()}
    for field, pairs in own.items():
        for name, value in pairs.items():
            if name not in changed:
                raise BadRequest(f"--{field}: the trace has no pipeline {name!r}.", param=field)
            if field != "weight" and value != int(value):
                raise BadRequest(f"--{field}: {name}={value:g} is no whole number of replicas.", param=field)
            told = value if field == "weight" else int(value)
            changed[name] = replace(changed[name], **{field: told})
    return changed


def _change_rents(rents: dict[str, Rent], prices: dict[str, float], slo_minutes: float | None) -> dict[str, Rent]:
    """What pools cost that are paid for by use, as the options say."""
    from headgate.evaluation.what_if import Rent

    for name, price in prices.items():
        known = rents.get(name, Rent(price_per_hour=price))
        rents = rents | {name: replace(known, price_per_hour=price)}
    if slo_minutes is None:
        return rents
    if not 0.0 < slo_minutes < 1.0:
        raise BadRequest(
            f"--slo-minutes: {slo_minutes:g} is no part between 0 and 1, such as 0.99.", param="slo-minutes"
        )
    if not any(one.price_per_hour for one in rents.values()):
        raise BadRequest(
            "--slo-minutes: no pool is paid for by use; name one with --rent, such as --rent cpu=0.05.",
            param="slo-minutes",
        )
    return {name: replace(one, promised=slo_minutes) for name, one in rents.items()}


def _why_cold(cases: Sequence[Case]) -> str:
    """What is assumed of replicas that give their devices up, with the cure."""
    if all(one.rent for one in cases):
        return "what is paid for by use is given back. Leave it out, or play the pool as owned (--rent NAME=0)."
    return (
        "how much memory replicas take is not known. Name a headgate.yaml (--config) whose models were added with "
        "`headgate model add`, or leave it out."
    )


def _write(path: Path, trace: Trace, cases: Sequence[Case], outcomes: Sequence[Sequence[Outcome]]) -> None:
    from headgate.evaluation.report import write_report

    try:
        path.write_text(write_report(trace, cases, outcomes), encoding="utf-8")
    except OSError as error:
        raise BadRequest(f"{path} cannot be written ({error.strerror}). Name another file.", param="html") from None


def _show(trace: Trace, cases: Sequence[Case], outcomes: Sequence[Sequence[Outcome]], html: Path | None) -> None:
    from headgate.evaluation.report import tell_outcome
    from headgate.evaluation.report_charts import tell_time

    span = tell_time(trace.span_s)
    out.print(f"{trace.name}: {trace.requests:,} requests, {len(trace.streams)} pipelines, {span}", markup=False)
    for case, found in zip(cases, outcomes, strict=True):
        title = f"Pool {case.pool}, {case.budget * case.unit:g} devices" + (", paid for by use" if case.rent else "")
        table = make_table("policy", *_COLUMNS, *(_RENTED_COLUMNS if case.rent else ()), title=title)
        for one in found:
            table.add_row(*tell_outcome(one))
        out.print("", table, "", _pipelines(found), "")
        for text in (*case.notes, *trace.notes):
            note(f"  {text}")
    if html is not None:
        note(f"report: {html}")


def _pipelines(found: Sequence[Outcome]) -> Any:
    """A table by pipeline, those with most requests first: late by policy, and what the first policy made of it."""
    from headgate.evaluation.report import tell_part, tell_seconds
    from headgate.evaluation.simulation import POLICIES

    first = found[0]
    table = make_table(
        "pipeline", ">requests", *(f">late: {one.policy}" for one in found), ">replicas",
        ">latency p50", ">p95", ">p99", ">wait p50", ">p95", ">p99",
        title=f"By pipeline; replicas, latency and wait are of {POLICIES[first.policy]}",
    )  # fmt: skip
    order = sorted(range(len(first.pipelines)), key=lambda number: -first.pipelines[number].requests)
    for number in order[:_MOST_ROWS]:
        one = first.pipelines[number]
        table.add_row(
            one.name,
            f"{one.requests:,}",
            *(tell_part(each.pipelines[number].late) for each in found),
            f"{one.replicas_mean:.1f}",
            *(tell_seconds(value) for of in (one.latency, one.wait) for value in (of.p50, of.p95, of.p99)),
        )
    if len(order) > _MOST_ROWS:
        table.add_row(f"and {len(order) - _MOST_ROWS} more")
    return table


def _plain(trace: Trace, cases: Sequence[Case], outcomes: Sequence[Sequence[Outcome]]) -> dict[str, Any]:
    return {
        "trace": {
            "name": trace.name,
            "format": trace.format,
            "requests": trace.requests,
            "pipelines": len(trace.streams),
            "span_s": trace.span_s,
            "notes": trace.notes,
        },
        "pools": [
            {
                "pool": case.pool,
                "devices": case.budget * case.unit,
                "start_s": case.start_s,
                "price_per_hour": case.rent.price_per_hour if case.rent else None,
                "slo_minutes": case.rent.promised if case.rent else None,
                "memory_bytes": case.memory_bytes,
                "assumed": case.notes,
                "policies": {one.policy: _plain_outcome(one) for one in found},
            }
            for case, found in zip(cases, outcomes, strict=True)
        ],
    }


def _plain_outcome(one: Outcome) -> dict[str, Any]:
    told = asdict(one)
    told["replicas"] = one.replicas.round(3).tolist()
    told["late_course"] = [None if value != value else value for value in one.late_course.tolist()]
    return told
