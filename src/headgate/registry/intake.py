"""Judges what was fetched: format, header, template, licence. What passes is a Version that still lies in staging.

Says nothing of names and keeps nothing; the catalogue does both, after the smoke inference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from headgate.core.errors import ModelRefused
from headgate.core.model import HeaderFacts, Version
from headgate.registry.fetch import Fetched
from headgate.registry.folder import describe_folder
from headgate.registry.gguf import GgufHeader, read_gguf
from headgate.registry.gguf_facts import GgufFacts, adapter_architecture, describe_gguf, split_of
from headgate.registry.safetensors import read_safetensors
from headgate.registry.settings import RegistrySettings
from headgate.registry.sniff import refusal, sniff
from headgate.registry.sources import EndpointSource, FakeSource, allows, check_url, is_loopback
from headgate.registry.staging import Staging, canonical_json, digest_of, manifest_of
from headgate.registry.templates import check_template

Smoke = Callable[[Version], None]
"""Runs one small real inference of a version in a child process; returns when it worked, raises ModelRefused.

`version.path` may lie in staging: it is valid during the call only, and must not be kept. It is called for every
format that an engine runs ('gguf', 'classic', 'fake', 'endpoint'), after the header was read and before anything is
kept; whatever else it raises also refuses the model and leaves nothing behind.
"""

FAKE_CONTEXT = 4096


class SmokeDouble:
    """A Smoke for tests: remembers what it was asked, and refuses when told to."""

    def __init__(self, refusal: ModelRefused | None = None) -> None:
        self.refusal = refusal
        self.seen: list[Version] = []

    def __call__(self, version: Version) -> None:
        self.seen.append(version)
        if self.refusal is not None:
            raise self.refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A version that has passed; `main` is the file in the folder that an engine opens ('' for the folder itself)."""

    version: Version
    fetched: Fetched | None = None
    main: str = ""


def judge(fetched: Fetched, staging: Staging, *, licence: str | None = None) -> Candidate:
    """The version that the fetched bytes are. `licence` is what the user says, and wins over the header.

    Raises ModelRefused: not a model, damaged, hostile, or incomplete.
    """
    if not fetched.is_folder:
        return _judge_file(fetched, licence)
    split = fetched.files[0].name.endswith(".gguf")
    for file in fetched.files:
        kind = sniff(file.path)  # the copies: what lay at the source may have changed since it was looked at
        if file.name.endswith((".gguf", ".safetensors")) and kind != file.name.rpartition(".")[2]:
            raise refusal(file.name, kind)
        if kind in ("pickle", "torch-zip"):
            raise refusal(file.name, kind)
    digest = digest_of(manifest_of(fetched.files))
    root = staging.folder / "files"
    if split:
        facts = _describe_split(fetched)
        version = _from_gguf(facts, fetched, digest, str(fetched.files[0].path), licence)
        return Candidate(version=version, fetched=fetched, main=fetched.files[0].name)
    told = describe_folder(root)
    version = Version(
        digest=digest,
        format=told.format,
        task=told.task,
        architecture=told.architecture,
        parameters=told.parameters,
        context=told.context,
        bytes=sum(file.bytes for file in fetched.files),
        path=str(root),
        chat_template=told.chat_template,
        licence=licence or told.licence or fetched.licence,
        origin=fetched.origin,
        header=told.header,
    )
    return Candidate(version=version, fetched=fetched)


def judge_fake(source: FakeSource) -> Candidate:
    """A version of the fake engine: no bytes; its digest is that of its canonical settings.

    `task` and `context` (tokens) of the source are the version's; all other settings are the engine's to read.
    """
    task, context = source.settings.get("task", "generate"), source.settings.get("context", str(FAKE_CONTEXT))
    if task not in ("generate", "embed", "classify"):
        raise ModelRefused("The fake: source has task generate, embed or classify.", param="source")
    if not context.isascii() or not context.isdigit() or not 1 <= int(context[:12]) <= 2**31:
        raise ModelRefused("The fake: source has a context that is no number of tokens.", param="source")
    settings = "&".join(f"{key}={value}" for key, value in sorted(source.settings.items()))
    version = Version(
        digest=digest_of(canonical_json({"format": "fake", "settings": source.settings})),
        format="fake",
        task=task,
        architecture="fake",
        parameters=None,
        context=int(context),
        bytes=0,
        path="",
        origin=f"fake:{settings}",
    )
    return Candidate(version=version)


def judge_endpoint(source: EndpointSource, settings: RegistrySettings, extra_hosts: tuple[str, ...]) -> Candidate:
    """A version that is a server elsewhere. Raises ModelRefused when its host is not named, or speaks plain http."""
    host = check_url(source.url)
    if not is_loopback(host):
        named = (*settings.allowed_hosts, *settings.plain_http_hosts, *extra_hosts)
        if not allows(named, host):
            raise ModelRefused(
                f"The host {host} is not named in the configuration, and prompts would be sent there. "
                "Add it to registry.allowed_hosts in headgate.yaml.",
                param="source",
            )
        if source.url.startswith("http:") and not allows(settings.plain_http_hosts, host):
            raise ModelRefused(
                f"Prompts would go to {host} unencrypted. Use https, or add the host to registry.plain_http_hosts.",
                param="source",
            )
    version = Version(
        digest=digest_of(canonical_json({"format": "endpoint", "url": source.url})),
        format="endpoint",
        task="generate",
        architecture="endpoint",
        parameters=None,
        context=None,
        bytes=0,
        path="",
        origin=f"endpoint:{source.url}",
    )
    return Candidate(version=version)


def check_adapter(path: Path, version: Version) -> None:
    """Return when `path` is a whole LoRA adapter in GGUF for models like `version`. Raises ModelRefused."""
    kind = sniff(path)
    if kind != "gguf":
        raise refusal(path.name, kind)
    architecture = adapter_architecture(read_gguf(path))
    if version.format != "gguf" or architecture != version.architecture:
        raise ModelRefused(
            f"{path.name} is a LoRA adapter for {architecture} models, but the model is {version.architecture}. "
            "Take it out of the model's adapters.",
            param="adapters",
        )


def check_licence(licence: str | None, settings: RegistrySettings) -> None:
    """Return when a model of this licence may be taken. Raises ModelRefused naming the setting."""
    told = (licence or "").strip().lower()
    if told in {name.lower() for name in settings.licences_denied}:
        raise ModelRefused(f"The model's licence {told[:100]!r} is in registry.licences_denied.", param="licence")
    if settings.licences_allowed is not None and told not in {name.lower() for name in settings.licences_allowed}:
        said = f"licence {told[:100]!r} is" if told else "licence is unknown, so it is"
        raise ModelRefused(
            f"The model's {said} not in registry.licences_allowed. Add it there, or say the licence when you add the "
            "model.",
            param="licence",
        )


def check_chat_template(version: Version, *, now: float, timeout_s: float) -> None:
    """Return when the version has no chat template or a good one. Raises ModelRefused."""
    if version.chat_template is not None and version.format in ("gguf", "safetensors"):
        check_template(version.chat_template, now=now, timeout_s=timeout_s)


def _judge_file(fetched: Fetched, licence: str | None) -> Candidate:
    file = fetched.files[0]
    digest, path = f"sha256:{file.sha256}", file.path
    kind = sniff(path)
    if kind == "gguf":
        header = read_gguf(path)
        number, count = split_of(header)
        if count > 1:
            raise ModelRefused(
                f"This is part {number + 1} of {count} of a split model; the other parts are missing. Fetch all parts "
                "into one folder and add the folder.",
                param="source",
            )
        return Candidate(
            version=_from_gguf(describe_gguf(header), fetched, digest, str(path), licence), fetched=fetched
        )
    if kind != "safetensors":
        raise refusal(file.name, kind)
    tensors = read_safetensors(path)
    version = Version(
        digest=digest,
        format="safetensors",
        task="generate",
        architecture=tensors.metadata.get("architecture", "unknown")[:100],
        parameters=sum(tensor.parameters for tensor in tensors.tensors.values()),
        context=None,
        bytes=file.bytes,
        path=str(path),
        licence=licence or tensors.metadata.get("license", fetched.licence),
        origin=fetched.origin,
    )
    return Candidate(version=version, fetched=fetched)


def _describe_split(fetched: Fetched) -> GgufFacts:
    headers: list[GgufHeader] = [read_gguf(file.path) for file in fetched.files]
    for number, header in enumerate(headers):
        if split_of(header) != (number, len(headers)):
            raise ModelRefused(
                f"{fetched.files[number].name} is not part {number + 1} of {len(headers)}. Fetch it again."
            )
    told = headers[0].metadata.get("split.tensors.count")
    found = sum(len(header.tensors) for header in headers)
    if type(told) is int and told != found:
        raise ModelRefused(f"The split model has {found} tensors, but says that it has {told}. Fetch all parts again.")
    return describe_gguf(*headers)


def _from_gguf(facts: GgufFacts, fetched: Fetched, digest: str, path: str, licence: str | None) -> Version:
    return Version(
        digest=digest,
        format="gguf",
        task=facts.task,
        architecture=facts.architecture,
        parameters=facts.parameters,
        context=facts.context,
        bytes=sum(file.bytes for file in fetched.files),
        path=path,
        chat_template=facts.chat_template,
        licence=licence or facts.licence or fetched.licence,
        origin=fetched.origin,
        header=facts.header,
    )


def moved(version: Version, path: str) -> Version:
    """The same version with its bytes at another path."""
    return replace(version, path=path)


def header_from_row(value: dict[str, Any] | None) -> HeaderFacts | None:
    """Header facts from a JSON row; lists become tuples again."""
    if value is None:
        return None
    fields: dict[str, Any] = {
        key: tuple(cast(list[Any], item)) if isinstance(item, list) else item for key, item in value.items()
    }
    return HeaderFacts(**fields)
