"""What of an answer has been delivered, and the token ids it was made of. Lives as long as its request, in memory."""

from __future__ import annotations

from headgate.core.chat import Delta


class TokenLog:
    """The delivered part of one answer, so that another replica can go on exactly where one broke off."""

    __slots__ = ("_parts", "delivered", "finished", "resumable", "token_ids")

    def __init__(self) -> None:
        self._parts: list[str] = []
        self.token_ids: list[int] = []
        self.delivered = False
        self.finished = False
        self.resumable = True

    def add(self, delta: Delta) -> None:
        """Note a piece that goes to the client."""
        if delta.text:
            self._parts.append(delta.text)
            self.delivered = True
        if delta.finish is not None:
            self.finished = True
        if delta.token_ids:
            self.token_ids.extend(delta.token_ids)
        if delta.tool_calls or delta.reasoning or delta.logprobs or delta.embeddings:
            # Why not resumable: a continuation yields plain text; these would break off or lose their numbering.
            self.delivered = True
            self.resumable = False

    @property
    def text(self) -> str:
        """The text delivered so far."""
        return "".join(self._parts)
