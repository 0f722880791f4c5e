"""The demo's last words: true whoever did better."""

from __future__ import annotations

from rich.console import Console

from headgate.app.demonstration import Progress
from headgate.cli.demo_view import closing_table, tell_verdict
from headgate.evaluation.samples import Sample


def load(*, late: int, lost: int = 0, moves: int = 0) -> Progress:
    progress = Progress(seconds=10, elapsed_s=10, replicas={"ticket-extract": [1, 2]})
    for number in range(10):
        failure = "queue_full" if number < lost else None
        first_s = None if failure else 2.0 if number < lost + late else 0.1
        progress.samples.append(
            Sample(number=number, pipeline="ticket-extract", start_s=0.0, first_s=first_s, end_s=3.0, failure=failure)
        )
    progress.started["ticket-extract"] = moves
    return progress


def test_the_verdict_names_who_did_better() -> None:
    won = tell_verdict(load(late=4), load(late=1, moves=3))
    assert "Headgate did better" in won
    assert "1 of 10 requests late or lost, 4 on the best static split" in won
    assert "No request was lost" in won and "3 times" in won
    assert "The static split did better here" in tell_verdict(load(late=1), load(late=4))
    assert "No difference" in tell_verdict(load(late=2), load(late=2))


def test_a_lost_request_is_never_hidden() -> None:
    told = tell_verdict(load(late=9), load(late=0, lost=1))
    assert "1 were lost" in told
    assert "No request was lost" not in told


def test_the_table_has_both_columns_for_all_and_each_pipeline() -> None:
    console = Console(width=80)
    with console.capture() as captured:
        console.print(closing_table(load(late=4, lost=1), load(late=2, moves=3)))
    lines = [" ".join(line.split()) for line in captured.get().splitlines()]
    assert "best static split Headgate" in lines
    for head in ("all: 10 requests", "ticket-extract: 10 requests"):
        rows = lines[lines.index(head) + 1 :]
        assert rows[:2] == ["late 4 2", "lost 1 0"]
        assert rows[2].startswith("p95 ms 3000 3000")
        assert rows[4] == "replicas moved 0 3"


def test_nobody_answered_is_no_number() -> None:
    console = Console(width=80)
    with console.capture() as captured:
        console.print(closing_table(load(late=0, lost=10), load(late=0)))
    assert "p95 ms - 3000" in " ".join(captured.get().split())
