"""The shipped unit: filled in for an installation, and valid where systemd is there to say so."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from headgate.workers.systemd import load_unit


def test_command_and_user_are_filled_in() -> None:
    unit = load_unit(command="/opt/hg/bin/headgate up", user="models")
    assert "\nExecStart=/opt/hg/bin/headgate up\n" in unit
    assert "\nUser=models\n" in unit
    assert "\nKillMode=mixed\n" in unit
    assert "\nType=notify\n" in unit


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_systemd_finds_nothing_wrong(tmp_path: Path) -> None:
    path = tmp_path / "headgate.service"
    path.write_text(load_unit(command=f"{sys.executable} up", user="root"))
    checked = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(path)], capture_output=True, text=True, timeout=30
    )
    said = [line for line in checked.stderr.splitlines() if "headgate.service" in line]
    if checked.returncode != 0 and not said:
        pytest.skip("systemd cannot work in this place")
    assert said == []
