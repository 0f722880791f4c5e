"""Files that are read ahead and forgotten, real ones on a real disk."""

from __future__ import annotations

import logging
from pathlib import Path

from headgate.workers.page_cache import PageCache, drop_cached, read_ahead


def _model(folder: Path) -> Path:
    folder.mkdir()
    for name in ("a", "b"):
        (folder / name).write_bytes(b"x" * 100_000)
    return folder


def test_dropping_a_files_pages_leaves_its_bytes(tmp_path: Path) -> None:
    folder = _model(tmp_path / "model")
    assert isinstance(drop_cached(folder), bool)  # whether it can depends on the file system
    read_ahead(folder)
    assert (folder / "a").read_bytes() == b"x" * 100_000


def test_what_is_kept_is_read_ahead_once_and_what_is_not_any_more_is_forgotten(tmp_path: Path, monkeypatch) -> None:
    first, second = _model(tmp_path / "first"), _model(tmp_path / "second")
    told: list[tuple[str, Path]] = []
    for name in ("read_ahead", "drop_cached"):
        monkeypatch.setattr(f"headgate.workers.page_cache.{name}", lambda path, name=name: told.append((name, path)))
    cache = PageCache()
    cache.keep({first, second})
    cache.keep({second, first})
    cache.keep({second})
    cache.close(wait=True)
    assert told == [("read_ahead", first), ("read_ahead", second), ("drop_cached", first)]


def test_a_file_that_is_gone_is_not_the_nodes_trouble(tmp_path: Path, caplog) -> None:
    cache = PageCache()
    with caplog.at_level(logging.INFO):
        cache.keep({tmp_path / "gone"})
        cache.close(wait=True)
    assert "gone" in caplog.text and "No such file" in caplog.text
