"""What `headgate doctor` says of a llama-server of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from headgate.app.checkup import Finding, _check_llama_server  # pyright: ignore[reportPrivateUsage]
from headgate.config import Settings


def look(folder: Path, script: str | None, **model: Any) -> list[Finding]:
    told: dict[str, Any] = {"models": {"a": model}, "pools": {"cpu": {}, "gpu": {"kind": "gpu", "memory": "1GiB"}}}
    if script is not None:
        path = folder / "llama-server"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        told["engines"] = {"llamacpp": {"binary": str(path)}}
    return list(_check_llama_server(Settings.model_validate(told)))


SEES = "printf 'Available devices:\\n  CUDA0: NVIDIA H100 80GB HBM3 (81089 MiB, 80000 MiB free)\\n'"
BLIND = "printf 'Available devices:\\n  (none)\\n'"


def test_the_packaged_one_is_not_asked(tmp_path: Path) -> None:
    assert look(tmp_path, None) == []


def test_what_it_sees_is_told_with_its_memory(tmp_path: Path) -> None:
    [found] = look(tmp_path, SEES)
    assert found.verdict == "ok" and "CUDA0: NVIDIA H100 80GB HBM3, 79.2 GiB, 78.1 GiB free" in found.found


@pytest.mark.parametrize(("model", "verdict"), [({}, "info"), ({"pool": "gpu", "gpu_layers": 99}, "bad")])
def test_a_build_without_gpus_is_bad_where_layers_are_to_go_there(
    tmp_path: Path, model: dict[str, Any], verdict: str
) -> None:
    [found] = look(tmp_path, BLIND, **model)
    assert found.verdict == verdict and "sees no GPU" in found.found
    assert ("gpu_layers is set for a" in found.found) == bool(model)


@pytest.mark.parametrize(("model", "verdict"), [({}, "warn"), ({"pool": "gpu", "gpu_layers": 99}, "bad")])
def test_one_that_does_not_start_is_told(tmp_path: Path, model: dict[str, Any], verdict: str) -> None:
    [found] = look(tmp_path, "echo no libcudart >&2; exit 127", **model)
    assert found.verdict == verdict and "no libcudart" in found.found and found.cure
