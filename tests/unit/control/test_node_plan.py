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
    assert replace(configuration.profile, load_cold_s=None) == MEASURED
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
    assert configuration.profile == Profile(memory_bytes=model.memory_bytes, load_cold_s=configuration.wake_s)


def test_the_load_from_a_disk_is_a_guess_by_size_until_it_was_measured():
    plan, model = profiled(Profile())
    big = replace(model, version=replace(model.version, bytes=10**9))
    profile = build_specs(replace(plan, models={"a": big}), {})[0].configurations[0].profile
    assert profile.file_bytes == 10**9 and profile.load_cold_s == pytest.approx(1.2 + 5.0)
    measured = replace(big, profile=replace(MEASURED, load_cold_s=2.5, file_bytes=9))
    assert build_specs(replace(plan, models={"a": measured}), {})[0].configurations[0].profile.load_cold_s == 2.5


def test_replicas_are_not_replaced_for_a_new_profile():
    plan, model = profiled(MEASURED)
    assert plan.models["a"].key == model.key and plan.models["a"] == model


def test_layers_on_a_gpu_are_held_of_the_gpus_memory():
    plan, model = profiled(Profile())
    there = replace(model, options=replace(model.options, gpu_layers=99))
    assert (model.memory_bytes, there.memory_bytes) == (10**6, 3 * 10**6)
    [configuration] = build_specs(replace(plan, models={"a": there}), {})[0].configurations
    assert configuration.memory_bytes == 3 * 10**6
