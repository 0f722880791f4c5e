"""The documents of this repository and what stands in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_FENCE = re.compile(r"^ *```")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One fenced block: its language, its text, and where it begins."""

    page: Path
    line: int
    language: str
    text: str

    @property
    def shown(self) -> str:
        """Where it is, for a test's name."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def list_pages() -> list[Path]:
    """Every Markdown page that readers find."""
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "recipes").glob("*.md")]
    return sorted(pages + list((ROOT / "benchmarks").glob("*.md")))


def list_blocks(language: str) -> Iterator[Block]:
    """Every fenced block in that language."""
    for page in list_pages():
        lines = page.read_text(encoding="utf-8").splitlines()
        start: int | None = None
        spoken = ""
        for number, line in enumerate(lines, 1):
            if not _FENCE.match(line):
                continue
            if start is None:
                start, spoken = number, line.strip().removeprefix("```").split()[0] if line.strip() != "```" else ""
                continue
            if spoken == language:
                yield Block(page=page, line=start, language=spoken, text="\n".join(lines[start : number - 1]) + "\n")
            start = None


def without_code(text: str) -> str:
    """`text` without fenced blocks and code spans, where a link is no link."""
    text = re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", "", text)
