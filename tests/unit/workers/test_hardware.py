"""Cores and memory from affinity and control groups of both versions, GPUs from the driver's files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from headgate.workers.hardware import load_hardware
from tests.unit.workers.trees import V1_MOUNTS, V2_MOUNT, plant

KIB = 1024
CORES = (0, 2, 3, 5)


def test_no_groups_at_all(tmp_path: Path) -> None:
    facts = load_hardware(plant(tmp_path, {}), CORES)
    assert facts.core_ids == CORES
    assert facts.cores == 4.0
    assert facts.cpu_quota is None
    assert facts.cpu_model == "Test CPU @ 3 GHz"
    assert facts.memory_bytes_total == 16000000 * KIB
    assert facts.memory_bytes_available == 8000000 * KIB
    assert facts.memory_bytes_limit is None
    assert facts.cgroup_version is None
    assert not facts.cgroup_delegated
    assert facts.gpus == ()


def test_version_2_with_a_fractional_quota(tmp_path: Path) -> None:
    root = plant(
        tmp_path,
        {
            "proc/self/cgroup": "0::/app\n",
            "proc/self/mountinfo": V2_MOUNT,
            "sys/fs/cgroup/app/cpu.max": "150000 100000\n",
            "sys/fs/cgroup/app/memory.max": "1073741824\n",
            "sys/fs/cgroup/app/memory.current": "500000000\n",
            "sys/fs/cgroup/app/memory.stat": "anon 1\ninactive_file 100000000\n",
        },
    )
    facts = load_hardware(root, CORES)
    assert facts.cpu_quota == 1.5
    assert facts.cores == 1.5
    assert facts.memory_bytes_limit == facts.memory_bytes_total == 1 << 30
    assert facts.memory_bytes_available == (1 << 30) - 400000000
    assert facts.cgroup_version == 2


def test_version_2_the_tightest_level_counts(tmp_path: Path) -> None:
    root = plant(
        tmp_path,
        {
            "proc/self/cgroup": "0::/slice/app\n",
            "proc/self/mountinfo": V2_MOUNT,
            "sys/fs/cgroup/slice/cpu.max": "200000 100000\n",
            "sys/fs/cgroup/slice/memory.max": "2000000000\n",
            "sys/fs/cgroup/slice/memory.current": "1900000000\n",
            "sys/fs/cgroup/slice/app/cpu.max": "max 100000\n",
            "sys/fs/cgroup/slice/app/memory.max": "max\n",
            "sys/fs/cgroup/slice/app/memory.high": "3000000000\n",
            "sys/fs/cgroup/slice/app/memory.current": "1000\n",
        },
    )
    facts = load_hardware(root, CORES)
    assert facts.cpu_quota == 2.0
    assert facts.memory_bytes_limit == 2000000000
    assert facts.memory_bytes_available == 100000000


def test_a_quota_above_the_affinity_does_not_add_cores(tmp_path: Path) -> None:
    root = plant(
        tmp_path,
        {
            "proc/self/cgroup": "0::/\n",
            "proc/self/mountinfo": V2_MOUNT,
            "sys/fs/cgroup/cpu.max": "800000 100000\n",
        },
    )
    assert load_hardware(root, (1,)).cores == 1.0


def test_version_1_in_a_container_that_sees_the_hosts_path(tmp_path: Path) -> None:
    mounts = V1_MOUNTS.replace(" / /sys", " /docker/abc /sys")
    root = plant(
        tmp_path,
        {
            "proc/self/cgroup": "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc/inner\n0::/\n",
            "proc/self/mountinfo": mounts,
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "50000\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "600000000\n",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": "200000000\n",
            "sys/fs/cgroup/memory/inner/memory.limit_in_bytes": "9223372036854771712\n",
            "sys/fs/cgroup/memory/inner/memory.usage_in_bytes": "1\n",
        },
    )
    facts = load_hardware(root, CORES)
    assert facts.cores == 0.5
    assert facts.memory_bytes_limit == 600000000
    assert facts.memory_bytes_available == 400000000
    assert facts.cgroup_version == 1


def test_version_1_without_limits(tmp_path: Path) -> None:
    root = plant(
        tmp_path,
        {
            "proc/self/cgroup": "5:cpu,cpuacct:/\n4:memory:/\n",
            "proc/self/mountinfo": V1_MOUNTS,
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        },
    )
    facts = load_hardware(root, CORES)
    assert (facts.cpu_quota, facts.memory_bytes_limit) == (None, None)


@pytest.mark.parametrize("path", ["/../other", "/gone/away"])
def test_a_group_outside_of_the_mount_falls_back_to_its_top(tmp_path: Path, path: str) -> None:
    root = plant(
        tmp_path,
        {
            "proc/self/cgroup": f"0::{path}\n",
            "proc/self/mountinfo": V2_MOUNT,
            "sys/fs/cgroup/memory.max": "1000000\n",
        },
    )
    assert load_hardware(root, CORES).memory_bytes_limit == 1000000


def test_delegated_only_when_marked_or_not_root(tmp_path: Path) -> None:
    root = plant(
        tmp_path,
        {
            "proc/self/cgroup": "0::/app\n",
            "proc/self/mountinfo": V2_MOUNT,
            "sys/fs/cgroup/app/cgroup.controllers": "cpuset cpu memory\n",
            "sys/fs/cgroup/app/cgroup.procs": "1\n",
            "sys/fs/cgroup/app/cgroup.subtree_control": "",
        },
    )
    assert load_hardware(root, CORES).cgroup_delegated is (os.geteuid() != 0)
    try:
        os.setxattr(root / "sys/fs/cgroup/app", "user.delegate", b"1")
    except OSError:
        pytest.skip("this file system keeps no attributes")
    assert load_hardware(root, CORES).cgroup_delegated


def test_gpus_need_a_device_file(tmp_path: Path) -> None:
    information = "Model: \t\t NVIDIA H100\nIRQ:   \t\t 84\nGPU UUID: \t GPU-1234\nDevice Minor: \t {}\n"
    root = plant(
        tmp_path,
        {
            "proc/driver/nvidia/gpus/0000:01:00.0/information": information.format(0),
            "proc/driver/nvidia/gpus/0000:02:00.0/information": information.format(1),
            "dev/nvidia1": "",
        },
    )
    (gpu,) = load_hardware(root, CORES).gpus
    assert (gpu.name, gpu.uuid, gpu.address, gpu.minor) == ("NVIDIA H100", "GPU-1234", "0000:02:00.0", 1)


def test_this_machine_has_cores_and_memory() -> None:
    facts = load_hardware()
    assert set(facts.core_ids) == os.sched_getaffinity(0)
    assert 0 < facts.cores <= len(facts.core_ids)
    assert 0 < facts.memory_bytes_available <= facts.memory_bytes_total
