"""The ticket generator: the same seed gives the same tickets, answers follow the text, and the split is a split."""

import json

import pytest
from recipes import asides, asks, names, phrases, problems
from recipes.phrases import split_phrases
from recipes.scores import rouge_l_f1, score_extractions
from recipes.tickets import CATEGORIES, HELD_OUT, SEEN, UNSEEN_NAMES, Draw, draw_tickets

LISTS = [
    value
    for module in (phrases, asides)
    for value in vars(module).values()
    if isinstance(value, tuple) and all(isinstance(line, str) for line in value)
] + [*problems.PROBLEMS.values(), *asks.ASKS.values()]
DRAWS = [SEEN, UNSEEN_NAMES, HELD_OUT, Draw(scramble=True), Draw(plain=True)]


@pytest.mark.parametrize("draw", DRAWS)
def test_the_same_seed_gives_the_same_tickets(draw: Draw):
    assert list(draw_tickets(7, 50, draw)) == list(draw_tickets(7, 50, draw))
    assert list(draw_tickets(7, 50, draw)) != list(draw_tickets(8, 50, draw))


@pytest.mark.parametrize("draw", DRAWS)
def test_every_fact_of_the_answer_stands_in_the_text(draw: Draw):
    for ticket in draw_tickets(3, 300, draw):
        facts = json.loads(ticket.answer)
        for value in [facts["customer"], facts["product"], facts["order_number"], *facts["amounts"], *facts["dates"]]:
            assert value is None or value in ticket.text
        assert ticket.category in CATEGORIES
        assert "\n" not in ticket.summary
        assert not set("\x01\x02{}[]|") & set(ticket.text)


def test_phrases_are_split_without_overlap():
    assert len(LISTS) > 25
    for lines in LISTS:
        seen, held_out = split_phrases(lines, held_out=False), split_phrases(lines, held_out=True)
        assert held_out
        assert not set(seen) & set(held_out)
        assert len(seen) + len(held_out) == len(lines)


@pytest.mark.parametrize("kind", ["FIRST_NAMES", "LAST_NAMES", "PRODUCT_NOUNS", "PRODUCT_BRANDS", "SERIES"])
def test_names_are_split_without_overlap(kind: str):
    seen, held_out = getattr(names, kind), getattr(names, f"HELD_OUT_{kind}")
    assert held_out
    assert not {name.lower() for name in seen} & {name.lower() for name in held_out}


def test_held_out_tickets_hold_only_held_out_brands():
    known = set(names.PRODUCT_BRANDS)
    for ticket in draw_tickets(5, 300, HELD_OUT):
        assert not known & set((ticket.product or "").split())


def test_scores():
    right = next(draw_tickets(1, 1)).answer
    assert score_extractions([right, "no json"], [right, right])["whole_object"] == 0.5
    assert rouge_l_f1("a b c", "a c") == pytest.approx(0.8)
    assert rouge_l_f1("", "a") == 0.0
