"""Asks a running Headgate over its admin socket, without a key: what the command line is a client of."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from types import TracebackType
from typing import Any, Self, cast

import orjson

from headgate.app.house import Places
from headgate.core import errors
from headgate.core.clock import Clock
from headgate.core.errors import HeadgateError, NotRunning, Unavailable, UpstreamFailed
from headgate.engines.http import HttpClient, HttpResponse
from headgate.engines.sse import EventSplitter
from headgate.workers.supervisor_state import SupervisorState, load_state

_HEADERS = (("Content-Type", "application/json"),)


def load_running(places: Places) -> SupervisorState:
    """The supervisor's account of itself. Raises NotRunning."""
    state = load_state(places.run / "supervisor.json")
    if state is None:
        raise NotRunning(f"Headgate does not run on {places.state}. `headgate up` starts it.")
    return state


def url_of(state: SupervisorState, *, tls: bool = False) -> str:
    """Where the door is, such as 'http://127.0.0.1:8080'."""
    return f"{'https' if tls else 'http'}://{state.listeners.get('gateway', '')}"


class LocalAdmin:
    """One user of the admin socket. An async context manager: leaving it closes its connections."""

    def __init__(self, places: Places, clock: Clock) -> None:
        self._places = places
        self._client = HttpClient(clock)
        self._address = f"unix:{places.admin_socket}"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.close()

    async def ask(self, method: str, path: str, body: object = None, *, patience_s: float | None = None) -> Any:
        """The answer's JSON; `patience_s` is how long it may take (ten minutes unless it is said).

        Raises NotRunning, Unavailable, or the error that was answered, as its class here.
        """
        data = b"" if body is None else orjson.dumps(body)
        request = self._client.request(method, self._address, path, _HEADERS, data, first_byte_s=patience_s)
        try:
            async with request as response:
                return await _read(response)
        except UpstreamFailed as error:
            raise self._explain(error) from error

    async def stream(self, path: str, body: object) -> AsyncGenerator[dict[str, Any], None]:
        """The events of a streamed answer. Raises as `ask`, also when an event says that the answer failed."""
        try:
            async with self._client.request("POST", self._address, path, _HEADERS, orjson.dumps(body)) as response:
                if response.status >= 400:
                    await _read(response)
                events = EventSplitter()
                async for chunk in response.chunks():
                    for data in events.feed(chunk):
                        event: dict[str, Any] = orjson.loads(data)
                        if "error" in event:
                            raise build_error(502, event)
                        yield event
        except UpstreamFailed as error:
            raise self._explain(error) from error

    def _explain(self, error: UpstreamFailed) -> HeadgateError:
        if not (error.code or "").startswith("replica_"):
            return error
        try:
            load_running(self._places)
        except NotRunning as absent:
            return absent
        if error.code == "replica_timeout":
            return Unavailable("Headgate runs but did not answer in time. Its logs are in the state folder.")
        return Unavailable("Headgate runs but its gateway does not answer now. Try again in a second.")


async def _read(response: HttpResponse) -> Any:
    data = await response.read()
    try:
        answer: Any = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise Unavailable(f"The gateway's answer is not JSON (status {response.status}).") from None
    if response.status >= 400:
        raise build_error(response.status, answer)
    return answer


def build_error(status: int, answer: Any) -> HeadgateError:
    """The error that an OpenAI-shaped answer tells, as the class it was raised as."""
    told = cast("dict[str, Any]", answer["error"]) if isinstance(answer, dict) and "error" in answer else {}
    code = str(told.get("code") or "")
    known = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, HeadgateError)]
    by_code = [kind for kind in known if "code" in vars(kind) and kind.code == code]
    by_status = [kind for kind in known if "status" in vars(kind) and kind.status == status]
    kind = (by_code or by_status or [HeadgateError])[0]
    return kind(str(told.get("message") or f"status {status}"), param=told.get("param"), code=code or None)
