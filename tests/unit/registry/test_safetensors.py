from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.helpers.model_files import safetensors_bytes

from headgate.core.errors import ModelRefused
from headgate.registry.safetensors import read_safetensors


def raw(table: Any, data: bytes = b"") -> bytes:
    text = table if isinstance(table, bytes) else json.dumps(table).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(begin: int, end: int, shape: Any = (1,), dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape) if isinstance(shape, tuple) else shape, "data_offsets": [begin, end]}


def test_a_good_file(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(safetensors_bytes({"a": (2, 3), "empty": (0,), "b": ()}, {"format": "pt"}))
    header = read_safetensors(path)
    assert {name: tensor.parameters for name, tensor in header.tensors.items()} == {"a": 6, "empty": 0, "b": 1}
    assert header.metadata == {"format": "pt"}


BAD = {
    "empty": b"",
    "no header": b"\0" * 8,
    "claims too much": struct.pack("<Q", 2**62) + b"{}",
    "claims more than there is": struct.pack("<Q", 500) + b"{}",
    "no json": raw(b"{nope}"),
    "a list": raw(b'{"a"'),
    "key twice": raw(b'{"a": {"dtype":"F32","shape":[],"data_offsets":[0,4]}, "a": 1}', b"1234"),
    "nan": raw(b'{"a": NaN}'),
    "deep": raw(b'{"a":' * 100_000),
    "not utf-8": raw(b'{"\xff": 1}'),
    "unknown type": raw({"a": entry(0, 4, dtype="F99")}, b"1234"),
    "wrong size": raw({"a": entry(0, 8)}, b"12345678"),
    "hole": raw({"a": entry(0, 4), "b": entry(8, 12)}, b"x" * 12),
    "overlap": raw({"a": entry(0, 4), "b": entry(2, 6)}, b"x" * 6),
    "cut off": raw({"a": entry(0, 4)}, b"12"),
    "bytes behind": raw({"a": entry(0, 4)}, b"123456"),
    "negative": raw({"a": entry(-4, 0)}, b"1234"),
    "shape of text": raw({"a": entry(0, 4, shape="1")}, b"1234"),
    "huge shape": raw({"a": entry(0, 4, shape=(2**60, 2**60))}, b"1234"),
    "boolean shape": raw({"a": entry(0, 4, shape=(True,))}, b"1234"),
    "extra field": raw({"a": entry(0, 4) | {"x": 1}}, b"1234"),
    "metadata no table": raw({"__metadata__": [1], "a": entry(0, 4)}, b"1234"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_refused_with_a_sentence(tmp_path: Path, case: str) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(BAD[case])
    with pytest.raises(ModelRefused) as caught:
        read_safetensors(path)
    assert caught.value.message.startswith("m.safetensors") and len(caught.value.message) < 400


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 180), new=st.binary(min_size=1, max_size=9), cut=st.one_of(st.none(), st.integers(0, 200)))
def test_any_change_of_a_good_file(tmp_path: Path, at: int, new: bytes, cut: int | None) -> None:
    content = bytearray(safetensors_bytes({"a": (2, 3), "b": (4,)}))
    content[at : at + len(new)] = new
    path = tmp_path / "m.safetensors"
    path.write_bytes(bytes(content[:cut]))
    try:
        read_safetensors(path)
    except ModelRefused as error:
        assert error.message
