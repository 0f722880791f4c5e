"""The supervisor's children are small and start fast because they never load the command line's libraries."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["headgate.__main__", "headgate.app.node", "headgate.app.gateway"])
def test_children_load_no_typer_and_no_rich(module: str) -> None:
    code = f"import sys, {module}; sys.exit(bool({{'typer', 'rich'}} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
