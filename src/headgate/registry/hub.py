"""Asks the Hugging Face hub what a file is: its commit, its SHA-256, its licence and where to fetch it.

huggingface_hub knows the hub's URLs, tokens and headers; the bytes are then fetched by download, because
huggingface_hub 2 throws a broken download away, and because only named hosts may be spoken to.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from headgate.core.errors import ModelRefused
from headgate.registry.download import Reach, Remote
from headgate.registry.sources import HubSource

DEFAULT_ENDPOINT = "https://huggingface.co"


@dataclass(frozen=True, slots=True, kw_only=True)
class HubFile:
    """One file of the hub at one commit. `remote` has its SHA-256 when the hub told it."""

    remote: Remote
    commit: str
    licence: str | None

    def origin(self, source: HubSource) -> str:
        return f"hf:{source.owner}/{source.repo}@{self.commit}/{source.file}"


def look_up(source: HubSource, reach: Reach, *, timeout_s: float) -> HubFile:
    """What the hub tells of `source`. Honours HF_ENDPOINT and HF_TOKEN.

    Raises ModelRefused: huggingface_hub is missing, the host is not named, no such repository, revision or file, no
    access, or (code 'source_unavailable') the hub cannot be reached.
    """
    hub = _load_hub()
    endpoint = (os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")
    reach.check(endpoint)
    repo = f"{source.owner}/{source.repo}"
    token = os.environ.get("HF_TOKEN") or None
    url = hub.hf_hub_url(repo, source.file, revision=source.revision, endpoint=endpoint)
    metadata: Any = _ask(
        hub,
        repo,
        lambda: hub.get_hf_file_metadata(
            url, token=token, timeout=timeout_s, endpoint=endpoint, library_name="headgate"
        ),
    )
    commit = metadata.commit_hash
    if not isinstance(commit, str) or not re.fullmatch(r"[0-9a-f]{40,64}", commit):
        raise ModelRefused(
            f"{endpoint} did not tell the commit of {repo}, so nothing can be pinned. Check HF_ENDPOINT."
        )
    etag = metadata.etag or ""
    sha256 = etag if re.fullmatch(r"[0-9a-f]{64}", etag) else None
    headers = hub.utils.build_hf_headers(token=token, library_name="headgate")
    remote = Remote(
        url=hub.hf_hub_url(repo, source.file, revision=commit, endpoint=endpoint),
        headers={name: value for name, value in headers.items() if name.lower() == "authorization"},
        sha256=sha256,
        bytes=metadata.size,
    )
    return HubFile(remote=remote, commit=commit, licence=_licence(hub, endpoint, repo, commit, token, timeout_s))


def _load_hub() -> Any:
    try:
        for part in ("errors", "utils"):
            import_module(f"huggingface_hub.{part}")
        return import_module("huggingface_hub")
    except ImportError:
        raise ModelRefused(
            "Models of the Hugging Face hub need one more package. Install it with: pip install 'headgate[hub]'",
            param="source",
        ) from None


def _ask(hub: Any, repo: str, question: Callable[[], Any]) -> Any:
    errors = hub.errors
    try:
        return question()
    except errors.GatedRepoError:
        why = f"{repo} is gated. Accept its terms on the hub, make a token there and set HF_TOKEN."
    except errors.RepositoryNotFoundError:
        why = f"There is no repository {repo}, or it is private. Check the name, or set HF_TOKEN."
    except errors.RevisionNotFoundError:
        why = f"{repo} has no such revision. Check the part behind '@'."
    except errors.EntryNotFoundError:
        why = f"{repo} has no such file at that revision. Check the part behind the repository."
    except errors.OfflineModeIsEnabled:
        why = "The hub may not be asked, because HF_HUB_OFFLINE is set. Unset it, or add the model from disk."
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        if status is None or status >= 500 or status == 429:
            raise _unreachable(f"it says {status}") from None
        why = f"The hub refuses {repo}: it says {status}. Check the name, and HF_TOKEN when it is private."
    except Exception as error:  # the client's HTTP library changes from one version to the next
        raise _unreachable(type(error).__name__) from None
    raise ModelRefused(why, param="source")


def _licence(hub: Any, endpoint: str, repo: str, commit: str, token: str | None, timeout_s: float) -> str | None:
    """The licence on the model's card; None when the hub does not tell."""
    try:
        info = hub.HfApi(endpoint=endpoint, token=token).model_info(repo, revision=commit, timeout=timeout_s)
        told = getattr(info.card_data, "license", None)
    except Exception:  # a courtesy: a model without a readable card is still a model
        return None
    return told[:200] if isinstance(told, str) else None


def _unreachable(why: str) -> ModelRefused:
    return ModelRefused(
        f"The Hugging Face hub could not be asked: {why}. Try again later, or add the model from disk.",
        code="source_unavailable",
        param="source",
    )
