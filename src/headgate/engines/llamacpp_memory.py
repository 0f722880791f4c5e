"""Peak resident memory of a llama.cpp replica, from the header of its GGUF file. Pure arithmetic; fitted below."""

from __future__ import annotations

from headgate.core.errors import ModelRefused
from headgate.core.model import Version
from headgate.engines.engine import Memory, ModelOptions


def estimate_llamacpp_memory(version: Version, options: ModelOptions, batch: int) -> Memory:
    """Peak resident bytes by part. Raises ModelRefused when the version has no header facts."""
    header = version.header
    if header is None:
        raise ModelRefused("The header of this version is not known. Add the model again.", param="source")
    tokens = options.context * options.slots
    kv = sum(heads * (header.key_length + header.value_length) * 2 * tokens for heads in header.kv_heads)
    compute = 4 * batch * (header.vocabulary + 3 * header.feed_forward + 8 * header.embedding)
    return Memory(weights=header.tensor_bytes, kv_cache=kv, compute=compute, overhead=60 * 1024 * 1024)
