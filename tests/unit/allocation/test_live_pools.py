"""The live lane over two pools: every policy's headgate.yaml is valid, and the best static split is the best."""

import pytest
from benchmarks.lanes.live_pools import Kit, Unit, best_split, configuration, timed_kit

from headgate.config import parse_settings
from headgate.evaluation.burst import Arrival


def kit(fast: int = 1, slow: int = 2) -> Kit:
    def unit(devices: int, requests_per_s: float) -> Unit:
        model = {"source": "fake:", "slots": 1}
        return Unit(pool={}, model=model, devices=tuple(range(devices)), each=1.0, requests_per_s=requests_per_s)

    return Kit(name="k", pipelines=("a", "b"), units={"fast": unit(fast, 10.0), "slow": unit(slow, 2.0)})


def arrivals(**per_s: float) -> list[Arrival]:
    times = sorted((number / rate, name) for name, rate in per_s.items() for number in range(int(10 * rate)))
    return [Arrival(number=number, at_s=at_s, pipeline=name) for number, (at_s, name) in enumerate(times)]


def test_the_split_gives_the_fast_unit_to_whoever_is_asked_most():
    assert best_split(kit(), arrivals(a=8.0, b=3.0)) == {"a": (1, 0), "b": (0, 2)}
    assert best_split(kit(), arrivals(a=3.0, b=8.0)) == {"a": (0, 2), "b": (1, 0)}


def test_a_split_has_pools_of_its_own_so_that_floors_say_where():
    split = {"a": (1, 1), "b": (0, 1)}
    settings = parse_settings(configuration(kit(), "/tmp/x", "static", split))
    assert settings.pipelines["a"].model == ("a-fast", "a-slow") and settings.pipelines["b"].model == ("b-slow",)
    assert [settings.pipelines[name].floor for name in "ab"] == [2, 1]
    cores = [settings.pools[f"{name}-slow"].cores for name in "ab"]
    assert cores == [(0,), (1,)], "nobody has another's core"


@pytest.mark.parametrize(("policy", "pools"), [("headgate", {"fast", "slow"}), ("fast", {"fast"}), ("slow", {"slow"})])
def test_others_share_the_pools_they_may_use(policy, pools):
    made = timed_kit()
    settings = parse_settings(configuration(made, "/tmp/x", policy, None))
    assert set(settings.pools) == pools and set(settings.pipelines) == set(made.pipelines)
    assert {one.pool for one in settings.models.values()} == pools
    assert all(one.cap == 6 and not one.floor for one in settings.pipelines.values())
