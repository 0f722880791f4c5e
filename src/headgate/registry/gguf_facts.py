"""What a GGUF header says about its model: shape for the memory estimate, context, template, licence, task.

Pure: values in, values out. Knows nothing of files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from headgate.core.errors import ModelRefused
from headgate.core.model import HeaderFacts, Task
from headgate.registry.gguf import GgufHeader, SkippedArray, Tensor, Value

MAX_LAYERS = 2048
MAX_WIDTH = 2**24
MAX_CONTEXT = 2**31

# Encoders of llama.cpp that give vectors, not text. Source: src/llama-arch.cpp of llama.cpp, September 2026.
ENCODERS = frozenset(
    {
        "bert",
        "modern-bert",
        "nomic-bert",
        "nomic-bert-moe",
        "neo-bert",
        "jina-bert-v2",
        "jina-bert-v3",
        "eurobert",
        "t5encoder",
        "gemma-embedding",
    }
)

# Every n-th layer sees the whole context, the others only the window, where the header does not say so itself.
# Source: set_swa_pattern calls in llama.cpp, September 2026.
WINDOW_PATTERNS = {
    "gemma2": 2,
    "gemma3": 6,
    "gemma-embedding": 6,
    "gpt-oss": 2,
    "cohere2": 4,
    "exaone4": 4,
    "olmo3": 4,
    "olmo2": 4,
    "smallthinker": 4,
}

_LAYER = re.compile(r"blk\.([0-9]{1,5})\.")


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufFacts:
    """Everything that a version's row takes from a GGUF header. `context` in tokens, `parameters` a count."""

    architecture: str
    task: Task
    name: str | None
    parameters: int
    context: int | None
    chat_template: str | None
    licence: str | None
    vocabulary: int
    header: HeaderFacts


def describe_gguf(header: GgufHeader, *parts: GgufHeader) -> GgufFacts:
    """What `header` says; `parts` are the further files of a split model, in order.

    Raises:
        ModelRefused: it is no whole model (an adapter, a projector, a vocabulary) or its shape is impossible.
    """
    reader = _Reader(header.metadata)
    tensors = tuple(tensor for part in (header, *parts) for tensor in part.tensors)
    _check_kind(reader, tensors)
    architecture = reader.architecture
    embeds = architecture in ENCODERS or f"{architecture}.pooling_type" in header.metadata
    return GgufFacts(
        architecture=architecture,
        task="embed" if embeds else "generate",
        name=reader.text("general.name"),
        parameters=sum(tensor.parameters for tensor in tensors),
        context=reader.number("context_length", MAX_CONTEXT),
        chat_template=reader.text("tokenizer.chat_template"),
        licence=reader.text("general.license"),
        vocabulary=reader.vocabulary(tensors),
        header=_facts(reader, tensors),
    )


def header_facts(header: GgufHeader, *parts: GgufHeader) -> HeaderFacts:
    """The shape alone, for the memory estimate. Raises ModelRefused as describe_gguf does."""
    return describe_gguf(header, *parts).header


def adapter_architecture(header: GgufHeader) -> str:
    """The architecture of the models that this LoRA adapter fits. Raises ModelRefused when it is no LoRA adapter."""
    reader = _Reader(header.metadata)
    kinds = (reader.text("general.type"), reader.text("adapter.type"))
    if kinds != ("adapter", "lora") or not header.tensors:
        raise ModelRefused("This GGUF file is not a LoRA adapter. Convert it with llama.cpp's convert_lora_to_gguf.py.")
    return reader.architecture


def split_of(header: GgufHeader) -> tuple[int, int]:
    """(number of this part from 0, parts of the whole). (0, 1) for a file that is whole."""
    number, count = header.metadata.get("split.no", 0), header.metadata.get("split.count", 0)
    if type(number) is not int or type(count) is not int or (count > 1 and not 0 <= number < count <= 99_999):
        raise ModelRefused(f"The split of this GGUF file is impossible: part {number!r} of {count!r}. Fetch it again.")
    return (number, count) if count > 1 else (0, 1)


def _check_kind(reader: _Reader, tensors: tuple[Tensor, ...]) -> None:
    kind = reader.text("general.type") or "model"
    if kind == "adapter":
        raise ModelRefused(
            "This GGUF file is a LoRA adapter, not a model. Add its base model and list this file in the model's "
            "`adapters` in headgate.yaml."
        )
    if kind != "model":
        raise ModelRefused(f"This GGUF file is of type {kind[:40]!r}, not a model of its own. Add the language model.")
    if not tensors:
        raise ModelRefused(
            "This GGUF file has no tensors (a vocabulary only, or part of a split). Add the whole model."
        )


def _facts(reader: _Reader, tensors: tuple[Tensor, ...]) -> HeaderFacts:
    layers = reader.number("block_count", MAX_LAYERS)
    embedding = reader.number("embedding_length", MAX_WIDTH)
    if not layers or not embedding:
        missing = "embedding_length" if layers else "block_count"
        raise ModelRefused(f"The GGUF header does not tell {reader.architecture}.{missing}. Convert the model again.")
    heads = max(reader.per_layer("attention.head_count", layers, (0,) * layers))
    kv_heads = reader.per_layer("attention.head_count_kv", layers, (heads,) * layers)
    every = reader.number("full_attention_interval", MAX_LAYERS)
    if every and len(set(kv_heads)) == 1:
        kv_heads = tuple(count if (layer + 1) % every == 0 else 0 for layer, count in enumerate(kv_heads))
    default_length = embedding // heads if heads else 0
    window = reader.number("attention.sliding_window", MAX_CONTEXT) or None
    sizes = {tensor.name: tensor.bytes for tensor in tensors}
    return HeaderFacts(
        layers=layers,
        embedding=embedding,
        feed_forward=max(reader.per_layer("feed_forward_length", layers, (0,) * layers)),
        heads=heads,
        kv_heads=kv_heads,
        key_length=reader.number("attention.key_length", MAX_WIDTH) or default_length,
        value_length=reader.number("attention.value_length", MAX_WIDTH) or default_length,
        vocabulary=reader.vocabulary(tensors),
        experts=reader.number("expert_count", 65_536) or 0,
        sliding_window=window,
        sliding_layers=_sliding_layers(reader, layers) if window else 0,
        tensor_bytes=sum(sizes.values()),
        token_embedding_bytes=sizes.get("token_embd.weight", 0),
        output_bytes=sizes.get("output.weight", 0),
        layer_bytes=_layer_bytes(tensors, layers),
    )


def _sliding_layers(reader: _Reader, layers: int) -> int:
    """Why 0 when nothing is known: the estimate must rather be too large than too small."""
    pattern = reader.value("attention.sliding_window_pattern")
    if isinstance(pattern, tuple):
        return sum(1 for item in pattern[:layers] if item is True or (type(item) is int and item > 0))
    if type(pattern) is not int or pattern <= 0:
        pattern = WINDOW_PATTERNS.get(reader.architecture, 1)
    return sum(1 for layer in range(layers) if layer % pattern < pattern - 1)


def _layer_bytes(tensors: tuple[Tensor, ...], layers: int) -> tuple[int, ...]:
    sums = [0] * layers
    for tensor in tensors:
        match = _LAYER.match(tensor.name)
        if match and int(match[1]) < layers:
            sums[int(match[1])] += tensor.bytes
    return tuple(sums)


class _Reader:
    """Typed looks into metadata; a value of the wrong type or size is refused by its key."""

    def __init__(self, metadata: dict[str, Value]) -> None:
        self._metadata = metadata
        self.architecture = self.text("general.architecture") or ""
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", self.architecture):
            raise ModelRefused("The GGUF header does not name a usable general.architecture. Convert the model again.")

    def text(self, key: str) -> str | None:
        value = self._metadata.get(key)
        if value is None or isinstance(value, str):
            return value or None
        raise ModelRefused(f"The GGUF metadata {key!r} is not a text. Convert the model again.")

    def value(self, key: str) -> Value | None:
        return self._metadata.get(f"{self.architecture}.{key}")

    def number(self, key: str, most: int) -> int | None:
        value = self.value(key)
        if value is None:
            return None
        if type(value) is not int or not 0 <= value <= most:
            raise self._impossible(key, value)
        return value

    def per_layer(self, key: str, layers: int, default: tuple[int, ...]) -> tuple[int, ...]:
        """One number a layer, from a single number or an array of them."""
        value = self.value(key)
        if value is None:
            return default
        if not isinstance(value, tuple):
            value = (value,) * layers if type(value) is int else ()
        numbers = [item for item in value if type(item) is int and 0 <= item <= MAX_WIDTH]
        if len(numbers) != len(value) or len(numbers) < layers:
            raise self._impossible(key, value)
        return tuple(numbers[:layers])

    def vocabulary(self, tensors: tuple[Tensor, ...]) -> int:
        tokens = self._metadata.get("tokenizer.ggml.tokens")
        if isinstance(tokens, SkippedArray):
            return tokens.count
        if isinstance(tokens, tuple):
            return len(tokens)
        told = self.number("vocab_size", MAX_WIDTH)
        table = next((tensor.shape[-1] for tensor in tensors if tensor.name == "token_embd.weight"), 0)
        return told or table

    def _impossible(self, key: str, value: Value) -> ModelRefused:
        return ModelRefused(
            f"The GGUF metadata {self.architecture}.{key} is {str(value)[:60]}, which no model has. Fetch it again."
        )
