"""A house's state as tables for people. Reads the JSON of the admin API; a field that is missing shows as '-'."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from headgate.cli.output import make_table, short
from headgate.core.clock import SystemClock
from headgate.core.units import format_bytes

_ROUNDING = 0.0005  # a gap that shows as 0.0 %
_MOVES = ("start", "wake", "rest", "stop")
_STYLES = {"ready": "green", "starting": "yellow", "draining": "magenta", "warm": "cyan"}
_PASSING = ("starting", "draining", "warm")  # stages that are shown where a replica is in one


def status_tables(told: dict[str, Any]) -> RenderableType:
    """Everything in `told`, as the status command gathers it."""
    parts: list[RenderableType] = [_headline(told)]
    if fault := told.get("fault"):
        parts += ["", Text(str(fault), style="yellow")]
    if "pipelines" in told:
        parts += ["", _pipelines(told)]
    if told.get("replicas"):
        parts += ["", _replicas(told["replicas"])]
    if told.get("pools"):
        parts += ["", _pools(told["pools"])]
    parts += ["", _processes(told["house"]["processes"])]
    return Group(*parts)


def _headline(told: dict[str, Any]) -> Text:
    house = told["house"]
    up = timedelta(seconds=int(max(0.0, SystemClock().now() - house["started_at"])))
    text = Text.assemble((house["url"] + "/v1", "bold"), f"  {house['stage']}, up {up}, version {house['version']}")
    moves, gap = told.get("moves"), told.get("gap_to_bound")
    parts = ["moves: " + ", ".join(f"{moves.get(kind, 0)} {kind}s" for kind in _MOVES)] if moves else []
    if gap is not None:
        parts.append(
            f"within {100 * gap:.1f} % of the best possible" if gap >= _ROUNDING else "nothing better is possible"
        )
    if (exact := told.get("gap_to_exact")) is not None:
        within = f"within {100 * exact:.1f} % of the best" if exact >= _ROUNDING else "the best"
        parts.append(f"decision {told.get('exact_decision')} is proven to be {within}")
    if parts:
        text.append("\n" + "; ".join(parts))
    text.append(f"\nstate folder {house['state']}", "dim")
    return text


def _pipelines(told: dict[str, Any]) -> Table:
    every = told["pipelines"].values()
    # Why not always: with every column a line of a common terminal would break.
    passing = [stage for stage in _PASSING if any(one.get(stage) for one in every)]
    columns = [f">{stage}" for stage in passing]
    table = make_table(
        "pipeline", "models", ">ready", *columns, ">wanted", ">in flight", ">queued", ">per s", ">+1 brings", ""
    )
    for name, one in told["pipelines"].items():
        table.add_row(
            name,
            ", ".join(one.get("models") or ()) or "-",
            _number(one.get("ready"), _STYLES["ready"]),
            *(_number(one.get(stage), _STYLES[stage]) for stage in passing),
            str(one.get("wanted", "-")),
            str(one.get("in_flight", "-")),
            _number(one.get("queued"), "red"),
            f"{one.get('arrivals_per_s') or 0:.1f}",
            _utility(one.get("value")),
            _remark(one),
        )
    return table


def _remark(one: dict[str, Any]) -> Text:
    """What is special about a pipeline, if anything: blocked, too few replicas, asleep, kept for its next request."""
    if blocked := one.get("blocked"):
        return Text(f"blocked: {blocked}", "red")
    if shed := one.get("shed"):
        return Text(f"shed {100 * shed:.3g} %", "red")
    if one.get("kept") and one.get("ready") and not one.get("in_flight"):
        return Text("kept alive", "dim")
    if one.get("ready") or one.get("warm"):
        return Text()
    return Text("asleep" if one.get("asleep", True) else "off", "dim")


def _replicas(replicas: list[dict[str, Any]]) -> Table:
    table = make_table(
        "replica",
        "pipeline",
        "model",
        "version",
        "state",
        ">in flight",
        ">slots",
        "device",
        ">share",
        ">memory",
        ">pid",
    )
    for one in sorted(replicas, key=lambda row: (row["pipeline"], row["id"])):
        style = _STYLES.get(one["state"], "")
        table.add_row(
            one["id"][-8:],
            one["pipeline"],
            one.get("model") or "-",
            short(one.get("version") or ""),
            Text(one["state"], style),
            str(one.get("in_flight", "-")),
            str(one.get("slots", "-")),
            str(one.get("device", "-")),
            f"{one.get('share') or 0:g}",
            format_bytes(one.get("memory_bytes") or 0),
            str(one.get("pid") or "-"),
        )
    return table


def _pools(pools: list[dict[str, Any]]) -> Table:
    table = make_table("pool", "kind", ">cores", ">used", ">free", ">memory", ">used", ">free", ">one more brings")
    for one in pools:
        cores, cores_used = one["cores"], one["cores_used"]
        memory, memory_used = one["memory_bytes"], one["memory_bytes_used"]
        table.add_row(
            one["name"],
            one["kind"],
            *(f"{value:g}" for value in (cores, cores_used, max(0.0, cores - cores_used))),
            *(format_bytes(value) for value in (memory, memory_used, max(0, memory - memory_used))),
            _utility(one.get("price")),
        )
    return table


def _processes(processes: list[dict[str, Any]]) -> Table:
    table = make_table("process", ">pid", "state", ">restarts", "last exit")
    for one in processes:
        state = Text("ready", "green") if one["ready"] else Text("starting" if one["pid"] else "waiting", "yellow")
        table.add_row(one["name"], str(one["pid"] or "-"), state, str(one["restarts"]), one["last_exit"] or "-")
    return table


def _utility(value: float | None) -> Text:
    """Utility to two digits; nothing to gain is dim."""
    return Text("-" if value is None else f"{value:.2g}", "" if value else "dim")


def _number(value: Any, style: str) -> Text:
    return Text(str(value if value is not None else "-"), style if value else "dim")
