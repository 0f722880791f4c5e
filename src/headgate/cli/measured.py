"""Profiles of models as tables for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape

from headgate.cli.output import make_table, show_time
from headgate.core.units import format_bytes

if TYPE_CHECKING:
    from rich.table import Table

    from headgate.allocation.profile import Profile
    from headgate.evaluation.profiles import ProfileRow

_PLAIN = ("adapters", "settings")  # options that are told only where they are set


def profile_rows(profile: Profile) -> dict[str, str]:
    """What a profile says, for people: by what is measured."""
    decode = ", ".join(f"{speed:.0f} tokens/s with {count}" for count, speed in profile.decode_tokens_per_s)
    slow = ", ".join(f"{times:.1f} times with {count}" for count, times in profile.slow if count > 1)
    return {
        "request alone": _milliseconds(profile.service_s),
        "first token alone": _milliseconds(profile.first_token_s),
        "reading prompts": _or_unknown(profile.prefill_tokens_per_s, "{:.0f} tokens/s"),
        "writing answers": decode or "not measured",
        "several at once take": slow or "not measured",
        "from asleep to a token": _milliseconds(profile.load_s),
        "from off to a token": _milliseconds(profile.load_cold_s),
        "memory loaded": show_bytes(profile.warm_bytes),
        "memory at work": show_bytes(profile.memory_bytes),
        "power at work": _or_unknown(profile.watts, "{:.1f} W"),
    }


def profile_table(row: ProfileRow) -> Table:
    """One profile on record: how the model was run, and what it did."""
    table = make_table("", "", title=f"measured on {escape(row.hardware)}{', the best here' if row.best else ''}")
    told = {name: value for name, value in row.told.items() if name not in _PLAIN} | dict(row.told["settings"])
    if row.told["adapters"]:
        told["adapters"] = len(row.told["adapters"])
    table.add_row("run with", escape(", ".join(f"{name} {value}" for name, value in told.items())))
    for what, value in profile_rows(row.profile).items():
        table.add_row(what, value)
    table.add_row("measured (UTC)", show_time(row.measured_at))
    if row.learned_at is not None:
        table.add_row("wake learned (UTC)", show_time(row.learned_at))
    return table


def _milliseconds(seconds: float | None) -> str:
    return _or_unknown(None if seconds is None else seconds * 1e3, "{:.0f} ms")


def _or_unknown(value: float | None, form: str) -> str:
    return "not known" if value is None else form.format(value)


def show_bytes(count: int | None) -> str:
    """Bytes for people, or that they are not known."""
    return "not known" if count is None else format_bytes(count)
