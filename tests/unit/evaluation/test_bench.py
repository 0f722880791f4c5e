"""What is read off some answers of one replica."""

from __future__ import annotations

import pytest

from headgate.evaluation.bench import Answer, Served


def answer(first_s: float, end_s: float, tokens: int) -> Answer:
    return Answer(first_s=first_s, end_s=end_s, prompt_tokens=10, output_tokens=tokens)


def test_speeds_of_several_streams_add_up() -> None:
    served = Served(seconds=2.0, core_s=2.0, at_once=2, answers=(answer(0.1, 1.1, 11), answer(0.2, 1.2, 11)))
    assert served.decode_tokens_per_s == pytest.approx(2 * 10.0), "ten tokens a second each, two at once"
    assert served.output_tokens_per_s == pytest.approx(11.0)
    assert served.service_s == pytest.approx(1.15)
    assert served.per_token_s == pytest.approx(0.1)
    assert served.first_token_s == pytest.approx(0.2)


def test_answers_of_one_token_have_no_decoding() -> None:
    served = Served(seconds=1.0, core_s=1.0, at_once=4, answers=(answer(0.1, 0.1, 1), answer(0.1, 0.1, 0)))
    assert served.decode_tokens_per_s is None and served.per_token_s == 0.0
    assert answer(0.1, 0.1, 1).per_token_s is None


def test_few_answers_are_no_more_streams_than_they_are() -> None:
    served = Served(seconds=1.0, core_s=1.0, at_once=8, answers=(answer(0.0, 1.0, 11),))
    assert served.decode_tokens_per_s == pytest.approx(10.0)
