"""Peak resident memory of a llama.cpp replica, and what it takes of a GPU, from the header of its GGUF file. Pure
arithmetic.

Source of the constants: fitted on VmHWM of packaged llama.cpp 11549 (xllamacpp 2026.10, Linux x86-64, CPU) over the
shapes of benchmarks/memory_estimate.py that are not marked as held out; its results lie in benchmarks/results/.
"""

from __future__ import annotations

from headgate.core.errors import ModelRefused
from headgate.core.model import Version
from headgate.engines.engine import Memory, ModelOptions

_PROCESS = 31.5 * 2**20  # interpreter, llama.cpp's code and its threads
# Bytes a token of the vocabulary takes in the tokenizer's tables: 190 were measured without merges, 410 with; a large
# vocabulary has them nearly always.
_PER_VOCABULARY = 380
# Bytes of one element of the KV cache. Source: ggml's block_q8_0 has 32 elements of a byte and a scale of two.
_CELL = {"f16": 2.0, "q8_0": 34 / 32}
_CONTEXT_STEP = 256  # llama.cpp rounds the context of a slot up to a multiple of this
_UNQUANTISED_BITS = 15.0
# What a process takes of a GPU before it has loaded anything: CUDA's context, which grows with the GPU, and the work
# space of its matrix products. Source: 107 MiB on an RTX 4060 Ti and 555 MiB on an RTX PRO 6000 (llama.cpp pull request
# 23604), 32 MiB of work space (cuBLAS documentation, compute capability 9.0); rounded up, and not measured here.
_DEVICE_CONTEXT = 640 * 2**20
_PACKED_BITS = 5.0  # kinds of fewer bits an element are packed anew on x86-64 (Q4_0, Q4_K, IQ4_NL, Q2_K)


def maps_weights(version: Version) -> bool:
    """Whether the weights are mapped from the file, so that replicas share them and the page cache holds them.

    Why not always: llama.cpp packs many quantised kinds anew for the processor at hand; a mapped file would then be
    resident beside the packed copy, and the need for memory twice what the header says.
    """
    if version.header is None or not version.parameters:
        return False
    return 8 * version.header.tensor_bytes / version.parameters > _UNQUANTISED_BITS


def estimate_llamacpp_memory(version: Version, options: ModelOptions, batch: int, *, kv_type: str = "f16") -> Memory:
    """Peak resident bytes by part, and those on a GPU. `batch` is prompt tokens in one step.

    Raises ModelRefused when the version has no header facts.
    """
    header = version.header
    if header is None:
        raise ModelRefused("The header of this version is not known. Add the model again.", param="source")
    context = -(-options.context // _CONTEXT_STEP) * _CONTEXT_STEP
    here = max(0, header.layers - options.gpu_layers)  # the last layers go to the GPU first
    offloaded = sum(header.layer_bytes[here:])
    output_there = options.gpu_layers > header.layers
    if output_there:
        offloaded += header.output_bytes
    window = context
    if header.sliding_window:
        window = min(context, -(-(header.sliding_window + batch) // _CONTEXT_STEP) * _CONTEXT_STEP)
    # Which layers slide is not in the facts, only how many; they are counted as the first ones.
    elements = [
        heads * (header.key_length + header.value_length) * (window if layer < header.sliding_layers else context)
        for layer, heads in enumerate(header.kv_heads)
    ]
    cell = options.slots * _CELL[kv_type]
    # Source: llama.cpp keeps one step's activations and its scores for the next token, and a mask (F32 and F16) of the
    # whole context for each token of a step.
    activations = 4 * batch * (2 * header.feed_forward + 4 * header.embedding)
    scores = 4 * header.vocabulary * (options.slots + 1)
    mask = 5 * batch * context * options.slots
    overhead = int(_PROCESS) + _PER_VOCABULARY * header.vocabulary
    # Why: a table that is input and output at once is kept as it is for the one and packed for the other.
    table = header.vocabulary * header.embedding
    tied = header.token_embedding_bytes if not header.output_bytes else 0
    twice = tied if table and not output_there and 8 * tied / table < _PACKED_BITS else 0
    device = 0
    if options.gpu_layers:
        # Why scores of a whole step: on a GPU what was reserved is taken, used or not. A tied table is copied there.
        reserved = 4 * header.vocabulary * batch if output_there else 0
        copied = tied if output_there else 0
        device = offloaded + copied + int(sum(elements[here:]) * cell) + activations + reserved + mask + _DEVICE_CONTEXT
    return Memory(
        weights=max(0, header.tensor_bytes + twice - offloaded),
        kv_cache=int(sum(elements[:here]) * cell),
        compute=activations + scores + mask,
        overhead=overhead,
        device=device,
    )
