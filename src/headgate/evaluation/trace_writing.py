"""Traces written: the ledger's requests as CSV or JSONL, whole or not at all."""

from __future__ import annotations

import csv
import errno
import gzip
import json
import os
import tempfile
from collections.abc import Generator, Iterable
from contextlib import contextmanager, nullcontext, suppress
from io import TextIOWrapper
from pathlib import Path
from typing import IO, cast

from headgate.core.errors import BadRequest
from headgate.metering.history import PastRequest

COLUMNS = ("at", "pipeline", "prompt_tokens", "output_tokens", "seconds", "queue_s", "outcome")


def check_target(path: Path, *, force: bool) -> None:
    """Raises BadRequest when the file's name tells no format, or when it is there and may not be replaced."""
    _form(path)
    if path.exists() and not force:
        raise BadRequest(f"--out: {path} is there already. Name another file, or say --force.", param="out")


def write_trace(path: Path, rows: Iterable[PastRequest], *, force: bool = False) -> int:
    """Write one line for each request and return how many; a row is held at a time. No file is left when it fails.

    Raises BadRequest when the file cannot be written, is there already, or would hold nothing.
    """
    check_target(path, force=force)
    count = 0
    with _replacing(path, force) as file:
        as_csv = _form(path) == ".csv"
        writer = csv.writer(file, lineterminator="\n")
        if as_csv:
            writer.writerow(COLUMNS)
        for one in rows:
            values = (
                round(one.at, 3),
                one.pipeline,
                one.prompt_tokens,
                one.output_tokens,
                None if one.compute_s is None else round(one.compute_s, 4),
                None if one.queue_s is None else round(one.queue_s, 4),
                one.outcome,
            )
            if as_csv:
                writer.writerow(values)
            else:
                told = {name: value for name, value in zip(COLUMNS, values, strict=True) if value is not None}
                file.write(json.dumps(told, ensure_ascii=False) + "\n")
            count += 1
        if not count:
            raise BadRequest("Nothing was asked in that time; no trace was written. Choose another with --since.")
    return count


def _form(path: Path) -> str:
    plain = path.with_suffix("") if path.suffix == ".gz" else path
    if plain.suffix not in (".csv", ".jsonl"):
        raise BadRequest(f"--out: {path} must end in .csv or .jsonl, and then may end in .gz.", param="out")
    return plain.suffix


@contextmanager
def _replacing(path: Path, force: bool) -> Generator[IO[str]]:
    """A file beside `path` that takes its name at the end."""
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise BadRequest(f"--out: {path} cannot be written ({error.strerror}). Name another.", param="out") from None
    try:
        with os.fdopen(handle, "wb") as raw:
            packed = gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) if path.suffix == ".gz" else None
            with packed or nullcontext(raw) as plain:
                text = TextIOWrapper(cast("IO[bytes]", plain), encoding="utf-8", newline="")
                try:
                    yield text
                finally:
                    text.detach()
            raw.flush()
            os.fsync(raw.fileno())
        _name(Path(name), path, force)
    except OSError as error:
        raise BadRequest(f"--out: {path} cannot be written ({error.strerror}). Name another.", param="out") from None
    finally:
        with suppress(OSError):
            os.unlink(name)  # noqa: PTH108


def _name(written: Path, path: Path, force: bool) -> None:
    if force:
        written.replace(path)
        return
    try:
        path.hardlink_to(written)  # Why not a rename: it would replace what somebody else wrote meanwhile.
    except FileExistsError:
        check_target(path, force=False)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK):
            raise
        written.replace(path)  # a file system without links
