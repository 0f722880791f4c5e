"""Sends a planned load over real HTTP and measures each answer. Open loop: no answer is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import orjson

from headgate.core.clock import Clock
from headgate.core.errors import HeadgateError
from headgate.core.secret import Secret
from headgate.engines.http import HttpClient
from headgate.engines.sse import EventSplitter
from headgate.evaluation.burst import Arrival
from headgate.evaluation.samples import Sample

Ask = Callable[[Arrival, float], Awaitable[Sample]]
"""Sends one arrival's request; the second argument is when the load began (monotonic seconds). Never raises."""


async def drive(arrivals: Sequence[Arrival], ask: Ask, clock: Clock, on_sample: Callable[[Sample], None]) -> None:
    """Send each arrival at its time, and return when the last answer has ended."""
    began = clock.monotonic()

    async def send(arrival: Arrival) -> None:
        on_sample(await ask(arrival, began))

    async with asyncio.TaskGroup() as group:
        for arrival in arrivals:
            wait_s = began + arrival.at_s - clock.monotonic()
            if wait_s > 0:
                await clock.sleep(wait_s)
            group.create_task(send(arrival))


class ChatProbe:
    """Asks pipelines for streamed chat answers. `body` makes an arrival's request, all but model and stream."""

    def __init__(
        self, client: HttpClient, url: str, key: Secret, clock: Clock, body: Callable[[Arrival], dict[str, Any]]
    ) -> None:
        self._client = client
        self._url = url
        self._clock = clock
        self._body = body
        self._headers = (("Authorization", f"Bearer {key.reveal()}"), ("Content-Type", "application/json"))
        self.in_flight = 0

    async def __call__(self, arrival: Arrival, began: float) -> Sample:
        """Send one request and read its whole answer."""
        body = {"model": arrival.pipeline, "stream": True, "stream_options": {"include_usage": True}}
        data = orjson.dumps(body | self._body(arrival))
        start_s = self._clock.monotonic() - began
        seen = _Seen()
        self.in_flight += 1
        try:
            request = self._client.request("POST", self._url, "/v1/chat/completions", self._headers, data)
            async with request as response:
                seen.status = response.status
                if response.status != 200:
                    seen.failure = _code(await response.read())
                else:
                    events = EventSplitter()
                    async for chunk in response.chunks():
                        for event in events.feed(chunk):
                            seen.take(orjson.loads(event), self._clock.monotonic() - began)
                    if not events.done and seen.failure is None:
                        seen.failure = "cut_off"
        except HeadgateError as error:
            seen.failure = error.code
        except (OSError, ValueError) as error:
            seen.failure = type(error).__name__
        finally:
            self.in_flight -= 1
        return Sample(
            number=arrival.number,
            pipeline=arrival.pipeline,
            start_s=start_s,
            first_s=seen.first_s,
            end_s=self._clock.monotonic() - began,
            tokens=seen.tokens,
            status=seen.status,
            failure=seen.failure,
        )


class _Seen:
    """What came of one answer so far."""

    def __init__(self) -> None:
        self.first_s: float | None = None
        self.tokens = 0
        self.status: int | None = None
        self.failure: str | None = None

    def take(self, event: dict[str, Any], now_s: float) -> None:
        if "error" in event:
            self.failure = str(event["error"].get("code"))
        if usage := event.get("usage"):
            self.tokens = usage.get("completion_tokens", 0)
        if self.first_s is None and any(choice["delta"].get("content") for choice in event.get("choices") or ()):
            self.first_s = now_s


def _code(data: bytes) -> str:
    try:
        return str(orjson.loads(data)["error"]["code"])
    except (ValueError, KeyError, TypeError):
        return "no_openai_error"
