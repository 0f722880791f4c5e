"""Models from the hub and over the web, as `model add` fetches them, from a server that speaks the hub's protocol."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from headgate.core.errors import ModelRefused
from headgate.registry.settings import RegistrySettings
from tests.helpers.hub_server import COMMIT, NEXT_COMMIT, HubServer, serve_hub
from tests.helpers.model_files import gguf_bytes, llama_metadata, torch_zip
from tests.helpers.registries import kept_files, make_registry

MODEL = gguf_bytes(
    llama_metadata(general__license=None), (("token_embd.weight", (32, 20_000), 0), ("output.weight", (32, 100), 0))
)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Generator[HubServer]:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with serve_hub(HubServer(files={"m.gguf": MODEL})) as state:
        monkeypatch.setenv("HF_ENDPOINT", state.url)
        yield state


def test_revision_hash_and_licence_are_pinned(hub: HubServer, tmp_path: Path) -> None:
    registry = make_registry(tmp_path)
    version = registry.add("tiny", "hf:acme/tiny@main/m.gguf").version
    assert version.digest == "sha256:" + hashlib.sha256(MODEL).hexdigest()
    assert version.origin == f"hf:acme/tiny@{COMMIT}/m.gguf" and version.licence == "mit"
    assert any(path == f"/acme/tiny/resolve/{COMMIT}/m.gguf" for _, path, _ in hub.requests)
    assert Path(version.path).read_bytes() == MODEL and len(kept_files(tmp_path)) == 1


def test_an_interrupted_download_goes_on_in_a_later_process(hub: HubServer, tmp_path: Path) -> None:
    hub.breaks = [1_000_000, *[0] * 20]
    with pytest.raises(ModelRefused, match="1000000 bytes have arrived and are kept") as caught:
        make_registry(tmp_path).add("tiny", "hf:acme/tiny/m.gguf")
    assert caught.value.code == "source_unavailable" and "secret" not in caught.value.message
    hub.breaks.clear()
    hub.requests.clear()
    version = make_registry(tmp_path).add("tiny", "hf:acme/tiny/m.gguf").version
    assert Path(version.path).read_bytes() == MODEL
    assert [headers["Range"] for headers in hub.got("/cdn/m.gguf")] == ["bytes=1000000-"]


def test_a_wrong_hash_is_refused_and_leaves_nothing(hub: HubServer, tmp_path: Path) -> None:
    hub.sha256 = "ab" * 32
    registry = make_registry(tmp_path)
    with pytest.raises(ModelRefused, match="not what was promised"):
        registry.add("tiny", "hf:acme/tiny/m.gguf")
    assert kept_files(tmp_path) == [] and registry.list() == ()
    hub.sha256 = None
    assert registry.add("tiny", "hf:acme/tiny/m.gguf").outcome == "added"


def test_a_moved_branch_is_a_new_version(hub: HubServer, tmp_path: Path) -> None:
    registry = make_registry(tmp_path)
    registry.add("tiny", "hf:acme/tiny/m.gguf")
    hub.files["m.gguf"] = MODEL[:-1] + b"\1"
    hub.commit = NEXT_COMMIT
    assert registry.ensure("tiny", "hf:acme/tiny/m.gguf").outcome == "unchanged"
    added = registry.add("tiny", "hf:acme/tiny/m.gguf")
    assert added.outcome == "moved" and NEXT_COMMIT in added.version.origin
    assert registry.ensure("tiny", f"hf:acme/tiny@{COMMIT}/m.gguf").outcome in ("moved", "unchanged")


def test_known_bytes_are_not_fetched_again(hub: HubServer, tmp_path: Path) -> None:
    registry = make_registry(tmp_path)
    registry.add("a", "hf:acme/tiny/m.gguf")
    hub.requests.clear()
    assert registry.add("b", "hf:acme/tiny/m.gguf").outcome == "added"
    assert hub.got("/cdn/") == []


def test_a_pickle_on_the_hub(hub: HubServer, tmp_path: Path) -> None:
    hub.files["m.gguf"] = torch_zip()
    with pytest.raises(ModelRefused, match="PyTorch checkpoint"):
        make_registry(tmp_path).add("tiny", "hf:acme/tiny/m.gguf")
    assert kept_files(tmp_path) == []


def test_all_parts_of_a_split_are_fetched(hub: HubServer, tmp_path: Path) -> None:
    for number in range(2):
        metadata = llama_metadata(split__no=number, split__count=2)
        hub.files[f"q/big-{number + 1:05d}-of-00002.gguf"] = gguf_bytes(metadata, ((f"blk.{number}.w", (32, 32), 1),))
    version = make_registry(tmp_path).add("big", "hf:acme/tiny/q/big-00001-of-00002.gguf").version
    assert version.parameters == 2048 and Path(version.path).name == "big-00001-of-00002.gguf"


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("hf:acme/none/m.gguf", "no repository acme/none"),
        ("hf:acme/tiny/none.gguf", "no such file"),
        ("hf:acme/tiny@nope/m.gguf", "no such revision"),
    ],
)
def test_what_is_not_there(hub: HubServer, tmp_path: Path, source: str, why: str) -> None:
    with pytest.raises(ModelRefused, match=why):
        make_registry(tmp_path).add("tiny", source)


def test_a_gated_model_needs_a_token_which_the_file_server_never_sees(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.token = "hf_secret"
    hub.cdn = f"http://localhost:{hub.port}"
    with pytest.raises(ModelRefused, match="gated"):
        make_registry(tmp_path).add("tiny", "hf:acme/tiny/m.gguf")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert make_registry(tmp_path).add("tiny", "hf:acme/tiny/m.gguf").outcome == "added"
    assert all("Authorization" not in headers for headers in hub.got("/cdn/"))


def test_a_redirect_to_a_host_that_nobody_named(hub: HubServer, tmp_path: Path) -> None:
    hub.cdn = "https://cdn.example"
    with pytest.raises(ModelRefused, match=r"cdn\.example is not named in the configuration.*registry\.hub_hosts"):
        make_registry(tmp_path).add("tiny", "hf:acme/tiny/m.gguf")


def test_a_hub_that_nobody_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example")
    with pytest.raises(ModelRefused, match=r"mirror\.example is not named"):
        make_registry(tmp_path).add("tiny", "hf:acme/tiny/m.gguf")


def test_a_hub_that_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve_hub(HubServer()) as hub:
        pass
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    with pytest.raises(ModelRefused, match="could not be asked") as caught:
        make_registry(tmp_path).add("tiny", "hf:acme/tiny/m.gguf")
    assert caught.value.code == "source_unavailable"


def test_without_the_extra(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("huggingface_hub")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ModelRefused, match=r"pip install 'headgate\[hub\]'"):
        make_registry(tmp_path).add("tiny", "hf:acme/tiny/m.gguf")


def test_over_the_web_with_a_pin(hub: HubServer, tmp_path: Path) -> None:
    pin = hashlib.sha256(MODEL).hexdigest()
    registry = make_registry(tmp_path)
    hub.breaks = [1_000_000]
    added = registry.add("tiny", f"{hub.url}/files/m.gguf?signature=secret#sha256={pin}")
    assert added.version.origin == f"{hub.url}/files/m.gguf"
    assert hub.got("/files/")[-1]["Range"] == "bytes=1000000-"
    with pytest.raises(ModelRefused, match="not what was promised"):
        registry.add("other", f"{hub.url}/files/m.gguf#sha256={'00' * 32}")
    with pytest.raises(ModelRefused, match=r"elsewhere\.example is not named"):
        registry.add("other", "https://elsewhere.example/m.gguf")
    assert len(registry.list()) == 1 and len(kept_files(tmp_path)) == 1


def test_a_size_limit(hub: HubServer, tmp_path: Path) -> None:
    registry = make_registry(tmp_path, settings=RegistrySettings(max_model_bytes="1MB"))
    for source in ("hf:acme/tiny/m.gguf", f"{hub.url}/files/m.gguf"):
        with pytest.raises(ModelRefused, match=r"registry\.max_model_bytes"):
            registry.add("tiny", source)
    assert kept_files(tmp_path) == [] or all("marks" in name for name in kept_files(tmp_path))
