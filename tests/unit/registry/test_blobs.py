from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from headgate.core.chance import SystemChance
from headgate.core.clock import SystemClock
from headgate.core.errors import ModelRefused
from headgate.core.ids import Ids
from headgate.registry import staging as staging_module
from headgate.registry.blobs import BlobStore
from headgate.registry.staging import check_name

ROOM = 2**40
DAY = 86_400


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return make(tmp_path)


def make(folder: Path) -> BlobStore:
    return BlobStore(folder / "models", Ids(SystemClock(), SystemChance()))


def keep(store: BlobStore, source: Path) -> Path:
    with store.stage() as staging:
        file = staging.copy_in(source, "m.gguf", max_bytes=ROOM)
        with store.locked():
            return store.keep_file(file)


def keep_folder(store: BlobStore, source: Path) -> tuple[str, Path]:
    with store.stage() as staging:
        names = sorted(str(path.relative_to(source)) for path in source.rglob("*") if path.is_file())
        files = [staging.copy_in(source / name, name, max_bytes=ROOM) for name in names]
        with store.locked():
            return store.keep_folder(files)


def some_folder(folder: Path) -> Path:
    (folder / "sub").mkdir(parents=True)
    (folder / "a.json").write_bytes(b"{}")
    (folder / "b.json").write_bytes(b"{}")
    (folder / "sub" / "w.bin").write_bytes(b"weights")
    return folder


def flip(path: Path) -> None:
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("in_kernel", [True, False])
def test_a_copy_of_our_own_named_by_its_hash(
    store: BlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_kernel: bool
) -> None:
    if not in_kernel:

        def refuse(*_: object) -> int:
            raise OSError(18, "cross-device")

        monkeypatch.setattr(staging_module.os, "copy_file_range", refuse)
    source = tmp_path / "m.gguf"
    source.write_bytes(os.urandom(9 * 2**20 + 3))
    expected = hashlib.sha256(source.read_bytes()).hexdigest()
    seen: list[tuple[int, int | None]] = []
    with store.stage() as staging:
        file = staging.copy_in(source, "m.gguf", max_bytes=ROOM, progress=lambda _w, d, t: seen.append((d, t)))
        with store.locked():
            place = store.keep_file(file)
    assert place.name == expected == file.sha256 and place.stat().st_mode & 0o777 == 0o444
    assert seen[-1] == (source.stat().st_size, source.stat().st_size)
    flip(source)
    assert store.verify(f"sha256:{expected}") == []
    assert list((tmp_path / "models" / "staging").iterdir()) == []


def test_the_same_bytes_are_kept_once(store: BlobStore, tmp_path: Path) -> None:
    source = tmp_path / "m"
    source.write_bytes(b"x" * 100)
    first = keep(store, source)
    inode = first.stat().st_ino
    assert keep(store, source) == first and first.stat().st_ino == inode


def test_a_folder_shares_bytes_and_has_a_canonical_digest(store: BlobStore, tmp_path: Path) -> None:
    digest, place = keep_folder(store, some_folder(tmp_path / "f"))
    again, _ = keep_folder(store, tmp_path / "f")
    assert again == digest and sorted(store.load_manifest(digest)) == ["a.json", "b.json", "sub/w.bin"]
    assert (place / "a.json").samefile(place / "b.json")
    assert (place / "sub" / "w.bin").read_bytes() == b"weights"


def test_verify_names_the_damaged_file(store: BlobStore, tmp_path: Path) -> None:
    digest, place = keep_folder(store, some_folder(tmp_path / "f"))
    flip(place / "sub" / "w.bin")
    assert [(damage.name, damage.what) for damage in store.verify(digest, folder=True)] == [
        ("sub/w.bin", "has other bytes than when it was added")
    ]
    (place / "a.json").unlink()
    (place / "extra").write_text("x")
    assert [damage.name for damage in store.verify(digest, folder=True)] == ["a.json", "sub/w.bin", "extra"]
    manifest = store.path_of(digest)
    flip(manifest)
    assert [damage.name for damage in store.verify(digest, folder=True)] == ["manifest"]


def test_adding_again_heals(store: BlobStore, tmp_path: Path) -> None:
    digest, place = keep_folder(store, some_folder(tmp_path / "f"))
    flip(place / "sub" / "w.bin")
    flip(store.path_of(digest))
    keep_folder(store, tmp_path / "f")
    assert store.verify(digest, folder=True) == []
    source = tmp_path / "m"
    source.write_bytes(b"y" * 10)
    blob = keep(store, source)
    flip(blob)
    keep(store, source)
    assert store.verify(f"sha256:{blob.name}") == []


def test_dropping_keeps_what_is_referred_to(store: BlobStore, tmp_path: Path) -> None:
    digest, place = keep_folder(store, some_folder(tmp_path / "f"))
    source = tmp_path / "m"
    source.write_bytes(b"weights")  # the same bytes as a file of the folder
    blob = keep(store, source)
    with store.locked():
        assert store.drop_unreferenced([f"sha256:{blob.name}"], [digest]) == 0
        assert store.drop_unreferenced([f"sha256:{blob.name}"], []) > 0
    assert blob.exists() and not place.exists()
    with store.locked():
        assert store.drop_unreferenced([], []) == 7
    assert not blob.exists()


def test_a_failure_leaves_nothing_in_staging(store: BlobStore, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), store.stage() as staging:
        (tmp_path / "m").write_bytes(b"x")
        staging.copy_in(tmp_path / "m", "m", max_bytes=ROOM)
        raise ZeroDivisionError
    assert list((tmp_path / "models" / "staging").iterdir()) == []


def test_a_crash_between_temporary_file_and_rename_is_swept(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    (tmp_path / "m").write_bytes(b"x" * 1000)
    child = os.fork()
    if child == 0:
        store = make(tmp_path)
        with store.stage() as staging:
            staging.copy_in(tmp_path / "m", "m.gguf", max_bytes=ROOM)
            (store.root / "staging" / ".loose").write_bytes(b"x")
            os.write(writing, b"!")
            os.kill(os.getpid(), 9)
    os.close(writing)
    os.read(reading, 1)
    os.waitpid(child, 0)
    os.close(reading)
    store = make(tmp_path)
    left = store.root / "staging"
    assert len(list(left.iterdir())) == 2
    with store.stage() as living, store.locked():
        assert store.sweep(now=0.0) == 2
        assert list(left.iterdir()) == [living.folder]


def test_a_crash_between_rename_and_row_is_dropped(store: BlobStore, tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(b"x" * 1000)
    blob = keep(store, tmp_path / "m")
    with store.locked():
        assert store.drop_unreferenced([], []) == 1000
    assert not blob.exists()


def test_old_downloads_are_swept_and_living_ones_are_not(store: BlobStore) -> None:
    with store.continued("a") as old:
        (old / "data").write_bytes(b"x")
    os.utime(old, (1000, 1000))
    with store.continued("b") as living, store.locked():
        os.utime(living, (1000, 1000))
        assert store.sweep(now=1000.0 + DAY) == 0
        assert store.sweep(now=1000.0 + 8 * DAY) == 1
        assert living.exists() and not old.exists()


def test_a_download_that_another_finished_starts_anew(store: BlobStore) -> None:
    with store.continued("a") as folder:
        store.forget(folder)
    with store.continued("a") as again:
        assert again == folder and again.exists()
    with pytest.raises(FileNotFoundError), store.continued("a"):
        raise FileNotFoundError("of the caller")


def test_limits(store: BlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m").write_bytes(b"x" * 2000)
    with store.stage() as staging, pytest.raises(ModelRefused, match=r"registry\.max_model_bytes"):
        staging.copy_in(tmp_path / "m", "m", max_bytes=1999)
    usage = type(staging_module.shutil.disk_usage("/"))
    monkeypatch.setattr(staging_module.shutil, "disk_usage", lambda _: usage(10, 10, 1000))
    with store.stage() as staging, pytest.raises(ModelRefused, match="are missing"):
        staging.copy_in(tmp_path / "m", "m", max_bytes=ROOM)


def test_a_full_disk_is_said(store: BlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    (tmp_path / "m").write_bytes(b"x" * 2000)
    monkeypatch.setattr(staging_module.os, "copy_file_range", full)
    with store.stage() as staging, pytest.raises(ModelRefused, match="disk became full"):
        staging.copy_in(tmp_path / "m", "m", max_bytes=ROOM)


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "/x", "a//b", "a/../b", ".hidden", "a\\b", "a\nb", "x" * 300])
def test_names_stay_in_their_folder(name: str) -> None:
    with pytest.raises(ModelRefused):
        check_name(name)
