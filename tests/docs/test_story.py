"""README and ARCHITECTURE.md: short enough, and true of the code."""

from __future__ import annotations

import re
from pathlib import Path

from tests.docs.pages import ROOT, list_blocks, list_pages

_MOST_README_LINES = 150
_TEST = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")


def _read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_readme_is_short() -> None:
    assert _read("README.md").count("\n") <= _MOST_README_LINES


def test_architecture_names_every_room_and_no_other() -> None:
    source = ROOT / "src" / "headgate"
    rooms = {path.name for path in source.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    section = _read("ARCHITECTURE.md").partition("## Rooms")[2].partition("\n## ")[0]
    named = set(re.findall(r"^\| `(\w+)/` \|", section, re.MULTILINE))
    assert named == rooms


def test_every_test_that_a_page_names_exists() -> None:
    named = [(page, *match) for page in list_pages() for match in _TEST.findall(page.read_text(encoding="utf-8"))]
    assert any(page.name == "ARCHITECTURE.md" for page, _, _ in named)
    for page, path, function in named:
        file = ROOT / path
        assert file.exists(), f"{page.name} names {path}, which does not exist"
        assert not function or f"def {function}(" in file.read_text(encoding="utf-8"), f"{path} has no {function}"


def test_every_make_task_that_a_page_names_exists() -> None:
    tasks = set(re.findall(r"^([a-z]+):", _read("Makefile"), re.MULTILINE))
    for page in list_pages():
        named = set(re.findall(r"`make ([a-z]+)", page.read_text(encoding="utf-8")))
        assert named <= tasks, f"{page.relative_to(ROOT)} names {named - tasks}"


def test_every_command_that_a_page_names_exists() -> None:
    from tools.reference.commands import list_commands

    groups = {command.name for command in list_commands() if command.is_group}
    commands = {command.name for command in list_commands()}
    for page in _hand_written():
        for words in re.findall(r"`(headgate(?: [a-z]+)+)", page.read_text(encoding="utf-8")):
            _check_command(words.split(), commands, groups, page)
    for block in list_blocks("console"):
        for words in re.findall(r"^\$ (?:\.venv/bin/)?(headgate(?: [a-z]+)+)", block.text, re.MULTILINE):
            _check_command(words.split(), commands, groups, block.page)


def _hand_written() -> list[Path]:
    return [page for page in list_pages() if page.parent.name != "reference"]


def _check_command(words: list[str], commands: set[str], groups: set[str], page: Path) -> None:
    name = " ".join(words[:2])
    if name in groups and len(words) > 2:
        name = " ".join(words[:3])
    assert name in commands, f"{page.relative_to(ROOT)} names `{name}`, which is no command"


def test_why_pages_are_numbered_without_gaps() -> None:
    numbers = sorted(int(path.name[:3]) for path in (ROOT / "docs" / "why").glob("[0-9]*.md"))
    assert numbers == list(range(1, len(numbers) + 1))
