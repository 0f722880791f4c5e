"""`tune`: how fast a model is on this machine, and the settings with which it does best here."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from headgate.cli.measured import profile_rows, show_bytes
from headgate.cli.options import AsJson, ConfigFile, StateFolder
from headgate.cli.output import err, make_table, out, print_json, short, warn

if TYPE_CHECKING:
    from rich.table import Table

    from headgate.app.tuning import Tuned
    from headgate.evaluation.tuning import Comparison

_DISTURBED = 0.1  # from this part of the machine on, others' work is worth a word


def tune(
    name: Annotated[str, typer.Argument(help="The model's name.")],
    seconds: Annotated[float, typer.Option(help="About how long it may take.")] = 60.0,
    prompt_tokens: Annotated[int, typer.Option(min=1, help="Tokens of a typical prompt.")] = 100,
    output_tokens: Annotated[int, typer.Option(min=1, help="Tokens of a typical answer, at most.")] = 32,
    force: Annotated[bool, typer.Option("--force", help="Measure although Headgate serves here.")] = False,
    config: ConfigFile = None,
    state: StateFolder = None,
    as_json: AsJson = False,
) -> None:
    """Measure a model on this machine, keep its profile, and look for settings that beat the present ones.

    The allocator goes by the profile. Nothing is written to headgate.yaml: what to write there is shown.
    """
    from headgate.app.opening import Where
    from headgate.app.tuning import tune
    from headgate.evaluation.requests import Shape

    shape = Shape(prompt_tokens=prompt_tokens, output_tokens=output_tokens)
    with Where(config=config, state=state).house() as house, err.status(f"measuring {escape(name)}") as status:
        tuned = tune(
            house,
            name,
            seconds=seconds,
            shape=shape,
            force=force,
            tell=lambda what: status.update(f"measuring {escape(name)}: {what}"),
        )
    if tuned.disturbed is not None and tuned.disturbed > _DISTURBED:
        warn(
            f"other processes took {tuned.disturbed:.0%} of this machine meanwhile: it is faster than the profile says"
        )
    if as_json:
        print_json(_plain(tuned))
        return
    out.print(f"[bold]{escape(name)}[/] (version {short(tuned.version.digest)}), {tuned.engine} on {tuned.hardware}; "
              f"requests of about {tuned.shape.prompt_tokens} + {tuned.shape.output_tokens} tokens, "
              f"{tuned.seconds:.0f} s\n")  # fmt: skip
    out.print(_profile_table(tuned))
    if tuned.outcome.tried:
        out.print()
        out.print(_tried_table(tuned))
    if tuned.beside:
        out.print()
        out.print(_beside_table(tuned))
    out.print()
    out.print(_verdict(tuned), markup=False)
    if tuned.snippet:
        out.print(f"\n{tuned.snippet}", markup=False, end="")


def _profile_table(tuned: Tuned) -> Table:
    outcome = tuned.outcome
    moved = outcome.chosen != outcome.present
    table = make_table("", "as configured", *(["chosen"] if moved else []))
    for knob in tuned.knobs:
        values = [str(knob.read(outcome.present)), *([str(knob.read(outcome.chosen))] if moved else [])]
        table.add_row(knob.name, *values)
    present, best = profile_rows(tuned.present), profile_rows(tuned.best)
    for what, value in present.items():
        table.add_row(what, value, *([best[what]] if moved else []))
    return table


def _tried_table(tuned: Tuned) -> Table:
    table = make_table("tried", ">value", "verdict", ">gain", ">at least", ">pairs", "")
    for one in tuned.outcome.tried:
        table.add_row(one.knob, str(one.value), one.verdict, *_told(one.comparison), escape(one.why))
    confirmation = tuned.outcome.confirmation
    if confirmation is not None:
        verdict = "better" if confirmation.better else "no better" if confirmation.kept else "late"
        table.add_row("all together, again", "", verdict, *_told(confirmation), "")
    return table


def _told(comparison: Comparison | None) -> tuple[str, str, str]:
    if comparison is None:
        return "-", "-", "-"
    least = f"{comparison.low - 1:+.1%}" if comparison.low > 0 else "-"
    return f"{comparison.gain - 1:+.1%}", least, str(comparison.pairs)


def _beside_table(tuned: Tuned) -> Table:
    table = make_table("other quantisation", ">bits", ">gain", ">at least", "same answers", ">memory")
    for one in tuned.beside:
        bits = "-" if one.bits is None else f"{one.bits:.1f}"
        least = f"{one.low - 1:+.1%}" if one.low > 0 else "-"
        same = f"{one.same} of {one.asked}"
        table.add_row(one.name, bits, f"{one.gain - 1:+.1%}", least, same, show_bytes(one.memory_bytes))
    return table


def _verdict(tuned: Tuned) -> str:
    outcome, confirmation = tuned.outcome, tuned.outcome.confirmation
    names = ", ".join(outcome.untried)
    untried = f" Not tried for want of time: {names}; more --seconds gives it." if names else ""
    if not tuned.knobs:
        return f"{tuned.engine} has no settings whose best value depends on the machine. The profile is kept."
    if outcome.chosen == outcome.present:
        again = ""
        if confirmation is not None:
            again = " What looked better at first was not, or not surely, when it was measured again."
        elif any(one.verdict in ("better", "promising") for one in outcome.tried):
            again = " There was no time to confirm what looked better at first."
        return f"Nothing beats the present settings by more than noise: they stay.{again}{untried} The profile is kept."
    assert confirmation is not None
    promise = "keep the promise of the pipelines that use this model, which the present settings do not"
    if confirmation.rescues and confirmation.low <= 1.0:
        told = promise
    elif confirmation.by == "lateness":
        told = f"take {1 / confirmation.gain:.0%} of the time to where the promise is kept; they are late all the same"
    else:
        told = (
            f"serve {confirmation.gain - 1:.1%} more requests a second a core "
            f"(at least {confirmation.low - 1:.1%}, with 95 % certainty, {confirmation.pairs} pairs)"
            f"{f', and {promise}' if confirmation.rescues else ''}"
        )
    return f"The chosen settings {told}.{untried} The profiles are kept. For headgate.yaml:"


def _plain(tuned: Tuned) -> dict[str, Any]:
    outcome = tuned.outcome
    moved = outcome.chosen != outcome.present
    return {
        "name": tuned.name,
        "version": tuned.version.digest,
        "engine": tuned.engine,
        "hardware": tuned.hardware,
        "seconds": round(tuned.seconds, 1),
        "shape": asdict(tuned.shape),
        "promise": asdict(tuned.promise),
        "disturbed": tuned.disturbed,
        "present": {"options": asdict(outcome.present), "profile": asdict(tuned.present)},
        "chosen": {"options": asdict(outcome.chosen), "profile": asdict(tuned.best)} if moved else None,
        "confirmation": _plain_comparison(outcome.confirmation),
        "tried": [asdict(one) | {"comparison": _plain_comparison(one.comparison)} for one in outcome.tried],
        "untried": list(outcome.untried),
        "beside": [asdict(one) for one in tuned.beside],
        "snippet": tuned.snippet,
    }


def _plain_comparison(comparison: Comparison | None) -> dict[str, Any] | None:
    return None if comparison is None else asdict(comparison) | {"better": comparison.better}
