"""Weights in a delegated group, on a tree of plain files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from headgate.workers.cgroup import Cgroup, ReplicaWeights


@pytest.fixture
def group(tmp_path: Path) -> Cgroup:
    path = tmp_path / "cgroup" / "headgate.service"
    path.mkdir(parents=True)
    (path / "cgroup.controllers").write_text("cpu memory\n")
    (path / "cgroup.procs").write_text("41\n42\n")
    (path / "cgroup.subtree_control").write_text("")
    if os.geteuid() == 0:
        try:
            os.setxattr(path, "user.delegate", b"1")
        except OSError:
            pytest.skip("this file system keeps no attributes")
    return Cgroup(path=path, mount=tmp_path / "cgroup")


def test_our_processes_move_to_a_leaf_and_replicas_get_weights(group: Cgroup) -> None:
    weights = ReplicaWeights.prepare(group)
    assert weights is not None
    assert (group.path / "main" / "cgroup.procs").read_text() == "42"  # a real one takes one pid at a time
    assert (group.path / "cgroup.subtree_control").read_text() == "+cpu"
    assert weights.place(77, "r1", 0.25)
    assert (group.path / "replica-r1" / "cpu.weight").read_text() == "25"
    assert (group.path / "replica-r1" / "cgroup.procs").read_text() == "77"


def test_a_restarted_node_finds_the_same_place_from_its_leaf(group: Cgroup) -> None:
    ReplicaWeights.prepare(group)
    again = ReplicaWeights.prepare(Cgroup(path=group.path / "main", mount=group.mount))
    assert again is not None
    assert again.place(78, "r2", 1.0)
    assert (group.path / "replica-r2" / "cpu.weight").read_text() == "100"


def test_nothing_is_done_without_delegation(group: Cgroup) -> None:
    (group.path / "cgroup.controllers").write_text("memory\n")
    assert ReplicaWeights.prepare(group) is None
    assert ReplicaWeights.prepare(None) is None
    assert not (group.path / "main").exists()


def test_a_refusing_kernel_is_told_truthfully(group: Cgroup) -> None:
    weights = ReplicaWeights.prepare(group)
    assert weights is not None
    (group.path / "replica-r3").write_text("in the way")
    assert not weights.place(79, "r3", 1.0)
