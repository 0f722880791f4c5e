"""From settings to what a node serves."""

from __future__ import annotations

from typing import Any

import pytest

from headgate.app.plan import plan_model
from headgate.app.tuning import _turns  # pyright: ignore[reportPrivateUsage]
from headgate.config import Settings
from headgate.control.node_plan import PlannedModel
from headgate.core.clock import SystemClock
from headgate.core.errors import ConfigError
from headgate.engines.http import HttpClient
from tests.helpers.replicas import engines_for, make_version

POOLS = {"cpu": {"kind": "cpu"}, "gpu": {"kind": "gpu", "memory": "24GiB"}}


def plan(**model: Any) -> PlannedModel:
    settings = Settings.model_validate({"pools": POOLS, "models": {"a": model}})
    version = make_version("gguf", "/models/a.gguf", context=1024)
    return plan_model("a", settings.models["a"], version, engines_for(HttpClient(SystemClock())), settings)


def test_layers_go_to_pools_of_gpus() -> None:
    assert plan().options.gpu_layers == 0
    assert plan(pool="gpu", gpu_layers=99).options.gpu_layers == 99


@pytest.mark.parametrize(
    ("model", "cure"), [({"gpu_layers": 8}, "kind: gpu"), ({"pool": "gpu"}, "say how many layers go there")]
)
def test_a_gpu_without_layers_and_layers_without_a_gpu_are_refused(model: dict[str, Any], cure: str) -> None:
    with pytest.raises(ConfigError, match=cure) as raised:
        plan(**model)
    assert raised.value.param == "models.a.gpu_layers"


def test_threads_are_not_tuned_beside_a_gpu() -> None:
    here, there = plan(), plan(pool="gpu", gpu_layers=99)
    names = [
        [knob.name for knob in one.engine.knobs(one.version) if _turns(knob, one.options)] for one in (here, there)
    ]
    assert set(names[0]) - set(names[1]) == {"threads"}
