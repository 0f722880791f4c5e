"""What can be refused before a model is awake: what certainly does not fit its context.

The exact count needs the model's tokenizer; these bounds never refuse what would fit.
"""

from __future__ import annotations

from typing import cast

from headgate.core.errors import ContextOverflow
from headgate.core.table import PipelineRoute

# The longest token of the common open vocabularies is a run of 128 spaces (Llama 3, Qwen 2.5); twice that is safe.
LONGEST_TOKEN_BYTES = 256

# Why a plain limit: some templates leave empty messages out, so no number of them certainly overflows a context. A turn
# of a real conversation takes some tens of tokens, so this many fill the largest contexts served.
MESSAGES_MAX = 4096


def check_messages(count: int, param: str) -> None:
    """Raise ContextOverflow when a conversation has more messages than any request may have.

    Why that error: its code is what clients know as the sign to leave out the oldest messages.
    """
    if count > MESSAGES_MAX:
        raise ContextOverflow(
            f"'{param}' holds {count} messages; at most {MESSAGES_MAX} in one request. Leave out the oldest, or join "
            "several into one.",
            param=param,
        )


def check_ids(asked: object, route: PipelineRoute, param: str, *, room: bool = True) -> None:
    """Raise ContextOverflow, before each is looked at, when one prompt of token ids has more than can fit."""
    if isinstance(asked, list):
        ids = cast("list[object]", asked)
        if ids and isinstance(ids[0], int):
            check_fits(route, 0, len(ids), None, param, room=room)


def check_fits(
    route: PipelineRoute,
    prompt_bytes: int,
    items: int,
    max_tokens: int | None,
    param: str,
    *,
    room: bool = True,
) -> None:
    """Raise ContextOverflow when a prompt of that many bytes in that many non-empty items cannot fit.

    `room` says that at least one token of the context must be left for an answer.
    """
    least = max(prompt_bytes // LONGEST_TOKEN_BYTES, items)
    limit = route.context - (1 if room else 0)
    if least > limit:
        raise ContextOverflow(
            f"'{param}' holds at least {least} tokens; pipeline '{route.name}' has a context of {route.context}. "
            "Send less text.",
            param=param,
        )
    if max_tokens is not None and max_tokens + items > route.context:
        raise ContextOverflow(
            f"'max_tokens' is {max_tokens}, but pipeline '{route.name}' has a context of {route.context} tokens for "
            "prompt and answer together. Lower max_tokens.",
            param="max_tokens",
        )


def text_bytes(text: str | None) -> int:
    """A lower bound of the UTF-8 length of `text`: its characters."""
    return len(text) if text else 0
