"""Tells what a file is by its content, never by its name, and says why a file that is no model is refused."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Literal

from headgate.core.errors import ModelRefused
from headgate.registry.pickles import looks_pickled

Kind = Literal[
    "gguf",
    "safetensors",
    "pickle",
    "torch-zip",
    "zip",
    "tar",
    "gzip",
    "bzip2",
    "xz",
    "zstd",
    "7z",
    "onnx",
    "hdf5",
    "numpy",
    "html",
    "lfs-pointer",
    "empty",
    "text",
    "other",
]

HEAD_BYTES = 64 * 1024
_TAIL_BYTES = 65_557  # the longest end of a zip: its record of 22 bytes and a comment

_MAGICS: tuple[tuple[bytes, Kind], ...] = (
    (b"GGUF", "gguf"),
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"\x89HDF\r\n\x1a\n", "hdf5"),
    (b"\x93NUMPY", "numpy"),
    (b"version https://git-lfs.github.com/spec/", "lfs-pointer"),
)

PICKLES: frozenset[Kind] = frozenset({"pickle", "torch-zip"})
ARCHIVES: frozenset[Kind] = frozenset({"zip", "tar", "gzip", "bzip2", "xz", "zstd", "7z"})

_USE = "Use the model's GGUF file, or a folder with safetensors."
_REASONS: dict[Kind, str] = {
    "pickle": f"is a pickle (as in .bin, .pt, .pkl, .ckpt); loading one runs code that it carries. {_USE}",
    "torch-zip": f"is a PyTorch checkpoint, which has a pickle in it; loading one runs code that it carries. {_USE}",
    "zip": "is a zip archive. Unpack it and add the model in it.",
    "tar": "is a tar archive. Unpack it and add the model in it.",
    "gzip": "is compressed with gzip. Unpack it and add the model in it.",
    "bzip2": "is compressed with bzip2. Unpack it and add the model in it.",
    "xz": "is compressed with xz. Unpack it and add the model in it.",
    "zstd": "is compressed with zstd. Unpack it and add the model in it.",
    "7z": "is a 7z archive. Unpack it and add the model in it.",
    "onnx": f"is an ONNX model; no engine here runs it yet. {_USE}",
    "hdf5": f"is an HDF5 (Keras) file. {_USE}",
    "numpy": f"is a numpy array, not a model. {_USE}",
    "html": "is a web page, not a model; the link probably leads to a login or a description. Use the file's own link.",
    "lfs-pointer": "is a Git LFS pointer, not the model itself. Run `git lfs pull` where it lies, then add it again.",
    "empty": "is empty. Fetch it again.",
    "text": f"is a text, not a model. {_USE}",
    "other": f"is of no format that is known here. {_USE}",
}


def sniff(path: Path) -> Kind:
    """The format of the regular file at `path`, from its first and last bytes.

    Raises ModelRefused when it cannot be read or is no regular file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ModelRefused(
            f"{path.name} cannot be read: {error.strerror}. Check that it is there and readable."
        ) from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ModelRefused(f"{path.name} is not a regular file. Name a model file or a folder.")
        head = os.pread(descriptor, HEAD_BYTES, 0)
        tail = os.pread(descriptor, _TAIL_BYTES, max(0, status.st_size - _TAIL_BYTES))
        return sniff_bytes(head, tail, status.st_size)
    finally:
        os.close(descriptor)


def sniff_bytes(head: bytes, tail: bytes, size: int) -> Kind:
    """The format of `size` bytes that begin with `head` and end with `tail`."""
    if not head:
        return "empty"
    kind = _by_magic(head)
    if kind == "zip" or (kind in (None, "gguf") and _ends_as_zip(tail)):
        # Why the tail too: a zip is read from its end, so one may be glued behind a harmless beginning.
        return "torch-zip" if b"data.pkl" in head or b"data.pkl" in tail else "zip"
    if kind is not None:
        return kind
    if _begins_as_safetensors(head, size):
        return "safetensors"
    if looks_pickled(head, whole=len(head) == size):
        return "pickle"
    if head[257:262] == b"ustar":
        return "tar"
    if head[0] == 0x08 and b"\x00" < head[1:2] < b"\x20" and head[2:3] in (b"\x12", b"\x1a", b"\x22", b"\x3a"):
        return "onnx"
    start = head[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head")):
        return "html"
    return "text" if _is_text(head) else "other"


def refusal(name: str, kind: Kind) -> ModelRefused:
    """Why a file of this kind cannot be added as a model, with the cure."""
    return ModelRefused(f"{name} {_REASONS.get(kind, _REASONS['other'])}")


def _by_magic(head: bytes) -> Kind | None:
    return next((kind for magic, kind in _MAGICS if head.startswith(magic)), None)


def _ends_as_zip(tail: bytes) -> bool:
    """Whether a zip's end record closes exactly at the end; random weights do not do that."""
    at = tail.rfind(b"PK\x05\x06")
    return at >= 0 and len(tail) - at >= 22 and at + 22 + int.from_bytes(tail[at + 20 : at + 22], "little") == len(tail)


def _begins_as_safetensors(head: bytes, size: int) -> bool:
    length = int.from_bytes(head[:8], "little")
    return len(head) > 9 and head[8:9] == b"{" and 2 <= length <= max(size - 8, 2**27)


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:  # a character may be cut at the window's end
            return False
        text = head[: error.start].decode()
    return "\0" not in text
