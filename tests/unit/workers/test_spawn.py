"""What a replica is told of the world, and how nice it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from headgate.workers.spawn import Placement, clean_environment, nice_of


def test_no_key_token_or_proxy_leaks() -> None:
    ours = {
        "PATH": "/bin",
        "OPENAI_API_KEY": "sk",
        "HF_TOKEN": "hf",
        "https_proxy": "http://proxy",
        "NOTIFY_SOCKET": "/run/x",
        "HEADGATE_SOCKETS": "gateway=3",
        "LD_PRELOAD": "evil.so",
        "HOME": "/home/me",
    }
    told = clean_environment(ours, {"SECRET_FOR_IT": "s"}, Placement(cores=(3,)), Path("/run/hg"))
    assert told["PATH"] == "/bin"
    assert told["HOME"] == "/run/hg"
    assert told["OMP_NUM_THREADS"] == told["OPENBLAS_NUM_THREADS"] == "1"
    assert told["CUDA_VISIBLE_DEVICES"] == ""
    assert told["SECRET_FOR_IT"] == "s"
    assert not {"OPENAI_API_KEY", "HF_TOKEN", "https_proxy", "NOTIFY_SOCKET", "HEADGATE_SOCKETS", "LD_PRELOAD"} & set(
        told
    )


def test_threads_follow_cores_and_gpus_are_named() -> None:
    told = clean_environment({}, {}, Placement(cores=(0, 1, 2), gpus=("GPU-1", "GPU-2")), Path("/"))
    assert told["OMP_NUM_THREADS"] == "3"
    assert told["CUDA_VISIBLE_DEVICES"] == "GPU-1,GPU-2"


@pytest.mark.parametrize(("share", "nice"), [(1.0, 0), (0.8, 1), (0.5, 3), (0.25, 6), (0.0, 19), (2.0, 0)])
def test_niceness_by_share(share: float, nice: int) -> None:
    assert nice_of(share) == nice


def test_a_share_of_a_gpu_is_none_of_a_core() -> None:
    assert Placement(cores=(0,), share=0.25).core_share == 0.25
    assert Placement(cores=(), share=0.25, gpus=("0",)).core_share == 1.0
