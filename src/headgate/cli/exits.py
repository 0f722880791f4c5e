"""Exit codes. They are part of the interface: scripts may trust them, and they do not change."""

from __future__ import annotations

from headgate.core.errors import (
    AlreadyRunning,
    BadRequest,
    ConfigError,
    HeadgateError,
    ModelRefused,
    NotFound,
    NotRunning,
)

OK = 0
FAILURE = 1
BAD_INPUT = 2
NOT_RUNNING = 3
ALREADY_RUNNING = 4
MODEL_REFUSED = 5
NOT_FOUND = 6
INTERRUPTED = 130

MEANINGS = {
    OK: "all went well",
    FAILURE: "something failed; the message says what",
    BAD_INPUT: "an option, an argument or the configuration is not valid",
    NOT_RUNNING: "Headgate does not run on this state folder",
    ALREADY_RUNNING: "Headgate already runs on this state folder",
    MODEL_REFUSED: "a model was refused",
    NOT_FOUND: "there is no model, pipeline or key of that name",
    INTERRUPTED: "interrupted (Ctrl-C)",
}

_CODES: tuple[tuple[type[HeadgateError], int], ...] = (
    (NotRunning, NOT_RUNNING),
    (AlreadyRunning, ALREADY_RUNNING),
    (ModelRefused, MODEL_REFUSED),
    (NotFound, NOT_FOUND),
    (ConfigError, BAD_INPUT),
    (BadRequest, BAD_INPUT),
)


def exit_code(error: HeadgateError) -> int:
    """The exit code that tells `error`."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), FAILURE)
