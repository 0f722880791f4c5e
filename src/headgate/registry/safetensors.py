"""Reads the header of a safetensors file, trusting nothing in it. Owns one file; a folder of them is folder's part.

Source: https://huggingface.co/docs/safetensors (format section): 8 bytes of length, JSON, then the tensors' bytes
without holes or overlaps.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from headgate.core.errors import ModelRefused

MAX_HEADER_BYTES = 32 * 2**20  # the format allows 100 MB; the largest model known needs 5
MAX_TENSORS = 262_144
MAX_DIMENSIONS = 8

# Bits an element. Source: Dtype of the safetensors crate, September 2026.
_TYPE_BITS = {
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTensor:
    """One tensor: its shape (slowest dimension first), type and size in bytes."""

    shape: tuple[int, ...]
    type: str
    bytes: int

    @property
    def parameters(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class SafetensorsHeader:
    """Header of one safetensors file."""

    tensors: dict[str, StoredTensor]
    metadata: dict[str, str]
    file_bytes: int


def read_safetensors(path: Path) -> SafetensorsHeader:
    """The header of the safetensors file at `path`, checked against the file's size.

    Raises ModelRefused: not the format, damaged, hostile, or cut off by an interrupted download.
    """
    name = path.name
    try:
        with path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            prefix = file.read(8)
            length = int.from_bytes(prefix, "little")
            if len(prefix) < 8 or length < 2:
                raise _refuse(name, "it does not begin with a header's length")
            if length > MAX_HEADER_BYTES:
                raise _refuse(name, f"it claims a header of {length} bytes; at most {MAX_HEADER_BYTES} are allowed")
            if length > size - 8:
                raise ModelRefused(
                    f"{name} is cut off inside its header. The download was probably interrupted; fetch it again."
                )
            text = os.pread(file.fileno(), length, 8)
    except OSError as error:
        raise ModelRefused(f"{name} cannot be read: {error.strerror}. Check that it is there and readable.") from None
    if len(text) < length or text[:1] != b"{":
        raise _refuse(name, "its header is no JSON object")
    table = load_strict_json(text, name)
    if not isinstance(table, dict) or len(cast(dict[str, Any], table)) > MAX_TENSORS:
        raise _refuse(name, f"its header is no table of at most {MAX_TENSORS} tensors")
    return _parse(cast(dict[str, Any], table), size, size - 8 - length, name)


def load_strict_json(text: bytes, name: str) -> Any:
    """The JSON value in `text`; keys that stand twice, NaN, bad UTF-8 and endless nesting raise ModelRefused."""
    try:
        return json.loads(text.decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        why = "it nests too deeply" if isinstance(error, RecursionError) else str(error)[:120]
        raise ModelRefused(f"{name} is not valid: its JSON cannot be read ({why}). Fetch it again.") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a key stands in it twice")
    return table


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is no JSON number")


def _parse(table: dict[str, Any], size: int, data_bytes: int, name: str) -> SafetensorsHeader:
    metadata: Any = table.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict):
        raise _refuse(name, "its __metadata__ is no table")
    tensors: dict[str, StoredTensor] = {}
    spans: list[tuple[int, int, str]] = []
    for key, entry in table.items():
        tensor, begin = _tensor(key, entry, name)
        tensors[key] = tensor
        spans.append((begin, begin + tensor.bytes, key))
    end = 0
    for begin, stop, key in sorted(spans):
        if begin != end:
            raise _refuse(name, f"the bytes of tensor {key[:80]!r} leave a hole or overlap")
        end = stop
    if end > data_bytes:
        raise ModelRefused(
            f"{name} is cut off: its tensors need {end - data_bytes} bytes more than it has. "
            "The download was probably interrupted; fetch it again."
        )
    if end < data_bytes:
        raise _refuse(name, f"{data_bytes - end} bytes behind its tensors belong to none")
    words = {str(key): str(value) for key, value in cast(dict[str, Any], metadata).items()}
    return SafetensorsHeader(tensors=tensors, metadata=words, file_bytes=size)


def _tensor(key: str, entry: Any, name: str) -> tuple[StoredTensor, int]:
    if not isinstance(entry, dict) or set(cast(dict[str, Any], entry)) != {"dtype", "shape", "data_offsets"}:
        raise _refuse(name, f"tensor {key[:80]!r} is not described by dtype, shape and data_offsets")
    fields = cast(dict[str, Any], entry)
    shape, offsets, bits = fields["shape"], fields["data_offsets"], _TYPE_BITS.get(str(fields["dtype"]))
    if bits is None:
        raise _refuse(name, f"tensor {key[:80]!r} has the unknown type {str(fields['dtype'])[:40]!r}")
    if not _counts(shape, MAX_DIMENSIONS) or not _counts(offsets, 2) or len(offsets) != 2:
        raise _refuse(name, f"tensor {key[:80]!r} has an impossible shape or place")
    count = math.prod(cast(list[int], shape))
    if (count * bits) % 8 or offsets[1] - offsets[0] != count * bits // 8:
        raise _refuse(name, f"tensor {key[:80]!r} has {offsets[1] - offsets[0]} bytes, which do not fit its shape")
    return StoredTensor(shape=tuple(shape), type=str(fields["dtype"]), bytes=count * bits // 8), offsets[0]


def _counts(value: Any, most: int) -> bool:
    if not isinstance(value, list) or len(cast(list[Any], value)) > most:
        return False
    return all(type(item) is int and 0 <= item < 2**48 for item in cast(list[Any], value))


def _refuse(name: str, what: str) -> ModelRefused:
    return ModelRefused(f"{name} is not a valid safetensors file: {what}. Fetch it again or ask its publisher.")
