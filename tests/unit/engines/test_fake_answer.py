"""The fake engine's answers depend on seed and prompt alone and fit the schemas asked for."""

from __future__ import annotations

import math

import jsonschema
import pytest

from headgate.engines.fake_answer import cut_text, draw_words, embed_text, make_instance
from headgate.engines.replica_wire import Refused, cut_at_stop, skip_text


def text_of(tokens: list) -> str:
    return "".join(token.text for token in tokens)


def test_the_same_seed_and_prompt_give_the_same_words() -> None:
    assert draw_words(1, b"a", 100) == draw_words(1, b"a", 100)
    assert draw_words(1, b"a", 10) == draw_words(1, b"a", 100)[:10], "more words go on where fewer end"
    assert draw_words(1, b"a", 10) != draw_words(2, b"a", 10) != draw_words(2, b"b", 10)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": {"type": "integer", "minimum": 3}}, "required": ["a"]},
        {"type": "array", "items": {"enum": ["x", "y"]}, "minItems": 2},
        {"type": "number", "exclusiveMinimum": 1, "maximum": 2},
        {"type": ["string", "null"], "minLength": 7, "maxLength": 9},
        {"anyOf": [{"const": 5}, {"type": "null"}]},
        {"$defs": {"p": {"type": "boolean"}}, "type": "object", "properties": {"b": {"$ref": "#/$defs/p"}}},
        {"type": "integer", "multipleOf": 7, "minimum": 8},
    ],
)
def test_instances_fit_their_schemas(schema: dict) -> None:
    jsonschema.validate(make_instance(schema), schema)


def test_a_schema_without_end_ends() -> None:
    make_instance({"type": "object", "properties": {"next": {"$ref": "#"}}, "required": ["next"]})


def test_embeddings_are_unit_vectors_of_their_text() -> None:
    assert math.isclose(sum(value * value for value in embed_text("a", 100)), 1.0)
    assert embed_text("a", 32) != embed_text("b", 32)


def test_cuts_at_the_first_stop() -> None:
    tokens = cut_text("one two three")
    kept, stopped = cut_at_stop(tokens, ["three", "two"])
    assert (text_of(kept), stopped) == ("one ", True)
    assert cut_at_stop(tokens, ["none", ""]) == (tokens, False)


def test_goes_on_after_any_character() -> None:
    tokens = draw_words(5, b"p", 8)
    whole = text_of(tokens)
    for at in range(len(whole) + 1):
        assert text_of(skip_text(tokens, whole[:at])) == whole[at:]
    with pytest.raises(Refused):
        skip_text(tokens, "something else")
