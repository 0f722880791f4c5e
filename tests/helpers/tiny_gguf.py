"""Writes seeded random-weight GGUF files of any shape: small ones for tests, large ones for benchmarks.

A llama-architecture decoder with a byte-level tokenizer and a chat template, a BERT encoder for embeddings, and a LoRA
adapter. What they say is noise; how they behave (slots, context, tokens, memory) is real.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_SPECIALS = ("<unk>", "<s>", "</s>")
_PULL = 20.0
_BERT_SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_TYPES = {
    "F32": gguf.GGMLQuantizationType.F32,
    "F16": gguf.GGMLQuantizationType.F16,
    "Q8_0": gguf.GGMLQuantizationType.Q8_0,
    "Q4_0": gguf.GGMLQuantizationType.Q4_0,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The shape of a decoder. `kv_heads` of `heads` are kept in the cache; the vocabulary is at least 259.

    `tied` shares the token table with the output; `merges` takes a byte-pair tokenizer, whose memory is larger.
    """

    layers: int = 2
    embedding: int = 64
    feed_forward: int = 128
    heads: int = 4
    kv_heads: int = 2
    vocabulary: int = 320
    context: int = 512
    kind: str = "F32"
    tied: bool = False
    merges: bool = False


TINY = Shape()


def write_llama(path: Path, shape: Shape = TINY, seed: int = 0, template: str | None = CHAT_TEMPLATE) -> Path:
    """A random decoder at `path`, the same bytes for the same shape and seed."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.embedding)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(shape.embedding // shape.heads)
    writer.add_vocab_size(shape.vocabulary)
    if shape.merges:
        _add_merge_tokenizer(writer, shape.vocabulary)
    else:
        _add_byte_tokenizer(writer, shape.vocabulary)
    if template is not None:
        writer.add_chat_template(template)
    make = _Tensors(writer, seed, _TYPES[shape.kind])
    width, head = shape.embedding, shape.embedding // shape.heads
    # Why strong token vectors: the noise then has clear favourites, so that greedy answers do not hang on rounding.
    make.matrix("token_embd.weight", (shape.vocabulary, width), 1.0, first_column=_PULL)
    if not shape.tied:
        make.matrix("output.weight", (shape.vocabulary, width), 1.0, first_column=_preferences(shape.vocabulary))
    make.ones("output_norm.weight", width)
    for layer in range(shape.layers):
        block = f"blk.{layer}."
        make.ones(block + "attn_norm.weight", width)
        make.matrix(block + "attn_q.weight", (width, width))
        make.matrix(block + "attn_k.weight", (shape.kv_heads * head, width))
        make.matrix(block + "attn_v.weight", (shape.kv_heads * head, width))
        make.matrix(block + "attn_output.weight", (width, width))
        make.ones(block + "ffn_norm.weight", width)
        make.matrix(block + "ffn_gate.weight", (shape.feed_forward, width))
        make.matrix(block + "ffn_up.weight", (shape.feed_forward, width))
        make.matrix(block + "ffn_down.weight", (width, shape.feed_forward))
    return _finish(writer, path)


def write_bert(path: Path, seed: int = 0, width: int = 64, layers: int = 2, context: int = 128) -> Path:
    """A random encoder at `path` that makes mean-pooled embeddings of `width` elements."""
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_name("tiny-encoder")
    writer.add_context_length(context)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(2 * width)
    writer.add_head_count(4)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    characters = [chr(code) for code in range(33, 127)]
    tokens = [*_BERT_SPECIALS, *("▁" + c for c in characters), *characters]
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types([3] * len(_BERT_SPECIALS) + [1] * (len(tokens) - len(_BERT_SPECIALS)))
    writer.add_token_type_count(2)
    writer.add_pad_token_id(0)
    writer.add_unk_token_id(1)
    writer.add_bos_token_id(2)
    writer.add_sep_token_id(3)
    writer.add_eos_token_id(3)
    writer.add_mask_token_id(4)
    make = _Tensors(writer, seed, _TYPES["F32"])
    make.matrix("token_embd.weight", (len(tokens), width), 1.0)
    make.matrix("position_embd.weight", (context, width), 0.1)
    make.matrix("token_types.weight", (2, width), 0.1)
    make.norm("token_embd_norm", width)
    for layer in range(layers):
        block = f"blk.{layer}."
        for name, rows, columns in (
            ("attn_q", width, width),
            ("attn_k", width, width),
            ("attn_v", width, width),
            ("attn_output", width, width),
            ("ffn_up", 2 * width, width),
            ("ffn_down", width, 2 * width),
        ):
            make.matrix(f"{block}{name}.weight", (rows, columns))
            make.zeros(f"{block}{name}.bias", rows)
        make.norm(block + "attn_output_norm", width)
        make.norm(block + "layer_output_norm", width)
    return _finish(writer, path)


def write_lora(path: Path, shape: Shape = TINY, seed: int = 1, rank: int = 4) -> Path:
    """A random LoRA adapter for `write_llama(shape)`, strong enough to change what the model says."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(rank))
    make = _Tensors(writer, seed, _TYPES["F32"])
    for layer in range(shape.layers):
        name = f"blk.{layer}.attn_output.weight"
        make.matrix(name + ".lora_a", (rank, shape.embedding), 1.0)
        make.matrix(name + ".lora_b", (shape.embedding, rank), 1.0)
    return _finish(writer, path)


class _Tensors:
    """Adds random tensors, large ones drawn and written in one type."""

    def __init__(self, writer: gguf.GGUFWriter, seed: int, kind: gguf.GGMLQuantizationType) -> None:
        self._writer = writer
        self._random = np.random.default_rng(seed)
        self._kind = kind

    def matrix(
        self,
        name: str,
        shape: tuple[int, int],
        scale: float | None = None,
        first_column: float | np.ndarray | None = None,
    ) -> None:
        values = self._random.standard_normal(shape, dtype=np.float32)
        values *= scale if scale is not None else shape[1] ** -0.5
        if first_column is not None:
            values[:, 0] = first_column
        self._writer.add_tensor(name, gguf.quants.quantize(values, self._kind), raw_dtype=self._kind)

    def ones(self, name: str, size: int) -> None:
        self._writer.add_tensor(name, np.ones(size, dtype=np.float32))

    def zeros(self, name: str, size: int) -> None:
        self._writer.add_tensor(name, np.zeros(size, dtype=np.float32))

    def norm(self, name: str, size: int) -> None:
        self.ones(name + ".weight", size)
        self.zeros(name + ".bias", size)


def _add_byte_tokenizer(writer: gguf.GGUFWriter, size: int) -> None:
    """Each byte is a token; common letters with the space before them are pieces of their own."""
    tokens: list[str] = [*_SPECIALS, *(f"<0x{byte:02X}>" for byte in range(256))]
    types = [2, 3, 3] + [6] * 256
    scores = [0.0] * len(tokens)
    letters = [chr(code) for code in range(97, 123)]
    pieces = ["▁", *letters, *(f"▁{letter}" for letter in letters)]
    pieces += [f"piece{number}" for number in range(max(0, size - len(tokens) - len(pieces)))]
    for number, piece in enumerate(pieces[: size - len(tokens)]):
        tokens.append(piece)
        types.append(1)
        scores.append(-float(number) - 1.0)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)


def _add_merge_tokenizer(writer: gguf.GGUFWriter, size: int) -> None:
    """A byte-pair tokenizer: printable characters and pairs and triples of them, one merge for each."""
    letters = [chr(code) for code in range(33, 127)]
    letters += [chr(code) for code in (*range(161, 173), *range(174, 256))] + [chr(256 + extra) for extra in range(68)]
    tokens = ["<s>", "</s>", *letters]
    merges: list[str] = []
    stems = list(letters)
    for stem in stems:
        for letter in letters:
            if len(tokens) >= size:
                break
            tokens.append(stem + letter)
            merges.append(f"{stem} {letter}")
            if len(stem) == 1:
                stems.append(stem + letter)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3] + [1] * (len(tokens) - 2))
    writer.add_token_merges(merges)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)


def _preferences(size: int) -> np.ndarray:
    """How much each token is wanted: letters and digits are, halves of characters, controls and the end are not."""
    wanted = np.full(size, -_PULL, dtype=np.float32)
    begin = len(_SPECIALS)
    wanted[begin + 32 : begin + 127] = 0.0
    wanted[begin + 257 :] = 0.0  # the bare space is not: the grammar engine trips over it
    return wanted


def _finish(writer: gguf.GGUFWriter, path: Path) -> Path:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
