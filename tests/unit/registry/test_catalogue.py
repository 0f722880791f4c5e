from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import select
from tests.helpers.model_files import (
    TEMPLATE,
    gguf_bytes,
    llama_metadata,
    safetensors_bytes,
    torch_zip,
    write_folder,
    write_gguf,
)
from tests.helpers.registries import kept_files, make_registry

from headgate.core.clock import ManualClock
from headgate.core.errors import ModelNotFound, ModelRefused
from headgate.core.model import Version
from headgate.registry.fetch import load_bundled
from headgate.registry.intake import SmokeDouble, check_adapter
from headgate.registry.known import is_same
from headgate.registry.settings import RegistrySettings
from headgate.registry.sources import LocalSource
from headgate.store.schema import model_versions, models, versions


def rows(registry: object) -> int:
    with registry._database.read() as connection:  # type: ignore[attr-defined]
        return sum(len(connection.execute(select(table)).all()) for table in (models, versions, model_versions))


def test_adding_a_file(tmp_path: Path) -> None:
    smoke = SmokeDouble()
    registry = make_registry(tmp_path, smoke=smoke)
    source = write_gguf(tmp_path / "m.gguf", llama_metadata(tokenizer__chat_template=TEMPLATE))
    added = registry.add("tiny", str(source))
    version = registry.get("tiny")
    assert (added.outcome, added.version) == ("added", version)
    assert (version.format, version.task, version.architecture) == ("gguf", "generate", "llama")
    assert (version.parameters, version.context, version.licence) == (8448, 256, "apache-2.0")
    assert version.chat_template == TEMPLATE
    assert version.origin == f"file:{source}" and version.header is not None and version.header.kv_heads == (2, 2)
    assert Path(version.path).read_bytes() == source.read_bytes()
    assert len(smoke.seen) == 1 and smoke.seen[0].digest == version.digest
    source.write_bytes(b"changed in place")
    assert registry.verify("tiny").damages == ()
    assert kept_files(tmp_path) == [f"blobs/sha256/{version.digest[7:]}"]


def test_the_same_bytes_again(tmp_path: Path) -> None:
    smoke = SmokeDouble()
    registry = make_registry(tmp_path, smoke=smoke)
    write_gguf(tmp_path / "m.gguf")
    registry.add("a", str(tmp_path / "m.gguf"))
    assert registry.add("a", str(tmp_path / "m.gguf")).outcome == "unchanged"
    assert registry.add("b", str(tmp_path / "m.gguf")).outcome == "added"
    assert len(smoke.seen) == 1 and len(kept_files(tmp_path)) == 1
    assert [entry.name for entry in registry.list()] == ["a", "b"]


def test_new_bytes_move_the_name_and_older_ones_stay(tmp_path: Path) -> None:
    registry = make_registry(tmp_path)
    first = registry.add("a", str(write_gguf(tmp_path / "1.gguf"))).version
    second = registry.add("a", str(write_gguf(tmp_path / "2.gguf", fill=b"\x09")))
    assert second.outcome == "moved" and registry.get("a") == second.version
    assert registry.get_version(first.digest) == first
    assert {digest for digest, _ in registry.show("a").history} == {first.digest, second.version.digest}
    assert registry.add("a", str(tmp_path / "1.gguf")).outcome == "moved"
    assert registry.get("a") == first
    with pytest.raises(ModelRefused, match="current version"):
        registry.remove("a", digest=first.digest)
    assert registry.remove("a", digest=second.version.digest) == second.version.bytes
    assert registry.get("a") == first and len(kept_files(tmp_path)) == 1


def test_a_refused_smoke_leaves_nothing(tmp_path: Path) -> None:
    registry = make_registry(tmp_path, smoke=SmokeDouble(ModelRefused("It says nothing.")))
    with pytest.raises(ModelRefused, match="says nothing"):
        registry.add("a", str(write_gguf(tmp_path / "m.gguf")))
    assert rows(registry) == 0 and kept_files(tmp_path) == []


def test_a_smoke_that_breaks_refuses_too(tmp_path: Path) -> None:
    def broken(_version: Version) -> None:
        raise RuntimeError("secret details")

    registry = make_registry(tmp_path, smoke=broken)
    with pytest.raises(ModelRefused, match="RuntimeError") as caught:
        registry.add("a", str(write_gguf(tmp_path / "m.gguf")))
    assert "secret" not in caught.value.message
    assert rows(registry) == 0 and kept_files(tmp_path) == []


def test_a_database_that_fails_leaves_no_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = make_registry(tmp_path)

    def fail(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(registry, "_record", fail)
    with pytest.raises(RuntimeError):
        registry.add("a", str(write_gguf(tmp_path / "m.gguf")))
    assert kept_files(tmp_path) == [] and rows(registry) == 0


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (pickle.dumps({"a": [1]}), "pickle"),
        (pickle.dumps({"a": [1]}, protocol=0), "pickle"),
        (torch_zip(), "PyTorch"),
        (gguf_bytes()[:-10], "cut off"),
        (gguf_bytes() + torch_zip(), "PyTorch"),
        (b"", "empty"),
        (b"<html>", "web page"),
        (gguf_bytes(llama_metadata(tokenizer__chat_template="{{ messages.__class__ }}")), "template was refused"),
        (gguf_bytes(llama_metadata(general__type="adapter")), "adapter"),
        (gguf_bytes(llama_metadata(split__no=0, split__count=2)), "its name does not say so"),
    ],
)
def test_refused_by_content_whatever_the_name(tmp_path: Path, content: bytes, why: str) -> None:
    registry = make_registry(tmp_path)
    (tmp_path / "model.gguf").write_bytes(content)
    with pytest.raises(ModelRefused, match=why):
        registry.add("a", str(tmp_path / "model.gguf"))
    assert rows(registry) == 0 and kept_files(tmp_path) == []


@pytest.mark.parametrize("name", ["", ".a", "a/b", "a b", "x" * 101, "../a", "ä"])
def test_bad_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelRefused) as caught:
        make_registry(tmp_path).add(name, "fake:")
    assert caught.value.param == "name"


def test_a_folder(tmp_path: Path) -> None:
    smoke = SmokeDouble()
    registry = make_registry(tmp_path, smoke=smoke, clock=ManualClock(4e9))
    root = write_folder(tmp_path / "m", shards=3)
    (root / "modeling.py").write_text("x")
    added = registry.add("a", str(root))
    version = registry.get("a")
    assert (version.format, version.licence, version.context) == ("safetensors", "mit", 2048)
    assert added.left_out == ("modeling.py",) and smoke.seen == []
    assert {path.name for path in Path(version.path).iterdir()} == {path.name for path in root.iterdir()} - {
        "modeling.py"
    }
    assert registry.add("a", str(root)).outcome == "unchanged"
    shard = Path(version.path) / "model-00002-of-00003.safetensors"
    shard.chmod(0o644)
    shard.write_bytes(b"x")
    assert [damage.name for damage in registry.verify("a").damages] == [shard.name]
    assert registry.show("a").verified_at is None
    registry.add("a", str(root))
    assert registry.verify("a").damages == () and registry.show("a").verified_at == 4e9
    assert registry.remove("a") > 0 and kept_files(tmp_path) == []


def test_a_folder_with_a_pickle(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "m")
    (root / "pytorch_model.bin").write_bytes(torch_zip())
    with pytest.raises(ModelRefused, match=r"Remove pytorch_model\.bin"):
        make_registry(tmp_path).add("a", str(root))


def test_a_single_safetensors_file(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(safetensors_bytes({"a": (2, 2)}))
    version = make_registry(tmp_path).add("a", str(tmp_path / "m.gguf")).version
    assert (version.format, version.parameters) == ("safetensors", 4)


def split(folder: Path, count: int = 3) -> list[Path]:
    folder.mkdir()
    paths = []
    for number in range(count):
        metadata = llama_metadata(split__no=number, split__count=count, split__tensors__count=count)
        path = folder / f"big-{number + 1:05d}-of-{count:05d}.gguf"
        paths.append(write_gguf(path, metadata, tensors=((f"blk.{number % 2}.w{number}", (32, 32), 1),)))
    return paths


@pytest.mark.parametrize("named", ["folder", "first", "last"])
def test_a_split_model(tmp_path: Path, named: str) -> None:
    paths = split(tmp_path / "s")
    source = {"folder": tmp_path / "s", "first": paths[0], "last": paths[2]}[named]
    registry = make_registry(tmp_path)
    version = registry.add("a", str(source)).version
    assert Path(version.path).name == paths[0].name and version.parameters == 3 * 1024
    assert version.bytes == sum(path.stat().st_size for path in paths)
    assert len(list(Path(version.path).parent.iterdir())) == 3 and registry.verify("a").damages == ()
    assert registry.ensure("a", str(source)).outcome == "unchanged"


def test_a_split_model_that_misses_a_part(tmp_path: Path) -> None:
    split(tmp_path / "s")[1].unlink()
    with pytest.raises(ModelRefused, match=r"missing: big-00002-of-00003\.gguf"):
        make_registry(tmp_path).add("a", str(tmp_path / "s"))


def test_parts_of_two_models(tmp_path: Path) -> None:
    paths = split(tmp_path / "s")
    shutil.copy(paths[0], paths[1])
    with pytest.raises(ModelRefused, match="is not part 2 of 3"):
        make_registry(tmp_path).add("a", str(paths[0]))


def test_a_folder_of_two_models(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    write_gguf(tmp_path / "s" / "a.gguf")
    registry = make_registry(tmp_path)
    assert registry.add("a", str(tmp_path / "s")).version.format == "gguf"
    write_gguf(tmp_path / "s" / "b.gguf")
    with pytest.raises(ModelRefused, match="2 GGUF models"):
        registry.add("a", str(tmp_path / "s"))


def test_fakes_and_endpoints_have_no_bytes(tmp_path: Path) -> None:
    smoke = SmokeDouble()
    registry = make_registry(tmp_path, smoke=smoke)
    fake = registry.add("f", "fake:task=embed&context=99&seed=4").version
    assert (fake.format, fake.task, fake.context, fake.path) == ("fake", "embed", 99, "")
    assert registry.add("g", "fake:seed=4&context=99&task=embed").version.digest == fake.digest
    endpoint = registry.add("e", "endpoint:http://127.0.0.1:9/v1").version
    assert (endpoint.format, endpoint.origin) == ("endpoint", "endpoint:http://127.0.0.1:9/v1")
    assert registry.verify("f").damages == () and registry.get("e") == endpoint and len(smoke.seen) == 2
    for bad in ("fake:task=x", "fake:context=0", "fake:context=x"):
        with pytest.raises(ModelRefused):
            registry.add("h", bad)


def test_hosts_of_endpoints_must_be_named(tmp_path: Path) -> None:
    registry = make_registry(tmp_path)
    with pytest.raises(ModelRefused, match=r"api\.example is not named"):
        registry.add("e", "endpoint:https://api.example/v1")
    assert registry.add("e", "endpoint:https://api.example/v1", from_configuration=True).outcome == "added"
    with pytest.raises(ModelRefused, match="unencrypted"):
        registry.add("e", "endpoint:http://api.example/v1", from_configuration=True)
    settings = RegistrySettings(allowed_hosts=("api.example",), plain_http_hosts=("old.example",))
    registry = make_registry(tmp_path, settings=settings)
    assert registry.add("e", "endpoint:https://api.example/v1").outcome == "unchanged"
    assert registry.add("o", "endpoint:http://old.example/v1").outcome == "added"


def test_licences(tmp_path: Path) -> None:
    source = str(write_gguf(tmp_path / "m.gguf"))
    denied = make_registry(tmp_path, settings=RegistrySettings(licences_denied=("Apache-2.0",)))
    with pytest.raises(ModelRefused, match="licences_denied"):
        denied.add("a", source)
    picky = make_registry(tmp_path, settings=RegistrySettings(licences_allowed=("mit",)))
    with pytest.raises(ModelRefused, match=r"'apache-2\.0' is not in"):
        picky.add("a", source)
    assert picky.add("a", source, licence="MIT").version.licence == "MIT"
    unknown = write_gguf(tmp_path / "u.gguf", llama_metadata(general__license=None))
    with pytest.raises(ModelRefused, match="licence is unknown"):
        picky.add("u", str(unknown))


def test_kinds_of_source_can_be_switched_off(tmp_path: Path) -> None:
    registry = make_registry(tmp_path, settings=RegistrySettings(sources=frozenset({"bundled"})))
    with pytest.raises(ModelRefused, match=r"registry\.sources"):
        registry.add("a", "fake:")


def test_removal(tmp_path: Path) -> None:
    users: dict[str, tuple[str, ...]] = {"a": ("tickets",)}
    registry = make_registry(tmp_path, in_use=lambda name: users.get(name, ()))
    write_gguf(tmp_path / "m.gguf")
    registry.add("a", str(tmp_path / "m.gguf"))
    registry.add("b", str(tmp_path / "m.gguf"))
    with pytest.raises(ModelRefused, match="used by tickets") as caught:
        registry.remove("a")
    assert caught.value.code == "model_in_use"
    users.clear()
    assert registry.remove("a") == 0 and registry.get("b").bytes > 0
    assert registry.remove("b") > 0 and rows(registry) == 0 and kept_files(tmp_path) == []
    with pytest.raises(ModelNotFound):
        registry.remove("b")
    with pytest.raises(ModelNotFound):
        registry.get("b")


def test_missing_bytes_are_said(tmp_path: Path) -> None:
    registry = make_registry(tmp_path)
    version = registry.add("a", str(write_gguf(tmp_path / "m.gguf"))).version
    Path(version.path).unlink()
    with pytest.raises(ModelRefused, match="missing"):
        registry.get("a")
    assert [damage.what for damage in registry.verify("a").damages] == ["cannot be read: No such file or directory"]
    assert registry.ensure("a", str(tmp_path / "m.gguf")).outcome == "unchanged"
    assert registry.get("a") == version


def test_the_state_folder_may_be_moved(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    first = make_registry(tmp_path / "old")
    first.add("a", str(write_gguf(tmp_path / "m.gguf")))
    first._database.close()
    (tmp_path / "old").rename(tmp_path / "new")
    again = make_registry(tmp_path / "new")
    assert Path(again.get("a").path).is_relative_to(tmp_path / "new") and again.verify("a").damages == ()


def test_sweeping_after_a_crash(tmp_path: Path) -> None:
    registry = make_registry(tmp_path)
    kept = registry.add("a", str(write_gguf(tmp_path / "m.gguf"))).version
    (tmp_path / "models" / "blobs" / "sha256" / ("0" * 64)).write_bytes(b"x" * 50)
    (tmp_path / "models" / "staging" / "dead").mkdir()
    assert registry.sweep() == 50
    assert kept_files(tmp_path) == [f"blobs/sha256/{kept.digest[7:]}"]


def in_child(work: Callable[[], None]) -> int:
    """Exit status of `work` in a forked process (-9 when it was killed)."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("place", ["_record", "_place", "_try"])
def test_a_process_killed_while_it_adds(tmp_path: Path, place: str) -> None:
    root = write_folder(tmp_path / "m")

    def work() -> None:
        registry = make_registry(tmp_path)
        setattr(registry, place, lambda *_: os.kill(os.getpid(), 9))
        registry.add("a", str(root))

    make_registry(tmp_path)._database.close()
    assert in_child(work) == -9
    registry = make_registry(tmp_path)
    assert registry.list() == () and kept_files(tmp_path) != []
    registry.sweep()
    assert kept_files(tmp_path) == [] and rows(registry) == 0
    assert registry.add("a", str(root)).outcome == "added" and registry.verify("a").damages == ()


def test_adapters_are_checked_too(tmp_path: Path) -> None:
    version = make_registry(tmp_path).add("a", str(write_gguf(tmp_path / "m.gguf"))).version
    lora = {"general.architecture": "llama", "general.type": "adapter", "adapter.type": "lora"}
    check_adapter(write_gguf(tmp_path / "l.gguf", lora), version)
    for content, why in (
        (gguf_bytes(lora | {"general.architecture": "qwen2"}), "for qwen2 models"),
        (gguf_bytes(lora)[:-5], "cut off"),
        (gguf_bytes(), "not a LoRA adapter"),
        (torch_zip(), "PyTorch"),
    ):
        (tmp_path / "x.gguf").write_bytes(content)
        with pytest.raises(ModelRefused, match=why):
            check_adapter(tmp_path / "x.gguf", version)


def test_several_processes_add_at_once(tmp_path: Path) -> None:
    source = write_gguf(tmp_path / "m.gguf")
    make_registry(tmp_path)._database.close()
    children = []
    for number in range(4):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                for name in ("shared", f"own-{number}"):
                    make_registry(tmp_path).add(name, str(source))
                make_registry(tmp_path).remove(f"own-{number}")
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    registry = make_registry(tmp_path)
    assert [entry.name for entry in registry.list()] == ["shared"] and registry.verify("shared").damages == ()
    assert len(kept_files(tmp_path)) == 1


def test_ensure_fetches_only_what_changed(tmp_path: Path) -> None:
    smoke = SmokeDouble()
    registry = make_registry(tmp_path, smoke=smoke)
    source = write_gguf(tmp_path / "m.gguf")
    assert registry.ensure("a", str(source)).outcome == "added"
    assert registry.ensure("a", str(source)).outcome == "unchanged"
    write_gguf(source, llama_metadata(general__name="a longer name" * 9))
    assert registry.ensure("a", str(source)).outcome == "moved"
    assert registry.ensure("a", "fake:seed=1").outcome == "moved"
    assert registry.ensure("a", "fake:seed=1").outcome == "unchanged"
    assert registry.ensure("a", "fake:seed=2").outcome == "moved"
    root = write_folder(tmp_path / "f")
    assert registry.ensure("f", str(root)).outcome == "added"
    assert registry.ensure("f", str(root)).outcome == "unchanged"


def test_what_was_written_since_is_not_the_same(tmp_path: Path) -> None:
    source = write_gguf(tmp_path / "m.gguf")
    version = make_registry(tmp_path).add("a", str(source)).version
    changed = source.stat().st_ctime
    os.utime(source, (1000, 1000))  # an old time of writing does not hide a change
    assert is_same(LocalSource(path=source), version, None, changed + 10)
    assert not is_same(LocalSource(path=source), version, None, changed - 10)
    source.unlink()
    assert not is_same(LocalSource(path=source), version, None, changed + 10)


@pytest.mark.skipif(not load_bundled(), reason="nothing is bundled yet")
def test_every_bundled_model(tmp_path: Path) -> None:
    registry = make_registry(tmp_path)
    for entry in load_bundled():
        source = f"bundled:{entry['name']}"
        version = registry.add(entry["name"], source).version
        assert (version.format, version.origin) == (entry["format"], source) and version.licence
        assert registry.ensure(entry["name"], source).outcome == "unchanged"
    with pytest.raises(ModelRefused, match="There are:"):
        registry.add("x", "bundled:none")
