"""A trace: who was asked when, and for how much. Read from files that people have, whatever their columns are called.

Files are read row by row; what is kept is four numbers for each request. Knows nothing of replicas or policies.
"""

from __future__ import annotations

import csv
import gzip
import zlib
from array import array
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Any, Literal, NoReturn, cast

import numpy as np
import numpy.typing as npt

from headgate.allocation.arrays import Floats, Ints
from headgate.core.errors import BadRequest

Format = Literal["requests", "lines", "counts", "windows"]
FORMATS: dict[Format, str] = {
    "requests": "CSV, a row for each request: timestamp, and if known pipeline, prompt_tokens, output_tokens, seconds",
    "lines": "JSONL, the same in an object on each line; also logs of OpenAI's API",
    "counts": "CSV, a row for each minute and a column for each pipeline: how many requests came",
    "windows": "CSV of ServeGen: model, client, t_s, rate_rps, cv, dist, p1, p2",
}
MOST_REQUESTS = 20_000_000
MOST_PIPELINES = 10_000
_LONGEST_LINE = 1 << 20  # characters


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """The requests of one pipeline, in the order they came.

    All arrays are [request]: `at` seconds after the trace's beginning, tokens of prompt and output, `seconds` of work
    alone on a replica. What is not known of a request is NaN.
    """

    pipeline: str
    at: Floats
    prompt_tokens: Floats
    output_tokens: Floats
    seconds: Floats

    def take(self, chosen: Ints | npt.NDArray[np.bool_]) -> Stream:
        """The requests with these numbers, or where this mask is true."""
        return replace(
            self,
            at=self.at[chosen],
            prompt_tokens=self.prompt_tokens[chosen],
            output_tokens=self.output_tokens[chosen],
            seconds=self.seconds[chosen],
        )

    def facts(self, span_s: float) -> dict[str, Any]:
        """Name, count, requests a second (mean, and in the fullest minute), means of what is known; else None."""
        minutes = np.bincount((self.at // 60.0).astype(np.int64))
        return {
            "pipeline": self.pipeline,
            "requests": len(self.at),
            "rate_per_s": len(self.at) / span_s,
            "peak_per_s": float(minutes.max()) / min(60.0, span_s),
            "prompt_tokens": _mean(self.prompt_tokens),
            "output_tokens": _mean(self.output_tokens),
            "seconds": _mean(self.seconds),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """Requests of several pipelines over `span_s` seconds; `notes` say how the file was understood."""

    name: str
    format: Format
    streams: tuple[Stream, ...]
    span_s: float
    notes: tuple[str, ...] = ()

    @property
    def requests(self) -> int:
        """How many there are."""
        return sum(len(one.at) for one in self.streams)

    def between(self, begin_s: float, until_s: float | None) -> Trace:
        """The part of the trace from `begin_s` to `until_s`, which begins at 0 again. Raises BadRequest if empty."""
        end_s = self.span_s if until_s is None else min(until_s, self.span_s)
        if begin_s <= 0.0 and end_s >= self.span_s:
            return self
        cut = [one.take((one.at >= begin_s) & (one.at < end_s)) for one in self.streams]
        kept = tuple(replace(one, at=one.at - begin_s) for one in cut if len(one.at))
        if not kept:
            raise BadRequest(
                f"{self.name}: nothing comes from second {begin_s:g} to {end_s:g}; the trace lasts {self.span_s:g} s.",
                param="trace",
            )
        return replace(self, streams=kept, span_s=end_s - begin_s)

    def times(self, factor: float, seed: int) -> Trace:
        """The same with `factor` times the requests. What comes again comes at most half a minute away.

        Why not at the same moment: then two requests would come where one came, and not more often one.
        """
        if factor == 1.0:
            return self
        chance = np.random.default_rng([seed, 77])
        streams: list[Stream] = []
        for one in self.streams:
            copies = np.floor(factor + chance.random(len(one.at))).astype(np.int64)
            again = one.take(np.repeat(np.arange(len(one.at)), copies))
            first = np.zeros(len(again.at), bool)
            first[(np.cumsum(copies) - copies)[copies > 0]] = True
            moved = again.at + np.where(first, 0.0, chance.uniform(-30.0, 30.0, len(again.at)))
            again = replace(again, at=np.clip(moved, 0.0, max(0.0, self.span_s - 1e-3)))
            streams.append(again.take(np.argsort(again.at, kind="stable")))
        note = f"load times {factor:g}: by chance with seed {seed}, what is added comes within 30 s of its model"
        return replace(self, streams=tuple(one for one in streams if len(one.at)), notes=(*self.notes, note))


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How a file is to be read. `pipelines`: only these; `seed` is of arrivals that a file tells only in sum;
    `step_s` how long a row of counts or windows lasts (60 and 600 unless it is said); `until_s` ends the reading of
    counts and windows, so that a long file need not be drawn whole.
    """

    format: Format | None = None
    pipelines: tuple[str, ...] = ()
    seed: int = 1
    step_s: float | None = None
    until_s: float | None = None


def load_trace(path: Path, reading: Reading | None = None) -> Trace:
    """The trace in `path`, a .csv or .jsonl file, which may end in .gz.

    Raises BadRequest naming file, line, field and cure.
    """
    from headgate.evaluation.trace_counts import load_counts, load_windows
    from headgate.evaluation.trace_rows import load_csv, load_lines

    how = reading or Reading()
    with open_rows(path) as rows:
        first = next(rows.lines, None)
        if first is None:
            rows.refuse("there is nothing in it", "Name another file.")
        form = how.format or _recognise(rows, first)
        if form == "lines":
            trace = load_lines(rows, first, how)
        else:
            header = next(csv.reader([first]))
            trace = {"requests": load_csv, "counts": load_counts, "windows": load_windows}[form](rows, header, how)
    if not trace.streams:
        rows.refuse("no request is in it" + (" for these pipelines" if how.pipelines else ""), "Name another file.")
    return trace


class Rows:
    """The lines of an open file, and how their faults are told."""

    def __init__(self, name: str, file: IO[str]) -> None:
        self.name = name
        self.number = 0
        self._file = file
        self.lines: Iterator[str] = self._read()

    def refuse(self, what: str, cure: str) -> NoReturn:
        """Raise BadRequest that names the file and the line."""
        where = f"{self.name}:{self.number}" if self.number else self.name
        raise BadRequest(f"{where}: {what}. {cure}", param="trace")

    def cells(self, width: int) -> Iterator[list[str]]:
        """The rows of a CSV file below its header, all as wide as that."""
        for row in csv.reader(self.lines):
            if not row:
                continue
            if len(row) != width:
                self.refuse(f"it has {len(row)} fields, the header has {width}", "Correct that line.")
            yield row

    def count(self, text: str, field: str) -> float:
        """A number that is not negative; NaN for an empty field."""
        if not text:
            return np.nan
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not 0.0 <= value < np.inf:
            self.refuse(f"{field} is {_shown(text)}", "Write a number from 0, or leave it empty where it is not known.")
        return value

    def _read(self) -> Iterator[str]:
        while line := self._file.readline(_LONGEST_LINE):
            self.number += 1
            if len(line) == _LONGEST_LINE:
                self.refuse(f"the line is longer than {_LONGEST_LINE} characters", "This is no trace.")
            if line.strip():
                yield line


@contextmanager
def open_rows(path: Path) -> Generator[Rows]:
    """The file's rows; faults of reading come out as BadRequest."""
    rows: Rows | None = None
    try:
        with path.open("rb") as file:
            plain = cast("IO[bytes]", gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file)
            # Why -sig: spreadsheets begin a file with a byte order mark.
            rows = Rows(str(path), TextIOWrapper(plain, encoding="utf-8-sig", newline=""))
            yield rows
    except UnicodeDecodeError:
        _refuse(rows, path, "it is not UTF-8 text", "Save it as UTF-8; a packed file must end in .gz.")
    except csv.Error as error:
        _refuse(rows, path, f"it is not CSV ({error})", "Correct that line, or name the right --format.")
    except (gzip.BadGzipFile, EOFError, zlib.error):
        _refuse(rows, path, "it is not a whole gzip file", "Fetch it again, or unpack it first.")
    except OSError as error:
        _refuse(None, path, f"it cannot be read ({error.strerror})", "Name another file with --trace.")


def _refuse(rows: Rows | None, path: Path, what: str, cure: str) -> NoReturn:
    where = f"{path}:{rows.number}" if rows and rows.number else str(path)
    raise BadRequest(f"{where}: {what}. {cure}", param="trace") from None


class Gathered:
    """Requests as they are read, by pipeline. Four packed numbers each."""

    def __init__(self, rows: Rows, wanted: Sequence[str]) -> None:
        self._rows = rows
        self._wanted = frozenset(wanted)
        self._columns: dict[str, tuple[array[float], ...]] = {}
        self._seen: set[str] = set()
        self._count = 0
        self._begin, self._end = np.inf, -np.inf  # of all pipelines, wanted or not: a trace keeps its clock

    def add(self, pipeline: str, at: float, prompt: float, output: float, seconds: float) -> None:
        """One request; `at` in seconds of any clock."""
        self._begin, self._end = min(self._begin, at), max(self._end, at)
        columns = self._columns.get(pipeline) or self._open(pipeline)
        if columns is not None:
            for column, value in zip(columns, (at, prompt, output, seconds), strict=True):
                column.append(value)
            self._add_count(1)

    def add_all(self, pipeline: str, at: Floats) -> None:
        """Requests, in order, of which only the moments are known. A pipeline gets all of its requests by one way."""
        if len(at):
            self._begin, self._end = min(self._begin, float(at[0])), max(self._end, float(at[-1]))
        columns = self._columns.get(pipeline) or self._open(pipeline)
        if columns is not None:
            columns[0].frombytes(at.tobytes())
            self._add_count(len(at))

    def build(self, form: Format, notes: Sequence[str], *, begin: float | None = None, step_s: float = 1.0) -> Trace:
        """What was gathered, from `begin` or the first request on, to a whole number of `step_s`."""
        self._check_wanted()
        if not self._count:
            return Trace(name=self._rows.name, format=form, streams=(), span_s=0.0)
        taken = {
            name: [np.frombuffer(one, float) for one in columns]
            for name, columns in self._columns.items()
            if len(columns[0])
        }
        start = self._begin if begin is None else begin
        streams: list[Stream] = []
        for name in sorted(taken):
            at, *told = taken[name]
            order = np.argsort(at, kind="stable")
            prompt, output, seconds = (one if len(one) else np.full(len(at), np.nan) for one in told)
            streams.append(
                Stream(
                    pipeline=name,
                    at=at[order] - start,
                    prompt_tokens=prompt[order],
                    output_tokens=output[order],
                    seconds=seconds[order],
                )
            )
        span_s = step_s * (np.floor((self._end - start) / step_s) + 1.0)
        return Trace(
            name=self._rows.name, format=form, streams=tuple(streams), span_s=float(span_s), notes=tuple(notes)
        )

    def _open(self, pipeline: str) -> tuple[array[float], ...] | None:
        """Columns for a pipeline that was not seen before; None when it is not wanted."""
        self._seen.add(pipeline)
        if len(self._seen) > MOST_PIPELINES:
            self._rows.refuse(f"it names more than {MOST_PIPELINES:,} pipelines", "Is the right column called so?")
        if self._wanted and pipeline not in self._wanted:
            return None
        columns = self._columns[pipeline] = tuple(array("d") for _ in range(4))
        return columns

    def _add_count(self, count: int) -> None:
        self._count += count
        if self._count > MOST_REQUESTS:
            cure = "Read less of it: --until, --pipeline."
            self._rows.refuse(f"there are more than {MOST_REQUESTS:,} requests", cure)

    def _check_wanted(self) -> None:
        if missing := self._wanted - self._seen:
            known = ", ".join(sorted(self._seen)[:10]) or "none"
            self._rows.number = 0
            self._rows.refuse(f"it has no pipeline {', '.join(sorted(missing))}", f"It has: {known}.")


def _recognise(rows: Rows, first: str) -> Format:
    """The format that the first line tells."""
    from headgate.evaluation.trace_rows import TIME

    start = first.lstrip()
    if start.startswith("{"):
        return "lines"
    if start.startswith("["):
        rows.refuse("it begins with '['", "Write one JSON object on each line: `jq -c '.[]' FILE`.")
    names = [one.strip().lower() for one in next(csv.reader([first]))]
    if {"t_s", "rate_rps", "cv", "dist"} <= set(names):
        return "windows"
    if set(names) & set(TIME):
        return "requests"
    if all(names) and not any(_is_number(one) for one in names):
        return "counts"
    shown = _shown(first.strip()[:60])
    rows.refuse(
        f"the first line is {shown}, which is no header that is known",
        "Name the columns in it, such as timestamp,pipeline,seconds; or say --format.",
    )


def _mean(values: Floats) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
