"""Profiles as rows: kept, replaced, learned from, and gone with their version."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import delete

from headgate.allocation.profile import Profile
from headgate.core.clock import ManualClock
from headgate.engines.engine import ModelOptions
from headgate.evaluation.profiles import (
    Subject,
    describe_hardware,
    find_profile,
    learn_wake,
    list_profiles,
    save_profile,
)
from headgate.store.database import Database, sqlite_url
from headgate.store.migrate import migrate
from headgate.store.schema import versions
from headgate.workers.gpu import Gpu
from headgate.workers.hardware import HardwareFacts

OPTIONS = ModelOptions(context=512, slots=4)
SUBJECT = Subject(version="sha256:1", engine="llamacpp", hardware="a processor", options=OPTIONS)
PROFILE = Profile(service_s=0.1, load_s=0.2, slow=((1, 1.0), (4, 3.0)), decode_tokens_per_s=((1, 50.0), (4, 70.0)))


@pytest.fixture
def db(tmp_path: Path) -> Database:
    made = Database(sqlite_url(tmp_path / "headgate.db"))
    migrate(made)
    row = {"digest": "sha256:1", "format": "gguf", "task": "generate", "architecture": "llama", "bytes": 1}
    with made.write() as connection:
        connection.execute(versions.insert().values(path="blobs/1", created_at=0.0, **row))
    return made


def test_what_is_saved_is_found_by_how_it_was_run(db: Database) -> None:
    save_profile(db, ManualClock(), SUBJECT, PROFILE, best=False)
    assert find_profile(db, SUBJECT) == PROFILE
    for other in (
        replace(SUBJECT, options=replace(OPTIONS, slots=8)),
        replace(SUBJECT, options=replace(OPTIONS, settings={"batch": 128})),
        replace(SUBJECT, facts="another batch"),
        replace(SUBJECT, hardware="another processor"),
    ):
        assert find_profile(db, other) is None


def test_one_profile_of_a_version_is_the_best(db: Database) -> None:
    clock = ManualClock()
    eight = replace(SUBJECT, options=replace(OPTIONS, slots=8))
    save_profile(db, clock, SUBJECT, PROFILE, best=True)
    save_profile(db, clock, eight, PROFILE, best=True)
    rows = list_profiles(db, "sha256:1")
    assert [(row.told["slots"], row.best) for row in rows] == [(8, True), (4, False)]
    assert rows[0].measured_at == clock.now()


def test_wakes_that_a_node_has_seen_move_the_one_on_record(db: Database) -> None:
    clock = ManualClock()
    save_profile(db, clock, SUBJECT, PROFILE, best=True)
    learn_wake(db, clock, SUBJECT, 1.2)
    learned = find_profile(db, SUBJECT)
    assert learned is not None
    assert learned.load_s == pytest.approx(0.2 + 0.3 * 1.0)
    assert replace(learned, load_s=0.2) == PROFILE
    [row] = list_profiles(db, "sha256:1")
    assert row.best and row.learned_at == clock.now()


def test_a_wake_is_learned_of_what_was_never_measured(db: Database) -> None:
    learn_wake(db, ManualClock(), SUBJECT, 0.7)
    assert find_profile(db, SUBJECT) == Profile(load_s=0.7)
    assert list_profiles(db, "sha256:1")[0].measured_at is None


def test_profiles_go_with_their_version(db: Database) -> None:
    save_profile(db, ManualClock(), SUBJECT, PROFILE, best=True)
    with db.write() as connection:
        connection.execute(delete(versions))
    assert list_profiles(db, "sha256:1") == []


def test_hardware_is_the_processor_and_the_gpu_that_is_used() -> None:
    gpu = Gpu(name="NVIDIA H100", uuid="GPU-1", address="0", minor=0)
    facts = HardwareFacts(
        core_ids=(0,), cores=1.0, cpu_quota=None, cpu_model="AMD EPYC", memory_bytes_total=1, memory_bytes_limit=None,
        memory_bytes_available=1, cgroup_version=2, cgroup_delegated=False, gpus=(gpu,),
    )  # fmt: skip
    assert describe_hardware(facts) == "AMD EPYC"
    assert describe_hardware(facts, gpu=True) == "AMD EPYC, NVIDIA H100"
    assert describe_hardware(replace(facts, cpu_model=None)) == "unknown processor"
