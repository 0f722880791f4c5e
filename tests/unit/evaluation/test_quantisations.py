"""Which versions are other quantisations of a model, and how one is compared."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from headgate.core.chance import SeededChance
from headgate.core.clock import ManualClock
from headgate.core.model import HeaderFacts, Version
from headgate.engines.engine import ModelOptions
from headgate.evaluation.quantisations import bits_of, compare_versions, is_other_quantisation
from headgate.evaluation.requests import RequestWriter, Shape
from tests.unit.evaluation.test_tuning import SpeedBench

HEADER = HeaderFacts(
    layers=2,
    embedding=64,
    feed_forward=128,
    heads=4,
    kv_heads=(2, 2),
    key_length=16,
    value_length=16,
    vocabulary=1000,
    tensor_bytes=1_000_000,
)
EIGHT = Version(
    digest="sha256:8",
    format="gguf",
    task="generate",
    architecture="llama",
    parameters=1_000_000,
    context=512,
    bytes=1_000_000,
    path="/models/8",
    origin="hf:some/model-GGUF@abc/model-Q8_0.gguf",
    header=HEADER,
)
FOUR = replace(
    EIGHT,
    digest="sha256:4",
    origin="file:/home/me/model.Q4_K_M.gguf",
    header=replace(HEADER, tensor_bytes=550_000),
)


def test_the_name_without_its_quantisation_and_the_shape_tell() -> None:
    assert is_other_quantisation(EIGHT, FOUR)
    assert not is_other_quantisation(EIGHT, EIGHT)
    assert not is_other_quantisation(EIGHT, replace(FOUR, origin="file:/home/me/another.Q4_K_M.gguf"))
    assert not is_other_quantisation(EIGHT, replace(FOUR, header=replace(HEADER, layers=3)))
    assert not is_other_quantisation(EIGHT, replace(FOUR, header=None))


@pytest.mark.parametrize(
    "name", ["model-f16.gguf", "model_BF16.gguf", "Model-IQ4_NL.gguf", "model.q5_1.gguf", "model.gguf"]
)
def test_marks_of_quantisations(name: str) -> None:
    assert is_other_quantisation(EIGHT, replace(FOUR, origin=f"https://example.org/{name}"))


def test_bundled_models_of_one_shape_are_not_taken_for_one_model() -> None:
    extract, summary = replace(EIGHT, origin="bundled:ticket-extract"), replace(FOUR, origin="bundled:ticket-summary")
    assert not is_other_quantisation(extract, summary)


def test_one_is_compared_in_turns_by_speed_and_by_answers() -> None:
    clock = ManualClock()
    ours = SpeedBench(clock, lambda _: 0.010)
    theirs = SpeedBench(clock, lambda _: 0.005, text=lambda _: "other")
    writer = RequestWriter("chat", Shape(), SeededChance(1))
    options = ModelOptions(context=512, slots=4)
    beside = asyncio.run(compare_versions(ours, theirs, options, writer, clock, name="four", version=FOUR, until=100.0))
    assert beside is not None
    assert beside.gain == pytest.approx(2.0, rel=0.05) and beside.low > 1.8
    assert (beside.same, beside.asked, beside.bits) == (0, 8, pytest.approx(4.4))
    assert bits_of(replace(FOUR, parameters=None)) is None
    late = compare_versions(ours, theirs, options, writer, clock, name="four", version=FOUR, until=0.0)
    assert asyncio.run(late) is None
