"""docs/reference/errors.md: every error that a client or operator can meet."""

from __future__ import annotations

from collections.abc import Iterator

from headgate.core.errors import HeadgateError
from tools.reference.markdown import NOTE, code, sentence, table

_INTRO = """# Errors

Every error over HTTP has OpenAI's shape, and the message names the field and the cure:

```json
{"error": {"message": "...", "type": "invalid_request_error", "param": "max_tokens", "code": "invalid_request"}}
```

The `openai` clients turn the status into their own exceptions. *retry* says whether the same request may succeed
later; the answer then has `Retry-After`. Every answer, errors too, carries `x-request-id`, which is also the id of its
row in the ledger. An error inside a stream that has begun comes as a last `data:` event with the same object.
"""


def list_errors(base: type[HeadgateError] = HeadgateError) -> Iterator[type[HeadgateError]]:
    """`base` and every class below it in core/errors.py, the one tree that clients meet."""
    if base.__module__ == HeadgateError.__module__:
        yield base
    for child in base.__subclasses__():
        yield from list_errors(child)


def build_errors_page() -> str:
    """The page, by status and code."""
    known = set(list_errors())
    rows = [
        (
            str(error.status),
            code(error.code),
            code(error.kind),
            "yes" if error.retryable else "no",
            sentence(error.__doc__ or ""),
        )
        for error in sorted(known, key=lambda error: (error.status, error.code, error.__name__))
    ]
    return "\n".join((NOTE, _INTRO, table(("status", "code", "type", "retry", "message"), rows)))
