"""One request from accepted to settled: its ledger rows, its attempts, its continuation when a replica breaks.

Knows nothing of HTTP. A Passage is used once, by one task per choice:

    async with serving.passage(call, principal, stream=True) as passage:
        async for delta in passage.choice(0): ...
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any

from headgate.core.chat import Call, Delta, Kind
from headgate.core.clock import Clock
from headgate.core.errors import ClientGone, DeadlineExceeded, HeadgateError, SchemaViolation, UpstreamFailed
from headgate.core.principal import Principal
from headgate.core.table import PipelineRoute, ReplicaRoute
from headgate.core.usage import Usage
from headgate.engines.engine import Engine, Upstream
from headgate.metering.entries import RequestState
from headgate.metering.ledger import Ledger
from headgate.serving import schema
from headgate.serving.dispatch import Dispatcher, Lane, Lease
from headgate.serving.token_log import TokenLog

MAX_ATTEMPTS = 4
_CONTINUE_S = 30.0  # how long an answer that broke off waits at least for a replica that can continue it
_REPLAY_SEED_STEP = 7919  # seed offset of the second try at a schema, far from those of further choices


class Serving:
    """Everything a passage needs; one per gateway process."""

    def __init__(self, *, dispatcher: Dispatcher, engines: Mapping[str, Engine], ledger: Ledger, clock: Clock) -> None:
        self.dispatcher = dispatcher
        self.engines = engines
        self.ledger = ledger
        self.clock = clock

    def honours(self, route: PipelineRoute, kind: Kind) -> frozenset[str]:
        """The fields of a body that have an effect whoever answers for the pipeline."""
        honoured = self.engines[route.engine].honours(kind)
        for name in route.engines:
            if name != route.engine:
                honoured &= self.engines[name].honours(kind)
        return honoured

    def passage(self, calls: Sequence[Call], principal: Principal, *, stream: bool, request_id: str) -> Passage:
        """The way of one accepted request: calls of one kind to one pipeline, each with as many choices as the first.

        Raises ModelNotFound when the pipeline is gone.
        """
        return Passage(self, self.dispatcher.lane(calls[0].pipeline), calls, principal, stream, request_id)


class Passage:
    """One request under way. `route`, `queue_s`, `first_s` and `usage` fill in as it goes."""

    def __init__(
        self,
        serving: Serving,
        lane: Lane,
        calls: Sequence[Call],
        principal: Principal,
        stream: bool,
        request_id: str,
    ) -> None:
        self.serving = serving
        self.principal = principal
        self._lane = lane
        self._calls = calls
        self._stream = stream
        self._opened = serving.clock.monotonic()
        self._deadline = calls[0].deadline or self._opened + lane.route.timeout_s
        self.id = request_id
        self.route: ReplicaRoute | None = None
        self.queue_s = 0.0
        self.first_s: float | None = None
        self._said: dict[int, Usage] = {}  # by choice: what its delivered answer took
        self.attempts = 0
        self.continued = False
        self._task: asyncio.Task[Any] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._late = False

    async def __aenter__(self) -> Passage:
        self._lane.arrivals += 1
        self.serving.ledger.open_request(
            request_id=self.id,
            kind=self._calls[0].kind,
            pipeline=self._lane.route.name,
            principal=self.principal,
            stream=self._stream,
        )
        # Why not asyncio.timeout: it does the same with more work, and this is done for every request.
        self._task = asyncio.current_task()
        self._timer = asyncio.get_running_loop().call_later(max(0.0, self._deadline - self._opened), self._expire)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._timer is not None
        self._timer.cancel()
        if self._late and self._task is not None and self._task.uncancel() == 0:
            error = DeadlineExceeded()
            self._settle(error)
            raise error
        self._settle(error)

    def _expire(self) -> None:
        assert self._task is not None
        self._late = True
        self._task.cancel()

    def _settle(self, error: BaseException | None) -> None:
        state, status, code = _outcome(error)
        lane, usage = self._lane, self.usage
        lane.settled += 1
        lane.prompt_tokens += usage.prompt_tokens
        lane.output_tokens += usage.output_tokens
        lane.late += _is_late(self.first_s, self.total_s, status, lane.route.first_token_s)
        self.serving.ledger.settle_request(
            self.id,
            state=state,
            status=status,
            error_code=code,
            usage=usage,
            queue_ms=self.queue_s * 1e3,
            first_token_ms=None if self.first_s is None else self.first_s * 1e3,
            total_ms=self.total_s * 1e3,
            attempts=self.attempts,
        )

    @property
    def usage(self) -> Usage:
        """Tokens of the answer as its asker counts them: a prompt once, however many choices and attempts it took.

        What each attempt really took is in its own row of `calls`.
        """
        if len(self._said) == 1 and len(self._calls) == 1:
            return next(iter(self._said.values()))
        total = Usage()
        for number, call in enumerate(self._calls):
            first = number * call.choices
            said = [self._said[index] for index in range(first, first + call.choices) if index in self._said]
            if said:
                total += Usage(
                    prompt_tokens=max(one.prompt_tokens for one in said),
                    cached_tokens=max(one.cached_tokens for one in said),
                    output_tokens=sum(one.output_tokens for one in said),
                )
        return total

    @property
    def choices(self) -> int:
        """How many answers are asked for: calls times choices."""
        return len(self._calls) * self._calls[0].choices

    @property
    def total_s(self) -> float:
        """Seconds since the request was accepted."""
        return self.serving.clock.monotonic() - self._opened

    def choice(self, index: int) -> AsyncGenerator[Delta, None]:
        """The pieces of one answer, in order, checked before they are given where a schema binds them.

        Raises what ended it: BadRequest, Overloaded, Unavailable, DeadlineExceeded, SchemaViolation, UpstreamFailed.
        """
        call = self._calls[index // self._calls[0].choices]
        offset = index % call.choices
        strict_tools = any(tool["function"].get("strict") for tool in call.body.get("tools", ()))
        if call.schema is not None or "response_format" in call.body or strict_tools:
            return self._checked(call, index, offset)
        return self._carried(call, index, offset)

    async def _checked(self, call: Call, index: int, first_offset: int) -> AsyncGenerator[Delta, None]:
        """A whole answer, held until it is known to fit what was asked; one more try where chance may mend it."""
        again = () if call.body.get("temperature") == 0 else (first_offset + _REPLAY_SEED_STEP,)
        offsets = (first_offset, *again)
        for offset in offsets:
            deltas = [delta async for delta in self._carried(call, index, offset, held=True)]
            finish = next((delta.finish for delta in deltas if delta.finish), None)
            tool_calls = _merge_tool_calls(deltas)
            try:
                if tool_calls:
                    schema.check_tool_calls(call, tool_calls)
                else:
                    schema.check_answer(call, "".join(delta.text for delta in deltas), finish)
            except SchemaViolation:
                if offset == offsets[-1]:
                    raise
                continue
            self._note_first()
            for delta in deltas:
                yield delta
            return

    async def _carried(self, call: Call, index: int, offset: int, held: bool = False) -> AsyncGenerator[Delta, None]:
        """The pieces as they come, over as many attempts as it takes; nothing is given twice.

        `held` says that they are not given to the client yet.
        """
        log = TokenLog()
        self._said.pop(index, None)  # a first try that did not fit its schema was not delivered
        tries = 0
        excluded: frozenset[str] = frozenset()
        version: str | None = None
        while True:
            lease = await self._lease(excluded, version if log.delivered else None)
            version = lease.route.version
            self.attempts += 1
            tries += 1
            self.queue_s += lease.queue_s
            self.route = lease.route
            attempt = _Attempt(self, call, lease, index)
            try:
                async with aclosing(attempt.begin(log, offset)) as pieces:
                    async for delta in pieces:
                        if not attempt.count(delta):
                            continue
                        log.add(delta)
                        if self.first_s is None and not held:
                            self._note_first()
                        yield delta
                attempt.end(None)
                return
            except UpstreamFailed as error:
                attempt.end(error)
                lease.suspect()
                if log.finished:
                    return  # it broke after the last word: there is nothing to continue
                excluded |= {lease.route.id}
                if tries >= MAX_ATTEMPTS or not _may_go_on(call, log):
                    raise UpstreamFailed(
                        "The replica that answered this request failed and its answer cannot be continued exactly "
                        f"({error.code}). Send the request again."
                    ) from error
                self.continued = self.continued or log.delivered
                if error.code == "replica_failed" and len(excluded) >= len(self._lane.seats):
                    # It lives and said no: it may be asked again at once. For one that broke its successor is
                    # waited for; the dispatcher lets it be tried again when none has come for a while.
                    excluded = frozenset()
            except BaseException as error:
                attempt.end(error)
                raise

    async def _lease(self, excluded: frozenset[str], version: str | None) -> Lease:
        """A slot for the next attempt: with `version`, which began the answer, where one is given."""
        dispatcher, clock = self.serving.dispatcher, self.serving.clock
        if version is None:
            return await dispatcher.lease(self._lane, self._deadline, excluded)
        patience_s = _CONTINUE_S + 2 * self._lane.route.wake_s
        deadline = min(self._deadline, clock.monotonic() + patience_s)
        try:
            return await dispatcher.lease(self._lane, deadline, excluded, version)
        except DeadlineExceeded as error:
            if deadline == self._deadline:
                raise
            raise UpstreamFailed(
                "The replica that answered this request failed, and no other one of the same model version came to "
                "continue its answer. Send the request again."
            ) from error

    def _note_first(self) -> None:
        if self.first_s is None:
            self.first_s = self.total_s

    def add_usage(self, index: int, usage: Usage) -> None:
        """Count what an attempt at the answer `index` took. For _Attempt only."""
        before = self._said.get(index)
        if before is not None:  # continued: the same prompt, and what comes after what was said
            usage = Usage(
                prompt_tokens=max(before.prompt_tokens, usage.prompt_tokens),
                cached_tokens=max(before.cached_tokens, usage.cached_tokens),
                output_tokens=before.output_tokens + usage.output_tokens,
            )
        self._said[index] = usage


class _Attempt:
    """One attempt on one replica, with its row in `calls`: begun, fed with the pieces that come, ended once."""

    __slots__ = ("_call", "_call_id", "_index", "_lease", "_output", "_passage", "_prompt", "_started", "_told")

    def __init__(self, passage: Passage, call: Call, lease: Lease, index: int) -> None:
        self._passage = passage
        self._call = call
        self._lease = lease
        self._index = index
        self._started = passage.serving.clock.monotonic()
        self._told: Usage | None = None  # comes last; an attempt that breaks off before is counted by what it sent
        self._prompt = self._output = 0
        self._call_id = passage.serving.ledger.open_call(
            passage.id, kind=call.kind, principal=passage.principal, replica=lease.route, attempt=passage.attempts
        )

    def begin(self, log: TokenLog, offset: int) -> AsyncGenerator[Delta, None]:
        """Ask the replica for the answer, or for the rest of it where a part was delivered before."""
        route = self._lease.route
        engine = self._passage.serving.engines[route.engine]
        upstream = Upstream(address=route.address, secret=route.secret)
        if log.delivered:
            return engine.resume(upstream, self._call, log.text, tuple(log.token_ids))
        return engine.stream(upstream, self._call, offset)

    def count(self, delta: Delta) -> bool:
        """Count the tokens of a piece; whether it is a part of the answer."""
        if delta.progress is not None:
            self._prompt = delta.progress[0]
            return False
        if delta.usage is not None:
            self._told = delta.usage
        elif delta.token_ids:
            self._output += len(delta.token_ids)
        elif delta.text or delta.reasoning or delta.tool_calls:
            self._output += 1  # at least: pieces that came together are one
        return True

    def end(self, outcome: BaseException | None) -> None:
        """Give the slot back and settle the row; `outcome` is what ended the attempt, None when it is complete."""
        lease, serving = self._lease, self._passage.serving
        lease.release(completed=outcome is None)
        usage = self._told
        if usage is None:
            usage = Usage(prompt_tokens=self._prompt, output_tokens=self._output)
        self._passage.add_usage(self._index, usage)
        state, _, code = _outcome(outcome)
        serving.ledger.settle_call(
            self._call_id,
            state="error" if state == "refused" else state,
            error_code=code,
            usage=usage,
            queue_ms=lease.queue_s * 1e3,
            compute_ms=(serving.clock.monotonic() - self._started) * 1e3,
        )


def _may_go_on(call: Call, log: TokenLog) -> bool:
    """Whether another attempt can neither leave a gap nor repeat anything."""
    if not log.delivered:
        return True
    return log.resumable and call.greedy and call.plain and call.kind != "embedding"


def _outcome(error: BaseException | None) -> tuple[RequestState, int, str | None]:
    """State, HTTP status and error code of a ledger row, from what ended it."""
    if error is None:
        return "ok", 200, None
    if isinstance(error, ClientGone | asyncio.CancelledError | GeneratorExit):
        return "cancelled", ClientGone.status, ClientGone.code
    if isinstance(error, HeadgateError):
        return ("refused" if error.status in (400, 429, 503) else "error"), error.status, error.code
    return "error", 500, "internal_error"


def _is_late(first_s: float | None, total_s: float, status: int, first_token_s: float) -> bool:
    """Whether somebody waited longer than the SLO allows for a first token, or in vain."""
    if first_s is not None:
        return first_s > first_token_s
    if status == ClientGone.status:
        return total_s > first_token_s
    return status == 429 or status >= 500


def _merge_tool_calls(deltas: list[Delta]) -> list[dict[str, object]]:
    """Whole tool calls out of streamed pieces, by their index."""
    merged: dict[int, dict[str, object]] = {}
    for delta in deltas:
        for piece in delta.tool_calls or ():
            whole = merged.setdefault(piece.get("index", 0), {"function": {"name": "", "arguments": ""}})
            function, whole_function = piece.get("function", {}), whole["function"]
            assert isinstance(whole_function, dict)
            for field in ("name", "arguments"):
                whole_function[field] += function.get(field) or ""
            whole |= {key: value for key, value in piece.items() if key in ("id", "type")}
    return [merged[index] for index in sorted(merged)]
