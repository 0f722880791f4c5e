"""Every headgate.yaml in the documents loads, and every JSON and Python example is at least well formed."""

from __future__ import annotations

import ast
import json
import re

import pytest

from headgate.config import parse_settings
from tests.docs.pages import ROOT, Block, list_blocks

_OTHER_FILE = re.compile(r"# (\S+\.ya?ml)")


def _is_ours(block: Block) -> bool:
    """A YAML block is headgate.yaml unless its first line names another file."""
    named = _OTHER_FILE.match(block.text)
    return named is None or named[1].endswith("headgate.yaml")


_YAML = [block for block in list_blocks("yaml") if _is_ours(block)]


@pytest.mark.parametrize("block", _YAML, ids=lambda block: block.shown)
def test_yaml_example_loads(block: Block) -> None:
    parse_settings(block.text, block.shown)


def test_there_are_yaml_examples() -> None:
    assert len(_YAML) >= 5


def test_example_file_loads() -> None:
    path = ROOT / "headgate.example.yaml"
    settings = parse_settings(path.read_bytes(), str(path))
    assert settings.pipelines


@pytest.mark.parametrize("block", list(list_blocks("json")), ids=lambda block: block.shown)
def test_json_example_is_json(block: Block) -> None:
    json.loads(block.text)


@pytest.mark.parametrize("block", list(list_blocks("python")), ids=lambda block: block.shown)
def test_python_example_parses(block: Block) -> None:
    ast.parse(block.text)
