"""Traces with a row for each request: CSV with a header, or a JSON object on each line."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NoReturn, cast

import orjson

from headgate.evaluation.traces import Gathered, Reading, Rows, Trace

TIME = (
    "at", "timestamp", "timestamp_ms", "at_ms", "time", "arrived_at", "arrival", "arrival_time", "opened_at",
    "created", "created_at", "t_s",
)  # fmt: skip
PIPELINE = ("pipeline", "model", "job", "service", "deployment")
PROMPT = ("prompt_tokens", "input_tokens", "contexttokens", "context_tokens", "input_length", "num_prefill_tokens")
OUTPUT = (
    "output_tokens", "completion_tokens", "generatedtokens", "generated_tokens", "output_length", "num_decode_tokens",
)  # fmt: skip
SECONDS = ("seconds", "compute_s", "service_s", "work_s", "compute_ms", "service_ms")
ALL = "all"  # the pipeline of a trace that names none

_FIELDS = (TIME, PIPELINE, PROMPT, OUTPUT, SECONDS)
_TOLD = ("when", "pipeline", "prompt tokens", "output tokens", "seconds of work")
_LONGEST_NAME = 200
_EPOCHS = ((1e17, 1e-9), (1e14, 1e-6), (1e11, 1e-3))  # no clock of seconds counts that far in 3,000 years
_TIME_CURE = "Write seconds, or a time such as 2026-01-31T12:00:00Z."


class _Times:
    """Reads times; numbers are in the unit that the first of them tells by its size."""

    def __init__(self, rows: Rows, column: str, *, milliseconds: bool = False) -> None:
        self._rows = rows
        self._column = column
        self._unit: float | None = 1e-3 if milliseconds or column.endswith("_ms") else None

    def read(self, told: object) -> float:
        """Seconds of some clock."""
        if isinstance(told, str):
            return self._read_text(told.strip())
        if isinstance(told, (int, float)) and not isinstance(told, bool):
            return self._scale(float(told))
        self._refuse(told)

    def _read_text(self, text: str) -> float:
        try:
            return self._scale(float(text))
        except ValueError:
            pass
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            self._refuse(text)
        try:
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        except (OverflowError, ValueError):
            self._refuse(text)

    def _scale(self, number: float) -> float:
        if not math.isfinite(number) or abs(number) > 1e20:
            self._refuse(number)
        if self._unit is None:
            self._unit = next((unit for least, unit in _EPOCHS if abs(number) >= least), 1.0)
        return number * self._unit

    def _refuse(self, told: object) -> NoReturn:
        self._rows.refuse(f"{self._column} is {str(told)[:60]!r}", _TIME_CURE)


def load_csv(rows: Rows, header: Sequence[str], reading: Reading) -> Trace:
    """A trace with a row for each request. Raises BadRequest."""
    names = [one.strip() for one in header]
    lower = [one.lower() for one in names]
    found = [next((lower.index(one) for one in known if one in lower), None) for known in _FIELDS]
    when, who, *numbers = found
    if when is None:
        rows.refuse("no column says when requests came", f"Call it {TIME[1]}; known are {', '.join(TIME)}.")
    times = _Times(rows, names[when])
    gathered = Gathered(rows, reading.pipelines)
    to_seconds = 1e-3 if found[4] is not None and lower[found[4]].endswith("_ms") else 1.0
    for row in rows.cells(len(names)):
        prompt, output, seconds = (
            math.nan if number is None else rows.count(row[number].strip(), names[number]) for number in numbers
        )
        pipeline = ALL if who is None else _name(rows, row[who].strip(), names[who])
        gathered.add(pipeline, times.read(row[when]), prompt, output, seconds * to_seconds)
    read = [f"{names[number]} as {what}" for number, what in zip(found, _TOLD, strict=True) if number is not None]
    return gathered.build("requests", [f"read {', '.join(read)}"])


def load_lines(rows: Rows, first: str, reading: Reading) -> Trace:
    """A trace with a JSON object on each line; what OpenAI's API nests is found too. Raises BadRequest."""
    gathered = Gathered(rows, reading.pipelines)
    told = _object(rows, first)
    when = next((one for one in TIME if one in told), None)
    if when is None:
        rows.refuse("no field says when the request came", f"Call it {TIME[1]}; known are {', '.join(TIME)}.")
    # Source: github.com/kvcache-ai/Mooncake, whose traces count milliseconds and have hash_ids.
    times = _Times(rows, when, milliseconds="hash_ids" in told)
    while True:
        if when not in told:
            rows.refuse(f"there is no {when}", "Every line must have it.")
        pipeline = _name(rows, _text(rows, told, PIPELINE), "pipeline")
        prompt, output, seconds = (_number(rows, told, known) for known in (PROMPT, OUTPUT, SECONDS))
        gathered.add(pipeline, times.read(told[when]), prompt, output, seconds)
        line = next(rows.lines, None)
        if line is None:
            break
        told = _object(rows, line)
    return gathered.build("lines", [f"read {when} as when"])


def _object(rows: Rows, line: str) -> dict[str, Any]:
    """The line's fields, with those of `response`, its `body` and `usage` beside them."""
    try:
        value: object = orjson.loads(line)
    except orjson.JSONDecodeError:
        rows.refuse("it is not JSON", "Write one object on each line.")
    if not isinstance(value, dict):
        rows.refuse("it is not a JSON object", 'Write one on each line, such as {"timestamp": 0.5, "pipeline": "a"}.')
    told = cast("dict[str, Any]", value)
    for key in ("request", "response", "body", "usage"):
        inner: object = told.get(key)
        if isinstance(inner, dict):
            told = cast("dict[str, Any]", inner) | told
    return told


def _text(rows: Rows, told: Mapping[str, Any], known: Sequence[str]) -> str:
    key = next((one for one in known if told.get(one) is not None), None)
    if key is None:
        return ALL
    value: object = told[key]
    if not isinstance(value, (str, int)):
        rows.refuse(f"{key} is not text", "Write the pipeline's name.")
    return str(value)


def _number(rows: Rows, told: Mapping[str, Any], known: Sequence[str]) -> float:
    key = next((one for one in known if told.get(one) is not None), None)
    if key is None:
        return math.nan
    value: object = told[key]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        rows.refuse(f"{key} is not a number", "Write a number, or leave the field out.")
    return rows.count(str(value), key) * (1e-3 if key.endswith("_ms") else 1.0)


def _name(rows: Rows, text: str, field: str) -> str:
    if not 0 < len(text) <= _LONGEST_NAME:
        rows.refuse(f"{field} is {text[:60]!r}", f"Write a name of 1 to {_LONGEST_NAME} characters.")
    return text
