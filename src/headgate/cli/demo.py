"""`demo`: the same bursts on the best static split and with capacity that moves, on this machine, in about a minute."""

from __future__ import annotations

import asyncio
import shutil
import signal
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headgate.cli.exits import FAILURE
from headgate.cli.options import AsJson
from headgate.cli.output import err, out, print_json
from headgate.core.clock import SystemClock

if TYPE_CHECKING:
    from headgate.app.demonstration import Opened, Progress, Trial
    from headgate.evaluation.static_split import Split


def demo(
    seconds: Annotated[float, typer.Option(min=4, max=3600, help="How long each of the two loads lasts.")] = 26.0,
    seed: Annotated[int, typer.Option(help="The same seed sends the same requests.")] = 1,
    keep: Annotated[bool, typer.Option("--keep", help="Leave it running afterwards.")] = False,
    as_json: AsJson = False,
) -> None:
    """Send the same bursts to three bundled models twice: on the best static split of two cores, and as cores move."""
    from headgate.app.demonstration import close_house, write_configuration

    clock = SystemClock()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that it cleans up then as well
    folder = Path(tempfile.mkdtemp(prefix="headgate-demo-"))
    config = write_configuration(folder)
    kept = False
    try:
        passed = _show(config, seconds, seed, as_json, keep, clock)
        kept = keep
    finally:
        if not kept:
            err.print("Taking everything down.")
            close_house(config, clock)
            shutil.rmtree(folder, ignore_errors=True)
    if not passed:
        raise typer.Exit(FAILURE)


def _show(config: Path, seconds: float, seed: int, as_json: bool, keep: bool, clock: SystemClock) -> bool:
    from headgate.app.demonstration import choose_split, open_house, plan_load, run_load, try_pipelines, use_split
    from headgate.cli.demo_view import View, closing_table, tell_verdict

    err.print("[bold]1[/] Serving three small models of this package, with `headgate up` in a folder of its own.")
    opened = open_house(config, clock)
    err.print(f"  up in {opened.started_s:.1f} s at {opened.url}: database, models tried, key made, processes started")
    err.print(
        "[bold]2[/] Asking each once: it wakes from zero replicas. Then many at once, to learn this machine's speed."
    )
    trials = asyncio.run(try_pipelines(opened, clock, _tell_trial))
    phases, arrivals = plan_load(trials, seconds=seconds, seed=seed)
    split, of = choose_split(trials, arrivals)

    async def run(held: Split | None) -> Progress:
        await use_split(opened, held, clock)
        return await run_load(opened, phases, arrivals, clock, seed=seed, show=view.show)

    said = ", ".join(f"{count} x {name}" for name, count in split.items())
    err.print(f"[bold]3[/] {len(arrivals)} requests in {seconds:g} s, in bursts; the hot pipeline changes.")
    err.print(f"  First on the best static split, chosen from {of} knowing all that will come: {said}.")
    with View(err) as view:
        static = asyncio.run(run(split))
    err.print("[bold]4[/] The same requests once more; now Headgate moves the replicas.")
    with View(err) as view:
        moving = asyncio.run(run(None))
    if as_json:
        print_json(_plain(opened, trials, split, static, moving, keep))
    else:
        out.print(closing_table(static, moving))
        out.print(tell_verdict(static, moving))
        _tell_curl(opened, config, keep)
    return moving.moved() > 0 and not any(one.failure for one in moving.samples)


def _tell_trial(name: str, trial: Trial) -> None:
    err.print(
        f"  {name}: first token {trial.wake_s:.2f} s after it was asleep, then {trial.requests_per_s:.0f} requests/s"
    )


def _tell_curl(opened: Opened, config: Path, keep: bool) -> None:
    from headgate.cli.house import curl_line

    if keep:
        out.print("\nIt is left running. Try it:")
        out.print(curl_line(opened.url, opened.key.reveal(), "ticket-extract"), markup=False)
        out.print(
            f"`headgate top --config {config}` watches it, `headgate down --config {config}` ends it.", markup=False
        )
    else:
        out.print("\nServe them yourself: `headgate up` (it shows a key), and in another terminal:")
        out.print(curl_line("http://127.0.0.1:8080", "YOUR_KEY", "ticket-extract"), markup=False)


def _plain(
    opened: Opened, trials: dict[str, Trial], split: Split, static: Progress, moving: Progress, keep: bool
) -> dict[str, Any]:
    told: dict[str, Any] = {
        "up_s": round(opened.started_s, 3),
        "trials": {name: asdict(trial) for name, trial in trials.items()},
        "split": dict(split),
        "static": _column(static),
        "headgate": _column(moving),
    }
    if keep:
        told |= {"url": opened.url, "admin_key": opened.key.reveal(), "config": str(opened.config)}
    return told


def _column(progress: Progress) -> dict[str, Any]:
    """One load: a summary of each pipeline and of all."""
    from headgate.app.demonstration import summarise_load

    return {
        "seconds": round(progress.elapsed_s, 3),
        "pipelines": {
            name: asdict(summarise_load(progress, name))
            | {"moves": progress.moved(name), "replicas_most": max(counts, default=0)}
            for name, counts in sorted(progress.replicas.items())
        },
        "total": asdict(summarise_load(progress)) | {"moves": progress.moved()},
        "decisions": [{"at_s": round(one.at_s, 3), "reason": one.reason} for one in progress.decisions],
    }
