"""One pipeline of two models in two pools, with real processes: what one of them loses, the other goes on with."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.helpers.whole_house import Background, WholeHouse, whole_house

CORES = sorted(os.sched_getaffinity(0))
CONFIGURATION = f"""
gateway: {{port: 0}}
pools:
  near: {{cores: [{CORES[0]}]}}
  far: {{cores: [{CORES[-1]}]}}
models:
  fast: {{source: "fake:", pool: near, cores: 0.9, context: 4096, settings: {{tokens_per_s: 40}}}}
  slow: {{source: "fake:", pool: far, cores: 0.9, context: 2048, settings: {{tokens_per_s: 40}}}}
  broken: {{source: "fake:", pool: near, cores: 0.1, settings: {{refuse_load: true}}}}
  sound: {{source: "fake:", pool: far, cores: 0.1}}
pipelines:
  both: {{model: [fast, slow], floor: 2, cap: 2}}
  lame: {{model: [broken, sound]}}
"""


@pytest.fixture(scope="module")
def house() -> Iterator[WholeHouse]:
    with whole_house(CONFIGURATION) as house:
        yield house


def stream(house: WholeHouse, pieces: list[str]) -> str:
    """The text of a long streamed answer; `pieces` fills as they come."""
    for piece in house.client(timeout=60).chat.completions.create(
        model="both", messages=[{"role": "user", "content": "hello"}], temperature=0, max_tokens=100, stream=True
    ):
        if piece.choices and piece.choices[0].delta.content:
            pieces.append(piece.choices[0].delta.content)
    return "".join(pieces)


def test_a_request_must_fit_every_model(house: WholeHouse) -> None:
    [both] = [one for one in house.client().models.list().data if one.id == "both"]
    assert both.headgate["context"] == 2048  # type: ignore[attr-defined]


def test_a_stream_goes_on_in_the_other_pool(house: WholeHouse) -> None:
    house.wait("one replica in each pool", lambda: devices(house) == {"near", "far"})
    whole = stream(house, [])
    pieces: list[str] = []
    running = Background(lambda: stream(house, pieces))
    house.wait("first pieces", lambda: len(pieces) > 8)
    [busy] = house.wait("reported", lambda: [one for one in house.replicas("both") if one["in_flight"]], 5)
    house.kill(busy["pid"])
    assert running.join() == whole
    house.wait("both again", lambda: devices(house) == {"near", "far"})


def test_a_model_that_does_not_start_leaves_its_work_to_the_next(house: WholeHouse) -> None:
    answer = house.client(timeout=60).chat.completions.with_raw_response.create(
        model="lame", messages=[{"role": "user", "content": "hello"}], max_tokens=3
    )
    assert answer.headers["x-headgate-device"].startswith("far:")
    house.wait("its failure is known", lambda: house.status()["pipelines"]["lame"]["failures"] >= 1)
    told = house.status()["pipelines"]["lame"]
    assert told["models"] == ["broken", "sound"] and told["blocked"] is None


def devices(house: WholeHouse) -> set[str]:
    return {one["device"].partition(":")[0] for one in house.replicas("both")}
