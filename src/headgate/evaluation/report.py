"""The report of a simulation as one HTML page that needs nothing beside it: tables, charts, what was assumed."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from headgate import __version__
from headgate.evaluation.report_charts import draw_bars, draw_lines, draw_stack, gather_layers, tell_time
from headgate.evaluation.simulation import POLICIES, Outcome, offered
from headgate.evaluation.traces import Trace
from headgate.evaluation.what_if import Case

_STYLE = """
:root{color-scheme:light dark;--line:#d9d9d9}
body{font:15px/1.5 system-ui,sans-serif;max-width:820px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.6rem;margin-bottom:.2rem}h2{margin-top:2.4rem}h3{margin-bottom:.3rem}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;width:100%}
th,td{padding:.25rem .45rem;border-bottom:1px solid var(--line);text-align:right}
th:first-child,td:first-child{text-align:left;overflow-wrap:anywhere;min-width:8em}
td:not(:first-child){white-space:nowrap}
svg{width:100%;height:auto}svg text{font:12px system-ui,sans-serif;fill:currentColor}
svg .grid{stroke:var(--line);stroke-width:.6}
.legend{list-style:none;padding:0;margin:.2rem 0 1rem;display:flex;flex-wrap:wrap;gap:.2rem 1rem;font-size:13px}
.legend span{display:inline-block;width:.8em;height:.8em;margin-right:.4em;border-radius:2px}
.wide{overflow-x:auto}.dim{opacity:.75}
@media(prefers-color-scheme:dark){:root{--line:#444}}
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_MOST_ROWS = 200


def write_report(trace: Trace, cases: Sequence[Case], outcomes: Sequence[Sequence[Outcome]]) -> str:
    """The page: `outcomes` has those of each of the `cases`."""
    title = f"What if: {trace.name}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="dim">{trace.requests:,} requests of {len(trace.streams)} pipelines in '
        f"{escape(tell_time(trace.span_s))}, played by Headgate {escape(__version__)}.</p>",
    ]
    for number, (case, found) in enumerate(zip(cases, outcomes, strict=True)):
        parts.append(_case(f"c{number}", case, found))
    parts.append(f"<h2>How the trace was read</h2>{_list(trace.notes)}")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<style>{_STYLE}</style></head><body><main>{''.join(parts)}</main></body></html>\n"
    )


def tell_part(part: float) -> str:
    """A part as a percentage."""
    return f"{100 * part:.3g} %" if part < 0.0995 else f"{100 * part:.1f} %"


def tell_seconds(seconds: float | None) -> str:
    """Seconds with three digits; '-' for None."""
    if seconds is None:
        return "-"
    return f"{seconds * 1e3:.0f} ms" if seconds < 1.0 else f"{seconds:.3g} s"


def tell_outcome(one: Outcome) -> tuple[str, ...]:
    """What became of a case under a policy, column by column; two more where it was paid for by use."""
    rented = () if one.money is None else (f"{100 * one.slo_minutes:.2f} %", f"{one.money:.4g}")
    return (
        POLICIES[one.policy],
        tell_part(one.late),
        tell_part(one.late_requests),
        f"{one.dropped:,}",
        *(tell_seconds(value) for value in (one.latency.p95, one.wait.p95, one.wait.p99)),
        f"{one.device_hours:.4g}",
        f"{one.moves_per_hour:.3g}",
        *rented,
    )


def _case(key: str, case: Case, found: Sequence[Outcome]) -> str:
    names = [one.name for one in case.served]
    devices = case.budget * case.unit
    load = offered(case)
    order: list[int] = np.argsort(-load.mean(axis=0), kind="stable").tolist()
    charts = [
        draw_bars(
            f"{key}-b", "Requests late, by policy", [(POLICIES[one.policy], one.late) for one in found], tell_part
        ),
        "<h3>Late over time</h3>",
        draw_lines(
            f"{key}-l",
            "Part of the requests late, over time, by policy",
            case.span_s,
            {POLICIES[one.policy]: one.late_course for one in found},
            tell_part,
        ),
        "<h3>Load, in devices' worth of work</h3>",
        draw_stack(
            f"{key}-o",
            f"Devices' worth of work that came, over time, by pipeline; there are {devices:g}",
            case.span_s,
            gather_layers(names, load, order),
            _plain,
            devices,
        ),
    ]
    for one in found:
        charts += [
            f"<h3>Replicas: {escape(POLICIES[one.policy])}</h3>",
            draw_stack(
                f"{key}-r-{one.policy}",
                f"Replicas over time, by pipeline, under {POLICIES[one.policy]}",
                case.span_s,
                gather_layers(names, one.replicas, order),
                _plain,
            ),
        ]
    return (
        f"<h2>Pool {escape(case.pool)}: {devices:g} devices</h2>{_summary(found)}{''.join(charts)}"
        f"<h3>By pipeline</h3>{_pipelines(found)}<h3>What was assumed</h3>{_list(case.notes)}"
    )


def _summary(found: Sequence[Outcome]) -> str:
    head = (
        "policy", "late, mean of pipelines", "late, of all requests", "dropped", "latency p95", "wait p95", "wait p99",
        "device-hours", "moves per hour",
    )  # fmt: skip
    rented = ("minutes kept", "money") if found[0].money is not None else ()
    return _table((*head, *rented), [tell_outcome(one) for one in found])


def _pipelines(found: Sequence[Outcome]) -> str:
    first = found[0]
    head = ["pipeline", "requests", *(f"late: {POLICIES[one.policy]}" for one in found)]
    head += [
        f"{what} {part}, {POLICIES[first.policy]}" for what in ("latency", "wait") for part in ("p50", "p95", "p99")
    ]
    rows: list[Sequence[str]] = []
    for number in sorted(range(len(first.pipelines)), key=lambda number: -first.pipelines[number].requests)[
        :_MOST_ROWS
    ]:
        mine = first.pipelines[number]
        seconds = [
            tell_seconds(getattr(of, part)) for of in (mine.latency, mine.wait) for part in ("p50", "p95", "p99")
        ]
        rows.append(
            (mine.name, f"{mine.requests:,}", *(tell_part(one.pipelines[number].late) for one in found), *seconds)
        )
    more = len(first.pipelines) - len(rows)
    return _table(head, rows) + (f"<p>{more} more pipelines with fewer requests: see --json.</p>" if more > 0 else "")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f'<th scope="col">{escape(one)}</th>' for one in head)
    body = "".join(f"<tr>{''.join(f'<td>{escape(one)}</td>' for one in row)}</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _list(texts: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(one)}</li>' for one in texts)}</ul>"


def _plain(value: float) -> str:
    return f"{value:.3g}"
