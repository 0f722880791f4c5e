"""What is known of a model version: facts from its header and its intake. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Format = Literal["gguf", "safetensors", "classic", "endpoint", "fake"]
Task = Literal["generate", "embed", "classify"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderFacts:
    """Shape of a transformer as its header tells it; what the memory estimate needs.

    `kv_heads` has one entry per layer (0 where a layer keeps no KV cache); lengths are elements per head;
    `sliding_window` is in tokens, `sliding_layers` says how many layers use it; `tensor_bytes` is the sum of all
    tensors, `token_embedding_bytes` and `output_bytes` those of the two large tables (output 0 when tied);
    `layer_bytes` has the tensor bytes of each block.
    """

    layers: int
    embedding: int
    feed_forward: int
    heads: int
    kv_heads: tuple[int, ...]
    key_length: int
    value_length: int
    vocabulary: int
    experts: int = 0
    sliding_window: int | None = None
    sliding_layers: int = 0
    tensor_bytes: int = 0
    token_embedding_bytes: int = 0
    output_bytes: int = 0
    layer_bytes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One immutable version of a model: its bytes' digest and what is known of them.

    `digest` is 'sha256:<hex>' of the file, or of the canonical manifest when the version is a folder. `path` is where
    the bytes lie on this machine (a file or a folder; '' for endpoints). `context` is in tokens; `parameters` a count.
    """

    digest: str
    format: Format
    task: Task
    architecture: str
    parameters: int | None
    context: int | None
    bytes: int
    path: str
    chat_template: str | None = None
    licence: str | None = None
    origin: str = ""
    header: HeaderFacts | None = None
