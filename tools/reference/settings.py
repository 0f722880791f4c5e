"""docs/reference/settings.md: everything that headgate.yaml may say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from headgate.config import Settings
from headgate.engines.settings import FakeModelSettings, LlamaCppModelSettings, RemoteModelSettings
from tools.reference.markdown import NOTE, code, sentence, table

ENGINE_SETTINGS: dict[str, type[BaseModel]] = {
    "llamacpp": LlamaCppModelSettings,
    "remote": RemoteModelSettings,
    "fake": FakeModelSettings,
}
_NAMES = {"pools": "NAME", "models": "NAME", "pipelines": "NAME"}
_DEFAULTS = {
    "state": "`$HEADGATE_STATE`, else `~/.local/state/headgate`",
    "pools": "one pool `cpu` with all cores",
}
_INTRO = """# Settings

`headgate up` reads `headgate.yaml` in the current folder, or the file that `--config` names; without one it serves the
bundled models. Unknown keys, keys written twice and impossible values are refused with the line and the cure, and a
reload with a bad file leaves the last good configuration in force.

An editor that speaks JSON Schema completes and checks the file with [headgate.schema.json](headgate.schema.json):
put `# yaml-language-server: $schema=headgate.schema.json` on its first line.

*size*: bytes, or a number with a unit such as `8MiB` or `500MB`. *duration*: seconds, or a number with a unit such as
`250ms`, `30s`, `10m`. `NAME` is yours to choose.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting: its dotted path in headgate.yaml, what it takes, its default and what it does."""

    path: str
    takes: str
    default: str
    text: str


def list_settings(model: type[BaseModel] = Settings, prefix: str = "") -> Iterator[Setting]:
    """Every setting below `model`, sections left out, dictionaries with NAME for their keys."""
    for name, field in model.model_fields.items():
        path = f"{prefix}{name}"
        inner = find_model(field.annotation)
        if inner is not None:
            step = f".{_NAMES[path]}" if path in _NAMES else ""
            yield from list_settings(inner, f"{path}{step}.")
        else:
            takes = _takes(field, model.model_json_schema()["properties"][name])
            yield Setting(path=path, takes=takes, default=_default(path, field), text=sentence(field.description or ""))


def find_model(annotation: Any) -> type[BaseModel] | None:
    """The settings model within an annotation such as `X`, `X | None` or `dict[str, X]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in get_args(annotation):
        found = find_model(argument)
        if found is not None:
            return found
    return None


def build_settings_page() -> str:
    """The page."""
    parts = [NOTE, _INTRO]
    settings = list(list_settings())
    for section in Settings.model_fields:
        mine = [one for one in settings if one.path.partition(".")[0] == section]
        parts.append(f"## {section}\n\n{_about(section)}{_settings_table(mine)}")
    for engine, model in ENGINE_SETTINGS.items():
        mine = list(list_settings(model, "settings."))
        parts.append(
            f"## models.NAME.settings for the engine `{engine}`\n\n{sentence(model.__doc__ or '')}\n\n"
            + _settings_table(mine)
        )
    return "\n".join(parts)


def _about(section: str) -> str:
    model = find_model(Settings.model_fields[section].annotation)
    return f"{sentence(model.__doc__ or '')}\n\n" if model is not None else ""


def _settings_table(settings: list[Setting]) -> str:
    rows = [(code(one.path), one.takes, one.default, one.text) for one in settings]
    return table(("setting", "takes", "default", "what it does"), rows)


def _takes(field: FieldInfo, schema: dict[str, Any]) -> str:
    parsers = _parsers(field)
    if "parse_seconds" in parsers:
        return "duration" + _bounds(_limits(field))
    if "parse_bytes" in parsers:
        return "size" + _bounds(_limits(field))
    if "_auto_or_bytes" in parsers:
        return "`auto` or a size"
    return _kind(schema)


def _parsers(field: FieldInfo) -> set[str]:
    return {getattr(one.func, "__name__", "") for one in field.metadata if isinstance(one, BeforeValidator)}


def _limits(field: FieldInfo) -> dict[str, Any]:
    """Bounds as JSON Schema says them. Why not from the schema: behind a parser they are not in it."""
    words = {
        Gt: ("exclusiveMinimum", "gt"),
        Ge: ("minimum", "ge"),
        Lt: ("exclusiveMaximum", "lt"),
        Le: ("maximum", "le"),
    }
    return {words[type(one)][0]: getattr(one, words[type(one)][1]) for one in field.metadata if type(one) in words}


def _kind(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        kinds = [_kind(one) for one in schema["anyOf"]]
        return " or ".join(dict.fromkeys(kinds))
    if "enum" in schema:
        return "one of " + ", ".join(code(str(one)) for one in schema["enum"])
    if "const" in schema:
        return code(str(schema["const"]))
    match schema.get("type"):
        case "array":
            return f"list of {_kind(schema.get('items') or {})}"
        case "object":
            return "settings"
        case "boolean":
            return "`true` or `false`"
        case "null":
            return "`null`"
        case "string":
            return "path" if schema.get("format") in ("path", "file-path") else "text"
        case "integer":
            return "whole number" + _bounds(schema)
        case "number":
            return "number" + _bounds(schema)
        case _:
            return "value"


def _bounds(schema: dict[str, Any]) -> str:
    low, above = schema.get("minimum"), schema.get("exclusiveMinimum")
    high, below = schema.get("maximum"), schema.get("exclusiveMaximum")
    words: list[str] = []
    if above is not None:
        words.append(f"above {above:g}")
    if low is not None and high is not None:
        return f", {low:,.10g} to {high:,.10g}"
    if low is not None:
        words.append(f"at least {low:,.10g}")
    if high is not None:
        words.append(f"at most {high:,.10g}")
    if below is not None:
        words.append(f"below {below:g}")
    return ", " + ", ".join(words) if words else ""


def _default(path: str, field: FieldInfo) -> str:
    if path in _DEFAULTS:
        return _DEFAULTS[path]
    if field.default is PydanticUndefined and field.default_factory is None:
        return "*needed*"
    value = field.get_default(call_default_factory=True)
    parsers = _parsers(field)
    return code(_shown_value(value, is_size="parse_bytes" in parsers, is_duration="parse_seconds" in parsers))


def _shown_value(value: Any, *, is_size: bool, is_duration: bool) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if is_size:
        for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
            if value % size == 0:
                return f"{value // size}{unit}"
    if is_duration:
        for unit, length in (("h", 3600.0), ("m", 60.0)):
            if value >= length and value % length == 0:
                return f"{value / length:g}{unit}"
        return f"{value:g}s"
    if isinstance(value, frozenset | tuple):
        return (
            "["
            + ", ".join(sorted(str(one) for one in value) if isinstance(value, frozenset) else map(str, value))
            + "]"
        )
    if isinstance(value, dict):
        return "{}"
    return f"{value:g}" if isinstance(value, float) else str(value)
