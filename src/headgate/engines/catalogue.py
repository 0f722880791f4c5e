"""All engines by name, and which of them runs a version."""

from __future__ import annotations

from headgate.core.errors import ModelRefused
from headgate.core.model import Version
from headgate.engines.classic import Classic
from headgate.engines.engine import Engine
from headgate.engines.fake import Fake
from headgate.engines.http import HttpClient
from headgate.engines.llamacpp import LlamaCpp
from headgate.engines.remote import Remote
from headgate.engines.settings import EnginesSettings

_ENGINE_OF = {"gguf": "llamacpp", "classic": "classic", "fake": "fake", "endpoint": "remote"}


def build_engines(settings: EnginesSettings, client: HttpClient) -> dict[str, Engine]:
    """Every engine of this build by its name. They share `client`, which belongs to one event loop."""
    engines: tuple[Engine, ...] = (LlamaCpp(settings.llamacpp, client), Classic(client), Remote(client), Fake(client))
    return {engine.name: engine for engine in engines}


def choose_engine(engines: dict[str, Engine], version: Version, wanted: str = "auto") -> Engine:
    """The engine that runs `version`: the one `wanted` by name, or the one for its format when 'auto'.

    Raises ModelRefused when there is none by that name, or none for that format here yet.
    """
    if wanted != "auto":
        engine = engines.get(wanted)
        if engine is None:
            names = ", ".join(sorted(engines))
            raise ModelRefused(
                f"engine: there is no engine {wanted!r}. Choose auto or one of: {names}.", param="engine"
            )
        return engine
    name = _ENGINE_OF.get(version.format)
    if name is None or name not in engines:
        raise ModelRefused(
            f"{version.format}: this version is registered, but there is no engine for it here yet. Convert it to GGUF "
            "to serve it now.",
            param="engine",
        )
    return engines[name]
