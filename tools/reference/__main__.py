"""`python -m tools.reference` writes the pages; `--check` only says which ones are out of date."""

from __future__ import annotations

import sys

from tools.reference.pages import FOLDER, build_pages


def main() -> int:
    """Write what has changed. With --check: 1 when anything would."""
    check = "--check" in sys.argv[1:]
    old: list[str] = []
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in build_pages().items():
        path = FOLDER / name
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        old.append(name)
        if not check:
            path.write_text(text, encoding="utf-8")
        print(f"{'out of date' if check else 'written'}: docs/reference/{name}")
    if not old:
        print("docs/reference/ is current.")
    return 1 if check and old else 0


if __name__ == "__main__":
    sys.exit(main())
