"""`demo`: capacity that moves, shown on this machine in about a minute."""

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


def demo(
    seconds: Annotated[float, typer.Option(min=4, max=3600, help="How long the load lasts.")] = 40.0,
    seed: Annotated[int, typer.Option(help="The same seed sends the same requests.")] = 1,
    keep: Annotated[bool, typer.Option("--keep", help="Leave it running afterwards.")] = False,
    as_json: AsJson = False,
) -> None:
    """Serve three bundled models on few cores, load them with bursts, and watch replicas move where they are needed."""
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
    from headgate.app.demonstration import open_house, plan_load, run_load, try_pipelines
    from headgate.cli.demo_view import View, closing_table

    err.print("[bold]1[/] Serving three small models of this package, with `headgate up` in a folder of its own.")
    opened = open_house(config, clock)
    err.print(f"  up in {opened.started_s:.1f} s at {opened.url}: database, models tried, key made, processes started")
    err.print(
        "[bold]2[/] Asking each once: it wakes from zero replicas. Then many at once, to learn this machine's speed."
    )
    trials = asyncio.run(try_pipelines(opened, clock, _tell_trial))
    phases, arrivals = plan_load(trials, seconds=seconds, seed=seed)
    order = ", then ".join(phase.hot for phase in phases)
    err.print(f"[bold]3[/] {len(arrivals)} requests in {seconds:g} s, in bursts; most of them for {order}.")
    with View(err) as view:
        progress = asyncio.run(run_load(opened, phases, arrivals, clock, seed=seed, show=view.show))
    failures = sum(1 for one in progress.samples if one.failure is not None)
    passed = failures == 0 and progress.moved() > 0
    if as_json:
        print_json(_plain(opened, trials, progress, keep))
    else:
        out.print(closing_table(progress))
        _tell_verdict(progress, failures)
        _tell_curl(opened, config, keep)
    return passed


def _tell_trial(name: str, trial: Trial) -> None:
    err.print(
        f"  {name}: first token {trial.wake_s:.2f} s after it was asleep, then {trial.requests_per_s:.0f} requests/s"
    )


def _tell_verdict(progress: Progress, failures: int) -> None:
    if failures:
        kinds = sorted({str(one.failure) for one in progress.samples if one.failure})
        out.print(f"\n[bold red]{failures} requests failed[/]: {', '.join(kinds)}")
    elif not progress.moved():
        out.print("\n[bold red]No replica was moved[/]: this machine answered everything without.")
    else:
        out.print(f"\nNo request failed while replicas were started or stopped {progress.moved()} times.")


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


def _plain(opened: Opened, trials: dict[str, Trial], progress: Progress, keep: bool) -> dict[str, Any]:
    from headgate.evaluation.samples import summarise

    seconds = progress.elapsed_s
    names = sorted(trials)
    told: dict[str, Any] = {
        "up_s": round(opened.started_s, 3),
        "seconds": round(seconds, 3),
        "trials": {name: asdict(trial) for name, trial in trials.items()},
        "pipelines": {
            name: asdict(summarise((one for one in progress.samples if one.pipeline == name), seconds=seconds))
            | {"moves": progress.moved(name), "replicas_most": max(progress.replicas.get(name) or [0])}
            for name in names
        },
        "total": asdict(summarise(progress.samples, seconds=seconds)) | {"moves": progress.moved()},
        "decisions": [{"at_s": round(one.at_s, 3), "reason": one.reason} for one in progress.decisions],
    }
    if keep:
        told |= {"url": opened.url, "admin_key": opened.key.reveal(), "config": str(opened.config)}
    return told
