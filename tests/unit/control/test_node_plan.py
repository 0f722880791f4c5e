"""What a plan tells the allocator of a model: measured where it was measured, guessed where it was not."""

from dataclasses import replace

import pytest

from headgate.allocation.profile import Profile
from headgate.control.node_plan import build_specs
from tests.unit.control.world import make_plan

MEASURED = Profile(service_s=0.4, load_s=0.7, memory_bytes=123, slow=((1, 1.0), (4, 3.0)))


def profiled(profile: Profile):
    plan = make_plan(a={"cap": 2})
    model = plan.models["a"]
    return replace(plan, models={"a": replace(model, profile=profile)}), model


def test_a_measured_wake_takes_the_place_of_the_guess():
    plan, model = profiled(MEASURED)
    [spec] = build_specs(plan, {})
    [configuration] = spec.configurations
    assert configuration.wake_s == 0.7 and plan.models["a"].wake_s == 0.7
    assert configuration.profile == MEASURED
    assert configuration.memory_bytes == model.memory_bytes, "what is held for it stays the estimate"


def test_what_the_loop_has_learned_takes_the_place_of_what_was_measured():
    plan, model = profiled(MEASURED)
    [configuration] = build_specs(plan, {model.key: 0.9})[0].configurations
    assert configuration.wake_s == 0.9 and configuration.profile.load_s == 0.9
    assert configuration.profile.service_s == 0.4


def test_nothing_measured_leaves_the_guess():
    plan, model = profiled(Profile())
    [configuration] = build_specs(plan, {})[0].configurations
    assert configuration.wake_s == pytest.approx(0.2)
    assert configuration.profile == Profile(memory_bytes=model.memory_bytes)


def test_replicas_are_not_replaced_for_a_new_profile():
    plan, model = profiled(MEASURED)
    assert plan.models["a"].key == model.key and plan.models["a"] == model
