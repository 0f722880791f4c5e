"""Model files for tests, written byte by byte: GGUF headers as wished, safetensors, zips and pickles in disguise."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from pathlib import Path
from typing import Any

U32, I32, F32, BOOL, TEXT, ARRAY, U64 = 4, 5, 6, 7, 8, 9, 10

TEMPLATE = "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"


def gguf_text(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(data)) + data


def gguf_value(value: Any) -> bytes:
    """Type id and bytes of a value; (type, raw bytes) is taken as it is."""
    match value:
        case (int() as kind, bytes() as raw):
            return struct.pack("<I", kind) + raw
        case bool():
            return struct.pack("<I?", BOOL, value)
        case int():
            return struct.pack("<II", U32, value)
        case float():
            return struct.pack("<If", F32, value)
        case str():
            return struct.pack("<I", TEXT) + gguf_text(value)
        case list():
            kind = TEXT if value and isinstance(value[0], str) else BOOL if value and value[0] in (True, False) else U32
            kind = U32 if value and type(value[0]) is int else kind
            items = b"".join(gguf_value(item)[4:] for item in value)
            return struct.pack("<IIQ", ARRAY, kind, len(value)) + items
    raise TypeError(type(value))


def llama_metadata(**changes: Any) -> dict[str, Any]:
    """A small llama's metadata; dots in keys are written as two underscores, None leaves a key out."""
    base: dict[str, Any] = {
        "general.architecture": "llama",
        "general.name": "tiny",
        "general.license": "apache-2.0",
        "llama.context_length": 256,
        "llama.embedding_length": 32,
        "llama.block_count": 2,
        "llama.feed_forward_length": 64,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "tokenizer.ggml.tokens": [f"t{number}" for number in range(100)],
    }
    base |= {key.replace("__", "."): value for key, value in changes.items()}
    return {key: value for key, value in base.items() if value is not None}


LLAMA_TENSORS: tuple[tuple[str, tuple[int, ...], int], ...] = (
    ("token_embd.weight", (32, 100), 0),
    ("blk.0.attn_q.weight", (32, 32), 1),
    ("blk.1.attn_q.weight", (32, 32), 8),
    ("output.weight", (32, 100), 1),
)

_SIZES = {0: (1, 4), 1: (1, 2), 8: (32, 34)}


def gguf_bytes(
    metadata: dict[str, Any] | None = None,
    tensors: tuple[tuple[str, tuple[int, ...], int], ...] = LLAMA_TENSORS,
    *,
    version: int = 3,
    alignment: int = 32,
    fill: bytes = b"\x07",
) -> bytes:
    """A whole GGUF file."""
    metadata = llama_metadata() if metadata is None else metadata
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(metadata))
    head += b"".join(gguf_text(key) + gguf_value(value) for key, value in metadata.items())
    offset, data = 0, b""
    for name, shape, kind in tensors:
        elements = 1
        for length in shape:
            elements *= length
        block, block_bytes = _SIZES[kind]
        head += gguf_text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape)
        head += struct.pack("<IQ", kind, offset)
        size = elements // block * block_bytes
        data += fill * size + b"\0" * (-size % alignment)
        offset += size + -size % alignment
    return head + b"\0" * (-len(head) % alignment) + data


def write_gguf(path: Path, metadata: dict[str, Any] | None = None, **options: Any) -> Path:
    path.write_bytes(gguf_bytes(metadata, **options))
    return path


def safetensors_bytes(tensors: dict[str, tuple[int, ...]], metadata: dict[str, str] | None = None) -> bytes:
    """A whole safetensors file of F32 tensors."""
    table: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    offset = 0
    for name, shape in tensors.items():
        size = 4
        for length in shape:
            size *= length
        table[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(table).encode()
    return struct.pack("<Q", len(text)) + text + b"\1" * offset


def write_folder(folder: Path, *, shards: int = 1) -> Path:
    """A small safetensors model: config, tokenizer, README, one shard or several with their index."""
    folder.mkdir(parents=True)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 2048,
        "vocab_size": 100,
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    (folder / "README.md").write_text("---\nlicense: mit\nlanguage: en\n---\n# A model\n")
    tensors = {"model.embed_tokens.weight": (100, 32), "model.layers.0.q.weight": (32, 32), "lm_head.weight": (100, 32)}
    if shards == 1:
        (folder / "model.safetensors").write_bytes(safetensors_bytes(tensors))
        return folder
    places: dict[str, str] = {}
    for number, (name, shape) in enumerate(tensors.items(), 1):
        shard = f"model-{number:05d}-of-{len(tensors):05d}.safetensors"
        (folder / shard).write_bytes(safetensors_bytes({name: shape}))
        places[name] = shard
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return folder


def torch_zip() -> bytes:
    """What torch.save writes today: a zip with data.pkl in it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}q\x00.")
        archive.writestr("archive/data/0", b"\0" * 64)
    return buffer.getvalue()
