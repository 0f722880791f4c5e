"""Errors in OpenAI's shape."""

from __future__ import annotations

import math
from typing import Any

import orjson

from headgate.core.errors import HeadgateError


def error_object(error: HeadgateError) -> dict[str, Any]:
    """The body of an error answer."""
    return {
        "error": {
            "message": error.message,
            "type": error.kind,
            "param": error.param,
            "code": error.code,
        }
    }


def error_bytes(error: HeadgateError) -> bytes:
    """The body of an error answer, encoded."""
    return orjson.dumps(error_object(error))


def retry_after(error: HeadgateError) -> str | None:
    """The Retry-After header's value: whole seconds, at least 1; None where a retry has no set time."""
    if error.retry_after_s is None:
        return "1" if error.status in (429, 503) else None
    return str(max(1, math.ceil(error.retry_after_s)))
