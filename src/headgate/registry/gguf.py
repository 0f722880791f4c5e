"""Reads the header of a GGUF file, trusting nothing in it.

Owns the byte format only: metadata, tensor table, and that every tensor's data lies inside the file. What the
metadata means is gguf_facts' part. Reads with pread through a small window, so a file that shrinks meanwhile is an
error and never a signal, and a hostile length never becomes an allocation.

Source: the GGUF specification, https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (versions 2 and 3).
"""

from __future__ import annotations

import math
import os
import struct
from dataclasses import dataclass
from pathlib import Path

from headgate.core.errors import ModelRefused

MAGIC = b"GGUF"
MAX_HEADER_BYTES = 128 * 2**20  # the largest vocabularies in use need about 16 MiB
MAX_METADATA = 65_536
MAX_TENSORS = 262_144
MAX_DIMENSIONS = 4
MAX_NAME_BYTES = 256  # tensor names are at most 64 bytes by the specification
MAX_KEY_BYTES = 65_535
MAX_TEXT_BYTES = 2**20
MAX_ARRAY_TEXTS = 4_194_304
MAX_KEPT_ITEMS = 4_096
MAX_KEPT_BYTES = 32 * 2**20
MAX_ALIGNMENT = 2**20
MAX_NESTING = 3

# type id -> (name, elements a block, bytes a block). Source: ggml.h and ggml-common.h of llama.cpp, September 2026.
TENSOR_TYPES: dict[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    9: ("Q8_1", 32, 40),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36),
    41: ("Q1_0", 128, 18),
}

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_TEXT, _ARRAY = 8, 9


@dataclass(frozen=True, slots=True, kw_only=True)
class SkippedArray:
    """An array too long to keep, such as the vocabulary: only how many items it has."""

    count: int


Value = int | float | bool | str | tuple["Value", ...] | SkippedArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """One tensor of the table: shape as written (fastest dimension first), data as bytes from the data section."""

    name: str
    shape: tuple[int, ...]
    type: str
    offset: int
    bytes: int

    @property
    def parameters(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufHeader:
    """Header of one GGUF file. `data_start` and `file_bytes` are in bytes from the file's beginning."""

    version: int
    metadata: dict[str, Value]
    tensors: tuple[Tensor, ...]
    data_start: int
    file_bytes: int


def read_gguf(path: Path) -> GgufHeader:
    """The header of the GGUF file at `path`, checked against the file's size.

    Raises:
        ModelRefused: the file is no GGUF, or its header is damaged, hostile or of an unknown version; or tensors lie
            outside the file, as after an interrupted download.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise ModelRefused(
            f"{path.name} cannot be read: {error.strerror}. Check that it is there and readable."
        ) from None
    try:
        return _read(_Cursor(descriptor, os.fstat(descriptor).st_size, path.name))
    finally:
        os.close(descriptor)


def _read(cursor: _Cursor) -> GgufHeader:
    if cursor.take(4) != MAGIC:
        raise ModelRefused(f"{cursor.name} is not a GGUF file: it does not begin with 'GGUF'.")
    version = cursor.number("I")
    if version not in (2, 3):
        known = {1: "version 1, which is obsolete", 0x02000000: "big-endian", 0x03000000: "big-endian"}
        said = known.get(version, f"version {version}")
        raise ModelRefused(f"{cursor.name} is GGUF {said}. Convert it to GGUF version 3, little-endian.")
    tensor_count = cursor.count("Q", MAX_TENSORS, 24, "tensors")
    metadata_count = cursor.count("Q", MAX_METADATA, 13, "metadata entries")
    metadata: dict[str, Value] = {}
    for _ in range(metadata_count):
        key = cursor.text(MAX_KEY_BYTES, "a metadata key")
        if key in metadata:
            raise cursor.refuse(f"the metadata key {key[:80]!r} stands in it twice")
        metadata[key] = _value(cursor, cursor.number("I"), key, 0)
    alignment = metadata.get("general.alignment", 32)
    if type(alignment) is not int or not 8 <= alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
        raise cursor.refuse(f"general.alignment is {alignment!r}, not a power of two from 8 to {MAX_ALIGNMENT}")
    tensors = tuple(_tensor(cursor) for _ in range(tensor_count))
    data_start = -(-cursor.position // alignment) * alignment
    _check_tensors(cursor, tensors, data_start, alignment)
    return GgufHeader(
        version=version, metadata=metadata, tensors=tensors, data_start=data_start, file_bytes=cursor.size
    )


def _value(cursor: _Cursor, kind: int, key: str, depth: int) -> Value:
    if kind in _SCALARS:
        return cursor.scalar(_SCALARS[kind], key)
    if kind == _TEXT:
        return cursor.text(MAX_TEXT_BYTES, f"the value of {key[:80]!r}")
    if kind == _ARRAY:
        return _array(cursor, key, depth + 1)
    raise cursor.refuse(f"{key[:80]!r} has the unknown value type {kind}")


def _array(cursor: _Cursor, key: str, depth: int) -> Value:
    if depth > MAX_NESTING:
        raise cursor.refuse(f"{key[:80]!r} nests arrays more than {MAX_NESTING} deep")
    kind = cursor.number("I")
    if kind in _SCALARS:
        size = struct.calcsize("<" + _SCALARS[kind])
        count = cursor.count("Q", MAX_HEADER_BYTES, size, f"items of {key[:80]!r}")
        if count > MAX_KEPT_ITEMS or not cursor.may_keep(count * 8):
            cursor.skip(count * size)
            return SkippedArray(count=count)
        return tuple(cursor.scalar(_SCALARS[kind], key) for _ in range(count))
    if kind not in (_TEXT, _ARRAY):
        raise cursor.refuse(f"{key[:80]!r} is an array of the unknown type {kind}")
    count = cursor.count("Q", MAX_ARRAY_TEXTS, 8, f"items of {key[:80]!r}")
    if kind == _ARRAY:
        if count > MAX_KEPT_ITEMS:
            raise cursor.refuse(f"{key[:80]!r} is an array of {count} arrays")
        return tuple(_array(cursor, key, depth + 1) for _ in range(count))
    if count <= 64 and cursor.may_keep(0):
        return tuple(cursor.text(MAX_TEXT_BYTES, f"an item of {key[:80]!r}") for _ in range(count))
    cursor.skip_texts(count)
    return SkippedArray(count=count)


def _tensor(cursor: _Cursor) -> Tensor:
    name = cursor.text(MAX_NAME_BYTES, "a tensor's name")
    dimensions = cursor.number("I")
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        raise cursor.refuse(f"tensor {name!r} has {dimensions} dimensions, not 1 to {MAX_DIMENSIONS}")
    shape = tuple(cursor.number("Q") for _ in range(dimensions))
    kind, offset = cursor.number("I"), cursor.number("Q")
    if kind not in TENSOR_TYPES:
        raise cursor.refuse(
            f"tensor {name!r} has the unknown type {kind}; a newer quantisation than this version knows"
        )
    type_name, block, block_bytes = TENSOR_TYPES[kind]
    elements = math.prod(shape)
    if not 0 < elements < 2**63 or shape[0] % block:
        raise cursor.refuse(f"tensor {name!r} has the impossible shape {shape} for {type_name}")
    return Tensor(name=name, shape=shape, type=type_name, offset=offset, bytes=elements // block * block_bytes)


def _check_tensors(cursor: _Cursor, tensors: tuple[Tensor, ...], data_start: int, alignment: int) -> None:
    if len({tensor.name for tensor in tensors}) != len(tensors):
        raise cursor.refuse("two of its tensors have the same name")
    end = 0
    for tensor in sorted(tensors, key=lambda tensor: tensor.offset):
        if tensor.offset % alignment:
            raise cursor.refuse(f"tensor {tensor.name!r} does not begin on a multiple of {alignment} bytes")
        if tensor.offset < end:
            raise cursor.refuse(f"tensor {tensor.name!r} overlaps the one before it")
        end = tensor.offset + tensor.bytes
        if data_start + end > cursor.size:
            missing = data_start + end - cursor.size
            raise ModelRefused(
                f"{cursor.name} is cut off: tensor {tensor.name!r} ends {missing} bytes after the end of the file. "
                "The download was probably interrupted; fetch it again."
            )


class _Cursor:
    """Walks forward through a file by pread, refusing to leave it."""

    WINDOW_BYTES = 256 * 1024

    def __init__(self, descriptor: int, size: int, name: str) -> None:
        self.name, self.size, self.position = name, size, 0
        self._descriptor = descriptor
        self._window, self._window_start = b"", 0
        self._kept = 0

    def refuse(self, what: str) -> ModelRefused:
        return ModelRefused(f"{self.name} is not a valid GGUF file: {what}. Fetch it again or ask its publisher.")

    def take(self, count: int) -> bytes:
        start = self.position
        self.skip(count)
        low = start - self._window_start
        if low < 0 or low + count > len(self._window):
            wanted = min(max(count, self.WINDOW_BYTES), self.size - start)
            self._window, self._window_start, low = os.pread(self._descriptor, wanted, start), start, 0
            if len(self._window) < count:
                raise self.refuse(f"it became shorter while it was read, at byte {start}")
        return self._window[low : low + count]

    def skip(self, count: int) -> None:
        if count > self.size - self.position:
            raise ModelRefused(
                f"{self.name} is cut off: its header goes on after its last byte ({self.size}). "
                "The download was probably interrupted; fetch it again."
            )
        self.position += count
        if self.position > MAX_HEADER_BYTES:
            raise self.refuse(f"its header is longer than {MAX_HEADER_BYTES} bytes")

    def skip_texts(self, count: int) -> None:
        """Skip texts that each begin with their length. Its own loop: vocabularies have half a million."""
        length_at = struct.Struct("<Q").unpack_from
        while count:
            window = os.pread(self._descriptor, self.WINDOW_BYTES, self.position)
            at, last = 0, len(window) - 8
            while count and at <= last:
                at += 8 + length_at(window, at)[0]
                count -= 1
            self.skip(at or 8)

    def number(self, code: str) -> int:
        return struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))[0]

    def scalar(self, code: str, key: str) -> int | float | bool:
        if code == "?":
            byte = self.take(1)
            if byte not in (b"\0", b"\1"):
                raise self.refuse(f"{key[:80]!r} is a boolean that is neither 0 nor 1")
            return byte == b"\1"
        return struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))[0]

    def count(self, code: str, most: int, least_bytes: int, what: str) -> int:
        """A count of things that each need `least_bytes` or more, so that it can be checked before any is read."""
        count = self.number(code)
        if count > most or count * least_bytes > self.size - self.position:
            raise self.refuse(f"it claims {count} {what}, more than {'allowed' if count > most else 'fit in it'}")
        return count

    def may_keep(self, count: int) -> bool:
        self._kept += count
        return self._kept <= MAX_KEPT_BYTES

    def text(self, most: int, what: str) -> str:
        length = self.number("Q")
        if length > most:
            raise self.refuse(f"{what} claims {length} bytes; at most {most} are allowed")
        if not self.may_keep(length):
            raise self.refuse(f"its texts are longer than {MAX_KEPT_BYTES} bytes together")
        try:
            return self.take(length).decode()
        except UnicodeDecodeError:
            raise self.refuse(f"{what} is not UTF-8") from None
