"""A State as plain JSON values and back, so that a recorded decision can be made again, byte for byte."""

from __future__ import annotations

import hashlib
import types
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import orjson

from headgate.allocation.state import Allocation, State

Value = TypeVar("Value")


def plain_state(state: State) -> dict[str, Any]:
    """`state` as dicts, lists, texts and numbers."""
    return _plain(state)


def plain_allocation(allocation: Allocation) -> dict[str, Any]:
    """`allocation` as dicts, lists, texts and numbers."""
    return _plain(allocation)


def seal_allocation(allocation: Allocation) -> str:
    """The SHA-256 of `allocation` as plain JSON: two that differ in one byte have different ones."""
    return hashlib.sha256(orjson.dumps(plain_allocation(allocation))).hexdigest()


def build_state(plain: dict[str, Any]) -> State:
    """The State that `plain_state` told. Raises ValueError when a field is missing or unknown."""
    try:
        return cast("State", _build(State, plain))
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"this is not a recorded state: {error}") from error


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {one.name: _plain(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, dict):
        # Why sorted: the same state is the same text, in whatever order its parts were learned.
        return {key: _plain(value[key]) for key in sorted(cast("dict[str, Any]", value))}
    if isinstance(value, (tuple, list)):
        return [_plain(one) for one in cast("list[Any]", value)]
    return value


def _build(kind: Any, plain: Any) -> Any:
    origin = get_origin(kind)
    if is_dataclass(kind):
        hints = _hints(kind)
        unknown = set(plain) - set(hints)
        if unknown:
            raise KeyError(f"unknown {', '.join(sorted(unknown))}")
        return cast("Any", kind)(**{name: _build(hints[name], told) for name, told in plain.items()})
    if origin is tuple:
        inner = get_args(kind)
        if len(inner) == 2 and inner[1] is Ellipsis:
            return tuple(_build(inner[0], one) for one in plain)
        return tuple(_build(one_kind, one) for one_kind, one in zip(inner, plain, strict=True))
    if origin in (Union, types.UnionType):
        inner = next((one for one in get_args(kind) if is_dataclass(one)), None)
        return plain if inner is None or plain is None else _build(inner, plain)
    if origin is not None and origin is not Literal:
        return {key: _build(get_args(kind)[1], one) for key, one in plain.items()}
    return plain


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)
