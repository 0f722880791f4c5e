"""headgate.yaml: one settings tree, composed of each room's own settings, with errors that name line and cure."""

from __future__ import annotations

import contextlib
import difflib
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from headgate.control.settings import ControlSettings, PoolSettings
from headgate.core.errors import ConfigError
from headgate.engines.settings import EnginesSettings
from headgate.gateway.settings import GatewaySettings
from headgate.metering.settings import MeteringSettings
from headgate.pipelines.settings import PipelineSettings
from headgate.registry.settings import RegistrySettings
from headgate.store.settings import StoreSettings
from headgate.workers.settings import WorkerSettings

MAX_CONFIG_BYTES = 1024 * 1024
DEFAULT_FILE = Path("headgate.yaml")
_BRANCH = re.compile(r"[\[\]']|^(constrained-|function-)")
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]


def default_state() -> Path:
    """Where state lies when nothing says otherwise: HEADGATE_STATE, else the user's XDG state folder."""
    if told := os.environ.get("HEADGATE_STATE"):
        return Path(told)
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "headgate"


def _expand(path: object) -> object:
    return Path(path).expanduser() if isinstance(path, str) else path


class ModelSettings(BaseModel):
    """One model: which version it is, and how each of its replicas runs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str | None = Field(
        default=None,
        description="Where the model comes from, as in `headgate model add`. Left out: a model added before.",
    )
    engine: Literal["auto", "llamacpp", "classic", "fake", "remote"] = Field(
        default="auto", description="The software that runs it; auto goes by the format."
    )
    context: int | None = Field(
        default=None, ge=16, description="Tokens per request, prompt and answer together; the model's own by default."
    )
    slots: int = Field(default=4, ge=1, le=256, description="Requests that one replica works on at once.")
    cores: float = Field(
        default=1.0, gt=0, le=1024, description="CPU cores of one replica; below 1 it shares a core with others."
    )
    pool: Name = Field(default="cpu", description="The pool that its replicas run on.")
    gpu_layers: int = Field(default=0, ge=0, description="Layers that llama.cpp keeps on a GPU.")
    adapters: tuple[str, ...] = Field(default=(), description="LoRA adapters (GGUF files), applied at load.")
    settings: dict[str, Any] = Field(default_factory=dict, description="Settings of the engine itself.")

    @field_validator("cores")
    @classmethod
    def check_cores(cls, value: float) -> float:
        """Above one core only whole cores, because threads are fixed per core."""
        if value > 1 and value != int(value):
            raise ValueError("above 1, cores must be a whole number, such as 2")
        return value


class Settings(BaseModel):
    """Everything that headgate.yaml may say."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    state: Annotated[Path, BeforeValidator(_expand)] = Field(
        default_factory=default_state, description="Folder for database, models, sockets and logs."
    )
    gateway: GatewaySettings = Field(default_factory=GatewaySettings)
    pools: dict[Name, PoolSettings] = Field(
        default_factory=lambda: {"cpu": PoolSettings()}, description="Devices of one kind, by name."
    )
    models: dict[Name, ModelSettings] = Field(default_factory=dict, description="Models, by name.")
    pipelines: dict[Name, PipelineSettings] = Field(
        default_factory=dict, description="What clients name as `model`, by name."
    )
    engines: EnginesSettings = Field(default_factory=EnginesSettings)
    control: ControlSettings = Field(default_factory=ControlSettings)
    workers: WorkerSettings = Field(default_factory=WorkerSettings)
    registry: RegistrySettings = Field(default_factory=RegistrySettings)
    store: StoreSettings = Field(default_factory=StoreSettings)
    metering: MeteringSettings = Field(default_factory=MeteringSettings)


def load_settings(path: Path | None) -> Settings:
    """The settings in `path` (headgate.yaml here by default; built-in ones when there is none and none was named).

    Raises ConfigError with file, line, setting and cure.
    """
    return read_settings(path)[0]


def read_settings(path: Path | None) -> tuple[Settings, bytes]:
    """As `load_settings`, and the YAML text that says them. Raises ConfigError."""
    if path is None:
        if not DEFAULT_FILE.exists():
            return bundled_settings(), yaml.safe_dump(_bundled_document(), sort_keys=False).encode()
        path = DEFAULT_FILE
    text = _read_file(path)
    return parse_settings(text, str(path)), text


def find_state(path: Path | None) -> Path:
    """The state folder that `path` (headgate.yaml here by default) names, whatever else is wrong in that file.

    Why so lenient: `headgate down` and `headgate status` must work while the file is being edited.
    Raises ConfigError when a file was named and cannot be read.
    """
    named, path = path is not None, path or DEFAULT_FILE
    document: object = None
    if named or path.exists():
        with contextlib.suppress(yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError):
            document = yaml.safe_load(_read_file(path))
    state: object = cast("dict[str, object]", document).get("state") if isinstance(document, dict) else None
    return Path(state).expanduser() if isinstance(state, str) and state else default_state()


def _read_file(path: Path) -> bytes:
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}). Name another file with --config.") from None
    if len(text) > MAX_CONFIG_BYTES:
        raise ConfigError(f"{path}: larger than {MAX_CONFIG_BYTES} bytes; that is no headgate.yaml.")
    return text


def parse_settings(text: bytes | str, shown: str = "headgate.yaml") -> Settings:
    """The settings in YAML `text`. Raises ConfigError; `shown` is the file's name in errors."""
    root, document = _read_yaml(text, shown)
    try:
        settings = Settings.model_validate(document)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        lines = dict.fromkeys(_explain(problem, root, shown) for problem in problems)
        raise ConfigError("\n".join(lines), param=_dotted(_written(problems[0]["loc"])) or None) from None
    _check_names(settings, root, shown)
    return settings


def bundled_settings() -> Settings:
    """What `headgate up` serves in a folder without headgate.yaml: the bundled models."""
    return Settings.model_validate(_bundled_document())


def _bundled_document() -> dict[str, Any]:
    names = ("ticket-category", "ticket-extract", "ticket-summary")
    models = {
        name: {"source": f"bundled:{name}", "cores": 0.25 if name == "ticket-category" else 0.5} for name in names
    }
    return {"models": models, "pipelines": {name: {"model": name} for name in names}}


def json_schema() -> dict[str, Any]:
    """The JSON Schema of headgate.yaml, for editors."""
    schema = Settings.model_json_schema(mode="validation")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "headgate.yaml"}


def _check_names(settings: Settings, root: yaml.Node | None, shown: str) -> None:
    """Every pipeline's model and every model's pool must be declared. Raises ConfigError."""
    uses = [
        (("pipelines", name, "model"), model, "models", settings.models)
        for name, pipeline in settings.pipelines.items()
        for model in pipeline.model
    ]
    uses += [(("models", name, "pool"), model.pool, "pools", settings.pools) for name, model in settings.models.items()]
    for loc, named, section, known in uses:
        if named not in known:
            near = difflib.get_close_matches(named, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"declare it under '{section}:'."
            dotted = _dotted(loc)
            raise ConfigError(
                f"{shown}:{_line_of(root, loc)}: {dotted} names {named!r}, which is not declared; {hint}", param=dotted
            )


# -- reading YAML with its lines ---------------------------------------------------------------------------------


def _read_yaml(text: bytes | str, shown: str) -> tuple[yaml.Node | None, dict[str, Any]]:
    try:
        loader = yaml.SafeLoader(text)
        try:
            root = loader.get_single_node()
            _refuse_doubles(root, shown)
            document: object = loader.construct_document(root) if root is not None else {}  # pyright: ignore
        finally:
            loader.dispose()  # pyright: ignore
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{shown}:{line}: not valid YAML: {error.problem}. Check the indentation there.") from None
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{shown}: not valid YAML ({type(error).__name__}). Save it as UTF-8 text.") from None
    if not isinstance(document, dict):
        raise ConfigError(f"{shown}:1: the file must hold settings, such as 'models:' and 'pipelines:'.")
    return root, cast("dict[str, Any]", document)


def _refuse_doubles(node: yaml.Node | None, shown: str) -> None:
    """A key written twice would silently lose its first value. Aliases are refused: they can blow up in memory."""
    stack: list[yaml.Node] = [node] if node is not None else []
    seen: set[int] = set()
    while stack:
        item = stack.pop()
        if id(item) in seen:
            line = item.start_mark.line + 1
            raise ConfigError(f"{shown}:{line}: aliases (*name) are not taken here; write the value out.")
        seen.add(id(item))
        if isinstance(item, yaml.MappingNode):
            names: set[str] = set()
            for key, value in item.value:
                if key.value in names and isinstance(key.value, str):
                    line = key.start_mark.line + 1
                    raise ConfigError(f"{shown}:{line}: {key.value!r} is set twice; keep one of them.")
                if isinstance(key, yaml.ScalarNode):
                    names.add(key.value)
                stack += [key, value]
        elif isinstance(item, yaml.SequenceNode):
            stack += item.value


def _explain(problem: Any, root: yaml.Node | None, shown: str) -> str:
    loc = _written(problem["loc"])
    line = _line_of(root, loc)
    dotted = _dotted(loc)
    if problem["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(loc[-1]), _known_keys(loc[:-1]), n=1)
        cure = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(_known_keys(loc[:-1]))}."
        return f"{shown}:{line}: unknown setting {dotted!r}; {cure}"
    message = problem["msg"].removeprefix("Value error, ")
    value = problem.get("input")
    got = f" (it is {value!r})" if isinstance(value, str | int | float | bool) and "password" not in str(value) else ""
    return f"{shown}:{line}: {dotted}: {message}{got}" if dotted else f"{shown}:{line}: {message}"


def _written(loc: tuple[Any, ...]) -> tuple[Any, ...]:
    """The steps of an error's path that a person wrote: without those that name branches of a union."""
    return tuple(step for step in loc if step != "[key]" and not _BRANCH.search(str(step)))


def _dotted(loc: tuple[Any, ...]) -> str:
    return ".".join(str(step) for step in loc)


def _line_of(root: yaml.Node | None, loc: tuple[Any, ...]) -> int:
    """The line of the deepest step of `loc` that is written in the file."""
    node, line = root, 1
    for step in loc:
        if isinstance(node, yaml.MappingNode):
            found = next(((key, value) for key, value in node.value if key.value == str(step)), None)
            if found is None:
                break
            line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
            line = node.start_mark.line + 1
    return line


def _known_keys(loc: tuple[Any, ...]) -> list[str]:
    """The settings that exist at `loc`."""
    model: Any = Settings
    for step in loc:
        field = model.model_fields.get(step) if isinstance(model, type) and issubclass(model, BaseModel) else None
        if field is None:
            continue  # a name in a dict of models, pipelines or pools: the dict's value type was taken already
        model = _value_model(field.annotation)
    return sorted(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else []


def _value_model(annotation: Any) -> Any:
    for argument in [annotation, *getattr(annotation, "__args__", ())]:
        if isinstance(argument, type) and issubclass(argument, BaseModel):
            return argument
    return annotation
