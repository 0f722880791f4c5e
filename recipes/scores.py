"""How answers are scored: exact match by field, and ROUGE-L. Pure; knows nothing of models."""

import json
from typing import Any

FIELDS = ("customer", "product", "order_number", "amounts", "dates", "request")


def score_extractions(answers: list[str], wanted: list[str]) -> dict[str, float]:
    """Shares (0..1) of answers that are valid JSON, that match each field, and that match all of them."""
    pairs = [(parse_object(answer), json.loads(right)) for answer, right in zip(answers, wanted, strict=True)]
    hits = {field: [got.get(field, ...) == right[field] for got, right in pairs] for field in FIELDS}
    scores = {"valid_json": _share([set(got) == set(FIELDS) for got, _ in pairs])}
    scores |= {field: _share(row) for field, row in hits.items()}
    return scores | {"whole_object": _share([all(row) for row in zip(*hits.values(), strict=True)])}


def score_summaries(answers: list[str], wanted: list[str]) -> dict[str, float]:
    """Share (0..1) of exact matches, and the mean ROUGE-L F1 (0..1)."""
    pairs = list(zip(answers, wanted, strict=True))
    return {
        "exact": _share([a == w for a, w in pairs]),
        "rouge_l_f1": round(sum(rouge_l_f1(a, w) for a, w in pairs) / len(pairs), 4),
    }


def parse_object(text: str) -> dict[str, Any]:
    """The JSON object that `text` is, or an empty one."""
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def rouge_l_f1(answer: str, wanted: str) -> float:
    """F1 of the longest common subsequence of lower-case words. Source: Lin 2004, ROUGE."""
    left, right = answer.lower().split(), wanted.lower().split()
    row = [0] * (len(right) + 1)
    for word in left:
        before = 0
        for j, other in enumerate(right, 1):
            before, row[j] = row[j], before + 1 if word == other else max(row[j], row[j - 1])
    return 2 * row[-1] / (len(left) + len(right)) if left and right else 0.0


def _share(flags: list[bool]) -> float:
    return round(sum(flags) / len(flags), 4)
