"""Server-sent events, split from a stream of bytes as they come. Knows nothing of what the events say.

Source: WHATWG HTML, section 9.2.6 (interpreting an event stream).
"""

from __future__ import annotations

from headgate.core.errors import UpstreamFailed

EVENT_BYTES_MAX = 32 * 1024 * 1024


class EventSplitter:
    """Bytes in, payloads of `data` fields out. `done` is set once `[DONE]` came; nothing after it counts."""

    __slots__ = ("_lines", "_rest", "done")

    def __init__(self) -> None:
        self.done = False
        self._rest = b""
        self._lines: list[bytes] = []

    def feed(self, data: bytes) -> list[bytes]:
        """The payloads that `data` completes, in order. Raises UpstreamFailed when one event grows past 32 MiB."""
        if self.done:
            return []
        if not self._rest and not self._lines and data.startswith(b"data: ") and data.endswith(b"\n\n"):
            # The usual case: whole events of one line each. JSON never holds a raw line feed, so counting them
            # tells whether anything else (comments, other fields, several lines) is among them.
            events = data[6:-2].split(b"\n\ndata: ")
            if data.count(b"\n") == 2 * len(events) and b"\r" not in data:
                return self._until_done(events)
        return self._until_done(self._feed_lines(data))

    def _until_done(self, events: list[bytes]) -> list[bytes]:
        if events and events[-1] == b"[DONE]":  # almost always the last
            self.done = True
            events.pop()
        elif b"[DONE]" in events:
            self.done = True
            del events[events.index(b"[DONE]") :]
        return events

    def _feed_lines(self, data: bytes) -> list[bytes]:
        data = self._rest + data
        if len(data) > EVENT_BYTES_MAX:
            raise UpstreamFailed("The replica sent an event that is too large.", code="replica_broke")
        if b"\r" in data:
            held = b"\r" if data.endswith(b"\r") else b""  # its line feed may still come
            data = (data[: len(data) - len(held)]).replace(b"\r\n", b"\n").replace(b"\r", b"\n") + held
        *lines, self._rest = data.split(b"\n")
        events: list[bytes] = []
        for line in lines:
            if not line:
                if self._lines:
                    events.append(b"\n".join(self._lines))
                    self._lines = []
            elif line.startswith(b"data:"):
                self._lines.append(line[6:] if line.startswith(b"data: ") else line[5:])
            elif line == b"data":
                self._lines.append(b"")
        return events
