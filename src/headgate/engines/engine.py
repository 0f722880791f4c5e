"""The one protocol of engines: how a version is started on this machine, and how its replica is spoken to.

An engine never decides where or when; it knows its own flags, its memory need and its dialect of the OpenAI wire.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from headgate.core.chat import Call, Delta, Kind
from headgate.core.model import Version
from headgate.core.secret import Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """How one model is to be run, from headgate.yaml. `context` is tokens per slot; `settings` are engine-specific."""

    context: int
    slots: int
    threads: int = 1
    gpu_layers: int = 0
    adapters: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class Knob:
    """One option whose best value depends on the machine: a field of ModelOptions, else one of its `settings`.

    `values` are worth trying, in order; `default` holds where the options say nothing. `effect` is what else another
    value changes: nothing, perhaps the answers, or how long a request may be.
    """

    name: str
    values: tuple[int | str, ...]
    default: int | str
    effect: Literal["none", "answers", "limits"] = "none"

    def read(self, options: ModelOptions) -> int | str:
        """The value that `options` give it."""
        if self.name in ModelOptions.__dataclass_fields__:
            return getattr(options, self.name)
        value: int | str | None = options.settings.get(self.name)
        return self.default if value is None else value

    def turn(self, options: ModelOptions, value: int | str) -> ModelOptions:
        """`options` with another value of it; what is the default anyway is left out of the settings."""
        if self.name in ModelOptions.__dataclass_fields__:
            return replace(options, **{self.name: value})
        kept = {name: other for name, other in options.settings.items() if name != self.name}
        return replace(options, settings=kept if value == self.default else kept | {self.name: value})


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """One replica to start: its version, options, where it listens and the secret it must demand of callers.

    `address` is 'unix:/path' or 'http://127.0.0.1:port'; '' for one that is not started here.
    """

    replica: str
    version: Version
    options: ModelOptions
    address: str
    secret: Secret = field(repr=False)

    @property
    def host(self) -> str:
        """What the replica binds: the path of its Unix socket, or 127.0.0.1."""
        return self.address.removeprefix("unix:") if self.port is None else "127.0.0.1"

    @property
    def port(self) -> int | None:
        """The loopback port it binds; None with a Unix socket."""
        return int(self.address.rpartition(":")[2]) if self.address.startswith("http://") else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A process to start: arguments, extra environment (secrets go here or on stdin, never in arguments)."""

    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    stdin: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Estimated peak resident bytes of one replica, by part. `device` is what it takes of a GPU's own memory beside."""

    weights: int
    kv_cache: int
    compute: int
    overhead: int
    device: int = 0

    @property
    def total(self) -> int:
        """Bytes of the machine's memory."""
        return self.weights + self.kv_cache + self.compute + self.overhead


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """A replica as its caller sees it: 'unix:/path' or 'http(s)://host[:port]/base', and the secret to present."""

    address: str
    secret: Secret = field(repr=False)
    model: str = ""


class Engine(Protocol):
    """One engine. Stateless: an instance holds settings only."""

    name: str
    leaves_walls: bool

    def check(self, version: Version, options: ModelOptions) -> None:
        """Return when this engine can run the version so; else raise ModelRefused with field and cure."""
        ...

    def supports(self, version: Version) -> frozenset[Kind]:
        """The kinds of call a replica of this version answers."""
        ...

    def honours(self, kind: Kind) -> frozenset[str]:
        """The fields of an OpenAI body of that kind that have an effect here; the engine sends no others on.

        The gateway names the rest in a warning header; it answers for model, stream, stream_options, n and user itself.
        """
        ...

    def estimate_memory(self, version: Version, options: ModelOptions) -> Memory:
        """Peak resident bytes of one replica, computed from the header, before anything is loaded."""
        ...

    def knobs(self, version: Version) -> tuple[Knob, ...]:
        """The options of this version that a machine's best may be looked for in, the most telling first."""
        ...

    def command(self, launch: Launch) -> Command | None:
        """The process that is this replica; None when there is none to start (remote)."""
        ...

    def upstream(self, launch: Launch) -> Upstream:
        """How the replica of `launch` is reached: its socket and secret, or what a remote version points at."""
        ...

    async def check_ready(self, upstream: Upstream, version: Version) -> None:
        """Return once the replica has produced a real token (or vector); raise UpstreamFailed while it cannot."""
        ...

    def stream(self, upstream: Upstream, call: Call, seed_offset: int = 0) -> AsyncGenerator[Delta, None]:
        """One attempt: the answer's pieces as they come (always streamed upstream, also for non-streaming clients).

        Closing the iterator closes the connection, which frees the replica's slot.
        Raises BadRequest when the engine finds the call invalid (context overflow after tokenising, say);
        UpstreamFailed when the replica breaks.
        """
        ...

    def resume(
        self, upstream: Upstream, call: Call, text: str, token_ids: tuple[int, ...]
    ) -> AsyncGenerator[Delta, None]:
        """Continue a greedy, plain answer after `text` (made of `token_ids` where known) without gap or repeat.

        Its usage has the prompt as it was asked and only the new tokens of the answer.
        Raises UpstreamFailed when it cannot be continued exactly.
        """
        ...
