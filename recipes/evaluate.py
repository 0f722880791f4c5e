"""Measures the bundled models: `python -m recipes.evaluate [--models DIR] [--tickets N] [--json FILE]`.

GGUF models answer through llama.cpp's own server, as they do in the product; baselines are measured on the same
tickets. Three sets: `seen` (training's phrases and names, new tickets), `unseen_names` (training's phrases, names it
never saw) and `held_out` (neither seen).
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from headgate.engines import classic_model
from recipes import baselines
from recipes.bundle import BUNDLED, CATEGORY
from recipes.jobs import JOBS, learn_job_vocabulary
from recipes.scores import score_extractions, score_summaries
from recipes.serve import ServedModel, serve
from recipes.tickets import HELD_OUT, SEEN, UNSEEN_NAMES, Ticket, draw_tickets
from recipes.train import SEED

SETS = {"held_out": HELD_OUT, "unseen_names": UNSEEN_NAMES, "seen": SEEN}
HARD_TEXTS = (
    "",
    " ",
    "\n",
    "Ünïcödé 日本語 🎉\u200d\x01\t it's  we've \r\n",
    "😡١٢٣ ẞ ꙮ ½²³Ⅳ",
    '{"customer":"x"}',
    "ǅ a̐éö̲\u3000x",
)


def main() -> None:
    """Parses the command line, measures, prints a table and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, default=BUNDLED)
    parser.add_argument("--tickets", type=int, default=500, help="tickets in each set")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    sets = {name: list(draw_tickets(SEED + i, args.tickets, draw)) for i, (name, draw) in enumerate(SETS.items(), 1)}
    report = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "tickets_per_set": args.tickets,
        "ticket-extract": measure_extract(args.models, sets),
        "ticket-summary": measure_summary(args.models, sets),
        "ticket-category": measure_category(args.models, sets),
    }
    print_table(report)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(report, indent=1) + "\n")


def measure_extract(models: Path, sets: dict[str, list[Ticket]]) -> dict[str, Any]:
    """Scores of ticket-extract, of rules, and of copying the input (which is no JSON)."""

    def score(answers: list[str], tickets: list[Ticket]) -> dict[str, float]:
        return score_extractions(answers, [t.answer for t in tickets])

    rivals = {"regex rules": baselines.extract_by_rules, "copy the first sentence": baselines.copy_first_sentence}
    return _measure_language_model(models, "extract", sets, score, rivals)


def measure_summary(models: Path, sets: dict[str, list[Ticket]]) -> dict[str, Any]:
    """Scores of ticket-summary, of rules, and of the first sentence."""

    def score(answers: list[str], tickets: list[Ticket]) -> dict[str, float]:
        return score_summaries(answers, [t.summary for t in tickets])

    rivals = {"regex rules": baselines.summarise_by_rules, "copy the first sentence": baselines.copy_first_sentence}
    return _measure_language_model(models, "summary", sets, score, rivals)


def _measure_language_model(
    models: Path,
    job: str,
    sets: dict[str, list[Ticket]],
    score: Callable[[list[str], list[Ticket]], dict[str, float]],
    rivals: dict[str, Callable[[str], str]],
) -> dict[str, Any]:
    path = models / f"{JOBS[job].name}.gguf"
    with serve(path) as served:
        result: dict[str, Any] = {"token_mismatches": count_token_mismatches(job, served, sets["held_out"])}
        started = time.monotonic()
        model = {name: score(served.answer_all([t.text for t in tickets]), tickets) for name, tickets in sets.items()}
        result["answers_per_second"] = round(sum(map(len, sets.values())) / (time.monotonic() - started), 1)
    result["scores"] = {"model": model}
    for rival, answer in rivals.items():
        result["scores"][rival] = {n: score([answer(t.text) for t in tickets], tickets) for n, tickets in sets.items()}
    return result | read_training_facts(models, JOBS[job].name)


def count_token_mismatches(job: str, served: ServedModel, tickets: list[Ticket]) -> int:
    """On how many texts llama.cpp's tokens differ from training's (must be 0); every text must also get an answer."""
    tokenizer = learn_job_vocabulary(JOBS[job], SEED).build_tokenizer()
    served.answer_all(list(HARD_TEXTS))
    texts = [*HARD_TEXTS, *(ticket.text for ticket in tickets)]
    return sum(served.tokenize(text) != tokenizer.encode(text).ids for text in texts)


def measure_category(models: Path, sets: dict[str, list[Ticket]]) -> dict[str, Any]:
    """Accuracy of ticket-category and of always the commonest category, and microseconds for one ticket."""
    model = classic_model.load(models / CATEGORY)
    usual = baselines.commonest_category(SEED)
    scores: dict[str, dict[str, dict[str, float]]] = {"model": {}, "commonest category": {}}
    seconds = 0.0
    for name, tickets in sets.items():
        started = time.monotonic()
        answers = [labels[int(p_C.argmax())] for labels, p_C in (model.predict(t.text) for t in tickets)]
        seconds += time.monotonic() - started
        for who, given in (("model", answers), ("commonest category", [usual] * len(tickets))):
            hits = [answer == ticket.category for answer, ticket in zip(given, tickets, strict=True)]
            scores[who][name] = {"accuracy": round(sum(hits) / len(hits), 4)}
    result = {"microseconds_per_ticket": round(seconds / sum(map(len, sets.values())) * 1e6), "scores": scores}
    return result | read_training_facts(models, CATEGORY)


def read_training_facts(models: Path, name: str) -> dict[str, Any]:
    """What `train` wrote beside the model, where it is still there."""
    path = models / f"{name}.json"
    return {"training": json.loads(path.read_text())} if path.exists() else {}


def print_table(report: dict[str, Any]) -> None:
    """One line for each model, rival, set and score."""
    for model, result in report.items():
        if isinstance(result, dict):
            for who, by_set in result["scores"].items():
                for name, scores in by_set.items():
                    print(f"{model:16} {who:24} {name:13}", *(f"{key}={value:.3f}" for key, value in scores.items()))


if __name__ == "__main__":
    main()
