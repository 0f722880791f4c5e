"""Reads a model that is a folder of safetensors: its files, shape, shards, template and licence. Trusts nothing in it.

Also knows the mark of a classic model's folder. Reads small JSON and text files and the headers of tensors, no more.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml

from headgate.core.errors import ModelRefused
from headgate.core.model import Format, HeaderFacts, Task
from headgate.registry.safetensors import SafetensorsHeader, load_strict_json, read_safetensors
from headgate.registry.sniff import ARCHIVES, PICKLES, refusal, sniff

MAX_FILES = 2000
MAX_DEPTH = 4
MAX_JSON_BYTES = 64 * 2**20  # the largest tokenizer.json files have about 35 MB
MAX_CONFIG_BYTES = 2**20
MAX_README_BYTES = 2**20
MAX_WIDTH = 2**24
MAX_LAYERS = 2048

CLASSIC_MARK = "classic.json"
CLASSIC_FORMAT = "headgate-classic/"
_TAKEN = (".safetensors", ".json", ".jinja", ".txt", ".model", ".md", ".vocab", ".bpe", ".tiktoken")
_TAKEN_NAMES = ("license", "licence", "notice", "copying", "readme")

# First words of well-known licence texts -> SPDX id. Source: https://spdx.org/licenses.
_LICENCE_TEXTS = (
    (r"apache license\s+version 2\.0", "apache-2.0"),
    (r"mit license|permission is hereby granted, free of charge", "mit"),
    (r"gnu affero general public license\s+version 3", "agpl-3.0"),
    (r"gnu general public license\s+version 3", "gpl-3.0"),
    (r"llama 3\.\d community license", "llama3"),
    (r"gemma terms of use", "gemma"),
    (r"redistribution and use in source and binary forms", "bsd-3-clause"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderFiles:
    """What of a folder belongs to the model, and what was left out (names with '/' between parts)."""

    taken: tuple[str, ...]
    left_out: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderFacts:
    """Everything that a version's row takes from a folder. `context` in tokens, `parameters` a count."""

    format: Format
    task: Task
    architecture: str
    parameters: int
    context: int | None
    chat_template: str | None
    licence: str | None
    header: HeaderFacts | None


def list_folder(root: Path) -> FolderFiles:
    """The files of the model in `root`, judged by content.

    Raises ModelRefused: pickles or archives lie in it (named), too many files, or something that is no regular file.
    """
    taken: list[str] = []
    left_out: list[str] = []
    for path in _walk(root, MAX_DEPTH):
        name = path.relative_to(root).as_posix()
        if len(taken) + len(left_out) >= MAX_FILES:
            raise ModelRefused(f"{root.name} has more than {MAX_FILES} files. Name the folder of one model.")
        if any(part.startswith(".") for part in name.split("/")):
            continue  # .git, .cache and the like
        kind = sniff(path)
        if kind in PICKLES or kind in ARCHIVES:
            why = refusal(name, kind).message
            raise ModelRefused(f"{why} Remove {name} from the folder and add the folder again.")
        wanted = path.suffix.lower() in _TAKEN or path.name.lower().startswith(_TAKEN_NAMES)
        if path.suffix.lower() == ".safetensors" and kind != "safetensors":
            raise refusal(name, kind)
        (taken if wanted else left_out).append(name)
    return FolderFiles(taken=tuple(sorted(taken)), left_out=tuple(sorted(left_out)))


def describe_folder(root: Path) -> FolderFacts:
    """What the files in `root` say of their model.

    Raises ModelRefused: no or broken config, missing shards, damaged or hostile headers.
    """
    shards = _shards(root)
    parameters = sum(tensor.parameters for header in shards.values() for tensor in header.tensors.values())
    classic = _load_json(root / CLASSIC_MARK, MAX_JSON_BYTES)
    if str(classic.get("format", "")).startswith(CLASSIC_FORMAT):
        return FolderFacts(
            format="classic",
            task="classify",
            architecture="linear",
            parameters=parameters,
            context=None,
            chat_template=None,
            licence=_text(classic.get("licence")) or _licence(root),
            header=None,
        )
    config = _load_json(root / "config.json", MAX_CONFIG_BYTES)
    if not config:
        raise ModelRefused("The folder has no config.json, so its architecture is unknown. Fetch the whole repository.")
    architectures = config.get("architectures")
    first = cast(list[Any], architectures)[0] if isinstance(architectures, list) and architectures else None
    architecture = _text(first) or _text(config.get("model_type"))
    if architecture is None or not re.fullmatch(r"[\w.-]{1,100}", architecture):
        raise ModelRefused("config.json does not name a usable architecture (architectures or model_type).")
    inner = config.get("text_config")
    shape = config | cast(dict[str, Any], inner) if isinstance(inner, dict) else config
    return FolderFacts(
        format="safetensors",
        task=_task(architecture),
        architecture=architecture,
        parameters=parameters,
        context=_number(shape, MAX_WIDTH * 64, "max_position_embeddings", "n_positions", "seq_length"),
        chat_template=_chat_template(root),
        licence=_licence(root),
        header=_facts(shape, shards),
    )


def _walk(folder: Path, depth: int) -> list[Path]:
    found: list[Path] = []
    try:
        for path in sorted(folder.iterdir()):
            if path.is_dir():
                if not path.name.startswith(".") and not path.is_symlink():
                    found += _walk(path, depth - 1) if depth > 1 else []
            else:
                found.append(path)
            if len(found) > MAX_FILES:
                break
    except OSError as error:
        raise ModelRefused(
            f"{folder.name} cannot be read: {error.strerror}. Check that it is there and readable."
        ) from None
    return found


def _shards(root: Path) -> dict[str, SafetensorsHeader]:
    index = _load_json(root / "model.safetensors.index.json", MAX_JSON_BYTES)
    places = index.get("weight_map", {})
    names = sorted(path.name for path in root.glob("*.safetensors"))
    if not names:
        raise ModelRefused("The folder has no safetensors file. Name a folder with model.safetensors in it.")
    headers = {name: read_safetensors(root / name) for name in names}
    if not isinstance(places, dict):
        raise ModelRefused("model.safetensors.index.json has no usable weight_map. Fetch it again.")
    for tensor, shard in cast(dict[str, Any], places).items():
        if shard not in headers:
            raise ModelRefused(
                f"The shard {str(shard)[:100]!r} is missing from the folder. Fetch it and add the folder again."
            )
        if tensor not in headers[shard].tensors:
            raise ModelRefused(
                f"The shard {shard} lacks the tensor {tensor[:100]!r} that the index puts there. Fetch it again."
            )
    if not any(header.tensors for header in headers.values()):
        raise ModelRefused("The folder's safetensors files hold no tensors. Fetch them again.")
    if places:
        return {shard: headers[shard] for shard in sorted(set(cast(dict[str, str], places).values()))}
    _check_numbered(names)
    return headers


def _check_numbered(names: list[str]) -> None:
    """Shards by the name model-00001-of-00003.safetensors must all be there, also without an index."""
    for name in names:
        match = re.fullmatch(r"(.*-)(\d{5})-of-(\d{5})\.safetensors", name)
        for number in range(1, int(match[3]) + 1) if match else ():
            sibling = f"{match[1]}{number:05d}-of-{match[3]}.safetensors" if match else ""
            if sibling not in names:
                raise ModelRefused(
                    f"The shard {sibling!r} is missing from the folder. Fetch it and add the folder again."
                )


def _load_json(path: Path, most: int) -> dict[str, Any]:
    """The JSON object in `path`; empty when there is no such file."""
    text = _load_text(path, most)
    if text is None:
        return {}
    value = load_strict_json(text, path.name)
    if not isinstance(value, dict):
        raise ModelRefused(f"{path.name} is not a JSON object. Fetch it again.")
    return cast(dict[str, Any], value)


def _load_text(path: Path, most: int) -> bytes | None:
    try:
        with path.open("rb") as file:
            text = file.read(most + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ModelRefused(f"{path.name} cannot be read: {error.strerror}.") from None
    if len(text) > most:
        raise ModelRefused(f"{path.name} is longer than {most} bytes. Fetch it again.")
    return text


def _chat_template(root: Path) -> str | None:
    own = _load_text(root / "chat_template.jinja", MAX_CONFIG_BYTES)
    if own is not None:
        return own.decode(errors="replace")
    told = _load_json(root / "tokenizer_config.json", MAX_JSON_BYTES).get("chat_template")
    if isinstance(told, list):
        named = [cast(dict[str, Any], item) for item in cast(list[Any], told) if isinstance(item, dict)]
        told = next((item.get("template") for item in named if item.get("name") == "default"), None)
    return told if isinstance(told, str) else None


def _licence(root: Path) -> str | None:
    """From the README's front matter, else from the words of a licence file."""
    readme = next((path for path in sorted(root.iterdir()) if path.name.lower() == "readme.md"), None)
    text = (_load_text(readme, MAX_README_BYTES) or b"").decode(errors="replace") if readme else ""
    match = re.match(r"\s*---\r?\n(.{0,65536}?)\r?\n---", text, re.DOTALL)
    if match:
        # Why one line and not the whole block: YAML aliases could grow without bound.
        line = re.search(r"^license:[^\n&*]{1,200}$", match[1], re.MULTILINE)
        try:
            told = yaml.safe_load(line[0]) if line else None
        except yaml.YAMLError:
            told = None
        licence = _text(cast(dict[str, Any], told).get("license")) if isinstance(told, dict) else None
        if licence:
            return licence
    for path in sorted(root.iterdir()):
        if path.name.lower().startswith(("license", "licence", "copying")) and path.is_file():
            words = (_load_text(path, MAX_README_BYTES) or b"").decode(errors="replace").lower()[:4000]
            return next((name for pattern, name in _LICENCE_TEXTS if re.search(pattern, words)), None)
    return None


def _task(architecture: str) -> Task:
    if "Classification" in architecture:
        return "classify"
    generates = "CausalLM" in architecture or "ConditionalGeneration" in architecture or "LMHead" in architecture
    return "generate" if generates or ("Bert" not in architecture and not architecture.endswith("Model")) else "embed"


def _facts(shape: dict[str, Any], shards: dict[str, SafetensorsHeader]) -> HeaderFacts | None:
    layers = _number(shape, MAX_LAYERS, "num_hidden_layers", "n_layer", "num_layers")
    embedding = _number(shape, MAX_WIDTH, "hidden_size", "n_embd", "d_model")
    if not layers or not embedding:
        return None
    heads = _number(shape, MAX_WIDTH, "num_attention_heads", "n_head", "num_heads") or 0
    length = _number(shape, MAX_WIDTH, "head_dim") or (embedding // heads if heads else 0)
    kv_heads = _number(shape, MAX_WIDTH, "num_key_value_heads") or heads
    sizes = {name: tensor.bytes for header in shards.values() for name, tensor in header.tensors.items()}
    layer_bytes = [0] * layers
    for name, size in sizes.items():
        match = re.search(r"\.(?:layers|layer|h|blocks)\.(\d{1,5})\.", f".{name}")
        if match and int(match[1]) < layers:
            layer_bytes[int(match[1])] += size
    return HeaderFacts(
        layers=layers,
        embedding=embedding,
        feed_forward=_number(shape, MAX_WIDTH, "intermediate_size", "n_inner", "d_ff") or 0,
        heads=heads,
        kv_heads=(kv_heads,) * layers,
        key_length=length,
        value_length=length,
        vocabulary=_number(shape, MAX_WIDTH, "vocab_size") or 0,
        experts=_number(shape, 65_536, "num_local_experts", "num_experts", "n_routed_experts") or 0,
        tensor_bytes=sum(sizes.values()),
        token_embedding_bytes=sum(size for name, size in sizes.items() if name.endswith("embed_tokens.weight")),
        output_bytes=sum(size for name, size in sizes.items() if name.endswith("lm_head.weight")),
        layer_bytes=tuple(layer_bytes),
    )


def _number(table: dict[str, Any], most: int, *keys: str) -> int | None:
    """The first of `keys` that is told. Raises ModelRefused when it is no number that a model could have."""
    for key in keys:
        value = table.get(key)
        if value is None:
            continue
        if type(value) is not int or not 0 <= value <= most:
            raise ModelRefused(f"config.json has {key} = {str(value)[:60]}, which no model has. Fetch it again.")
        return value
    return None


def _text(value: Any) -> str | None:
    return value.strip()[:200] or None if isinstance(value, str) else None
