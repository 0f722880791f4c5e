"""Lists files past 400 lines and functions past 60: not an error, a question what they hide."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

MOST_FILE_LINES = 400
MOST_FUNCTION_LINES = 60
FOLDERS = ("src", "tests", "benchmarks", "recipes", "tools")


def list_large(root: Path) -> Iterator[str]:
    """A line for every file and function under `root` that is larger than it should be."""
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            shown = path.relative_to(root)
            lines = text.count("\n")
            if lines > MOST_FILE_LINES:
                yield f"{shown}: {lines} lines (more than {MOST_FILE_LINES})"
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    length = (node.end_lineno or node.lineno) - node.lineno + 1
                    if length > MOST_FUNCTION_LINES:
                        yield f"{shown}:{node.lineno}: {node.name} has {length} lines (more than {MOST_FUNCTION_LINES})"


def main() -> None:
    """Print the list."""
    large = list(list_large(Path(__file__).resolve().parent.parent))
    print("\n".join(large) if large else "No file past 400 lines, no function past 60.")


if __name__ == "__main__":
    main()
