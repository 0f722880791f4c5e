"""Where a model may come from, as one line of text. Parses only; fetching is fetch's part.

/path/to/model.gguf  ./folder  hf:owner/repo[@revision]/file  https://host/file[#sha256=<hex>]  bundled:NAME
fake:[key=value&...]  endpoint:https://host/v1
"""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from headgate.core.errors import ModelRefused
from headgate.registry.settings import SourceKind

_HUB = re.compile(r"([\w.-]{1,96})/([\w.-]{1,96}?)(?:@([^/]{1,200}))?/(.{1,500})")
_KEY = re.compile(r"[a-z][a-z0-9_]{0,40}")
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+):")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalSource:
    """A file or folder on this machine."""

    path: Path
    kind: SourceKind = "local"


@dataclass(frozen=True, slots=True, kw_only=True)
class HubSource:
    """One file of a repository on the Hugging Face hub; `revision` is a branch, tag or commit (None: the default)."""

    owner: str
    repo: str
    revision: str | None
    file: str
    kind: SourceKind = "hf"


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSource:
    """One file behind a URL, its SHA-256 when the user pinned it."""

    url: str = field(repr=False)  # a signed link is a secret
    sha256: str | None
    kind: SourceKind = "https"


@dataclass(frozen=True, slots=True, kw_only=True)
class BundledSource:
    """A model that comes with Headgate."""

    name: str
    kind: SourceKind = "bundled"


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeSource:
    """No bytes at all: a version of the fake engine."""

    settings: dict[str, str]
    kind: SourceKind = "fake"


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSource:
    """An OpenAI-compatible server elsewhere. Requests to it leave the walls."""

    url: str
    kind: SourceKind = "endpoint"


Source = LocalSource | HubSource | WebSource | BundledSource | FakeSource | EndpointSource


def parse_source(text: str) -> Source:
    """The source that `text` names. Raises ModelRefused naming the forms when it is none."""
    text = text.strip()
    if not text or "\0" in text or len(text) > 4096:
        raise _refuse("The source is empty or impossible.")
    scheme = _SCHEME.match(text)
    kind = scheme[1] if scheme else ""
    rest = text[len(kind) + 1 :]
    match kind:
        case "hf":
            return _hub(rest)
        case "https" | "http":
            return _web(text)
        case "bundled":
            if not re.fullmatch(r"[\w.-]{1,100}", rest):
                raise _refuse(f"{rest[:60]!r} is no name of a bundled model.")
            return BundledSource(name=rest)
        case "fake":
            return _fake(rest)
        case "endpoint":
            return _endpoint(rest)
        case "":
            return LocalSource(path=_path(text))
        case _ if os.path.lexists(text):  # a file whose name has a colon in it
            return LocalSource(path=Path(text))
        case _:
            raise _refuse(f"Sources of the kind {kind[:40]!r} are not known.")


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine itself, by name or address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def allows(names: tuple[str, ...], host: str) -> bool:
    """Whether `host` is one of `names`; '*.example.com' stands for every host below example.com."""
    return any(host.endswith(name[1:]) if name.startswith("*.") else host == name for name in names)


def shown(url: str) -> str:
    """`url` without user, query and fragment, which may hold secrets."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _path(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise _refuse(f"{text.split('/')[0][:60]} is the home of no user here.") from None


def _hub(rest: str) -> HubSource:
    match = _HUB.fullmatch(rest)
    if match is None or ".." in match[4].split("/"):
        raise _refuse("An hf: source names owner, repository and file.")
    revision = unquote(match[3]) if match[3] else None
    return HubSource(owner=match[1], repo=match[2], revision=revision, file=match[4])


def _web(text: str) -> WebSource:
    host = check_url(text)
    parts = urlsplit(text)
    if parts.scheme == "http" and not is_loopback(host):
        raise _refuse("Models are fetched over https only; plain http could be changed on its way.")
    pin = None
    if parts.fragment:
        key, _, value = parts.fragment.partition("=")
        pin = value.lower()
        if key != "sha256" or not _SHA256.fullmatch(pin):
            raise _refuse("The part behind '#' must be sha256= and 64 hexadecimal digits.")
    return WebSource(url=text.partition("#")[0], sha256=pin)


def check_url(url: str) -> str:
    """The host of an http(s) `url`. Raises ModelRefused when it is malformed or has a user or password in it."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host, parts = None, urlsplit("")
    plain = url.isascii() and url.isprintable() and " " not in url
    if parts.scheme not in ("http", "https") or not host or not plain:
        raise _refuse("The URL is malformed.")
    if parts.username is not None or parts.password is not None:
        raise _refuse("The URL has a user or password in it, which would be recorded.")
    return host.rstrip(".")


def _fake(rest: str) -> FakeSource:
    try:
        pairs = parse_qsl(rest, keep_blank_values=True, strict_parsing=True, max_num_fields=50) if rest else []
    except ValueError:
        raise _refuse("A fake: source has settings of the form key=value&key=value.") from None
    settings = dict(pairs)
    if len(settings) != len(pairs) or not all(_KEY.fullmatch(key) for key in settings):
        raise _refuse("A setting of the fake: source is malformed or stands in it twice.")
    return FakeSource(settings=settings)


def _endpoint(rest: str) -> EndpointSource:
    check_url(rest)
    if urlsplit(rest).query or urlsplit(rest).fragment:
        raise _refuse("An endpoint's URL ends with its path, such as https://host/v1.")
    return EndpointSource(url=rest.rstrip("/"))


def _refuse(why: str) -> ModelRefused:
    return ModelRefused(
        f"{why} Write a path, hf:owner/repo[@revision]/file, https://host/file, bundled:NAME, fake: or "
        "endpoint:https://host/v1.",
        param="source",
    )
