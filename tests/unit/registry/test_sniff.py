from __future__ import annotations

import bz2
import collections
import gzip
import io
import json
import lzma
import os
import pickle
import tarfile
import zipfile
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.helpers.model_files import gguf_bytes, safetensors_bytes, torch_zip

from headgate.core.errors import ModelRefused
from headgate.registry.pickles import looks_pickled
from headgate.registry.sniff import HEAD_BYTES, refusal, sniff, sniff_bytes

THINGS: list[Any] = [
    {"weights": [1.0, 2.0], "name": "x"},
    [1, 2, 3],
    ["a", "b"],
    ("a", 1, None),
    {"a": {"b": {"c": [True, False]}}},
    collections.OrderedDict(a=1),
    datetime(2026, 1, 1),
    {1, 2},
    list(range(100_000)),
    {str(number): float(number) for number in range(50_000)},
    b"x" * 200_000,
    os.getcwd,
]


class Nasty:
    def __reduce__(self) -> Any:
        return (os.system, ("true",))


def kind_of(content: bytes) -> str:
    return sniff_bytes(content[:HEAD_BYTES], content[-65_557:], len(content))


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("thing", range(len(THINGS)))
def test_pickles_of_every_protocol(protocol: int, thing: int) -> None:
    assert kind_of(pickle.dumps(THINGS[thing], protocol=protocol)) == "pickle"


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_would_run_something(protocol: int) -> None:
    assert kind_of(pickle.dumps(Nasty(), protocol=protocol)) == "pickle"


TEXTS = [
    json.dumps({"architectures": ["LlamaForCausalLM"], "hidden_size": 32}),
    json.dumps(["a", "b", 1]),
    "# A model\n\nI am a model. (It is small.)\n",
    "Apache License\nVersion 2.0, January 2004\n",
    "0\n1\n2\n3\n",
    "(c) 2026 The authors.\n",
    "I\n",
    "].\n",
    "N.",
    "the\nof\nand\nto\n",
    "cat\ndog\nbird\n",
    "a b\nc d\n",
    "tt\nee\nss\n",
    "{% for m in messages %}{{ m.content }}{% endfor %}",
    "ï»¿text",
]


@pytest.mark.parametrize("text", TEXTS)
def test_texts_are_no_pickles(text: str) -> None:
    assert kind_of(text.encode()) == "text"


def compressed(name: str) -> bytes:
    data = b"weights" * 100
    match name:
        case "gzip":
            return gzip.compress(data)
        case "bzip2":
            return bz2.compress(data)
        case "xz":
            return lzma.compress(data)
        case _:
            buffer = io.BytesIO()
            with tarfile.open(fileobj=buffer, mode="w") as archive:
                info = tarfile.TarInfo("pickle")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
            return buffer.getvalue()


@pytest.mark.parametrize("name", ["gzip", "bzip2", "xz", "tar"])
def test_wrappers(name: str) -> None:
    assert kind_of(compressed(name)) == name


def test_zips() -> None:
    assert kind_of(torch_zip()) == "torch-zip"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.txt", "x")
    assert kind_of(buffer.getvalue()) == "zip"


def test_a_zip_glued_behind_a_model() -> None:
    assert kind_of(gguf_bytes() + torch_zip()) == "torch-zip"


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "empty"),
        (b"7z\xbc\xaf\x27\x1c" + b"\0" * 50, "7z"),
        (b"\x28\xb5\x2f\xfd" + b"\0" * 50, "zstd"),
        (b"\x89HDF\r\n\x1a\n" + b"\0" * 50, "hdf5"),
        (b"\x93NUMPY\x01\0", "numpy"),
        (b"\x08\x07\x12\x07pytorch\x1a\x032.1", "onnx"),
        (b"<!DOCTYPE html><html>login</html>", "html"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n", "lfs-pointer"),
        (os.urandom(8) + b"\xff\x00" * 40, "other"),
        (gguf_bytes(), "gguf"),
        (safetensors_bytes({"a": (2, 2)}), "safetensors"),
    ],
)
def test_other_kinds(content: bytes, kind: str) -> None:
    assert kind_of(content) == kind


def test_every_refusal_names_the_file_and_a_cure() -> None:
    for kind in ("pickle", "torch-zip", "zip", "tar", "gzip", "onnx", "hdf5", "html", "empty", "text", "other"):
        message = refusal("model.gguf", kind).message
        assert message.startswith("model.gguf is") and message.count(". ") >= 1


def test_a_pipe_or_folder_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(ModelRefused, match="not a regular file"):
            sniff(path)


@given(st.binary(max_size=300))
def test_any_bytes_have_a_kind(content: bytes) -> None:
    assert kind_of(content)
    assert looks_pickled(content, whole=True) in (True, False)


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=9) | st.floats(),
        lambda x: st.lists(x) | st.dictionaries(st.text(max_size=5), x),
        max_leaves=20,
    ),
    st.integers(0, 5),
)
def test_any_container_pickled(thing: Any, protocol: int) -> None:
    content = pickle.dumps([thing, "end"], protocol=protocol)
    assert looks_pickled(content, whole=True)
    assert looks_pickled(content + b"\0trailing", whole=True)
