from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.helpers.model_files import (
    ARRAY,
    TEMPLATE,
    TEXT,
    U32,
    U64,
    gguf_bytes,
    gguf_text,
    llama_metadata,
    write_gguf,
)

from headgate.core.errors import ModelRefused
from headgate.registry.gguf import SkippedArray, read_gguf
from headgate.registry.gguf_facts import describe_gguf, header_facts, split_of


def refused(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(ModelRefused) as caught:
        describe_gguf(read_gguf(path))
    return caught.value.message


def test_everything_a_header_tells(tmp_path: Path) -> None:
    metadata = llama_metadata(tokenizer__chat_template=TEMPLATE)
    facts = describe_gguf(read_gguf(write_gguf(tmp_path / "m.gguf", metadata)))
    assert (facts.architecture, facts.task, facts.name, facts.licence) == ("llama", "generate", "tiny", "apache-2.0")
    assert facts.parameters == 3200 + 1024 + 1024 + 3200
    assert (facts.context, facts.vocabulary) == (256, 100)
    assert facts.chat_template == TEMPLATE
    shape = facts.header
    assert (shape.layers, shape.embedding, shape.feed_forward, shape.heads) == (2, 32, 64, 4)
    assert (shape.kv_heads, shape.key_length, shape.value_length) == ((2, 2), 8, 8)
    assert shape.token_embedding_bytes == 12800
    assert shape.output_bytes == 6400
    assert shape.layer_bytes == (2048, 1088)
    assert shape.tensor_bytes == 12800 + 6400 + 2048 + 1088


def test_version_2_reads_the_same(tmp_path: Path) -> None:
    assert describe_gguf(read_gguf(write_gguf(tmp_path / "m.gguf", version=2))).parameters == 8448


def test_long_arrays_are_counted_not_kept(tmp_path: Path) -> None:
    header = read_gguf(write_gguf(tmp_path / "m.gguf"))
    assert header.metadata["tokenizer.ggml.tokens"] == SkippedArray(count=100)


@pytest.mark.parametrize("name", ["bert", "nomic-bert", "jina-bert-v2"])
def test_encoders_embed(tmp_path: Path, name: str) -> None:
    metadata = {f"{name}{key[5:]}" if key.startswith("llama") else key: v for key, v in llama_metadata().items()}
    metadata["general.architecture"] = name
    assert describe_gguf(read_gguf(write_gguf(tmp_path / "m.gguf", metadata))).task == "embed"


def test_a_pooling_type_embeds(tmp_path: Path) -> None:
    metadata = llama_metadata(llama__pooling_type=1)
    assert describe_gguf(read_gguf(write_gguf(tmp_path / "m.gguf", metadata))).task == "embed"


def test_kv_heads_by_layer_and_sliding_window(tmp_path: Path) -> None:
    metadata = llama_metadata(
        llama__attention__head_count_kv=[2, 0],
        llama__attention__sliding_window=64,
        llama__attention__sliding_window_pattern=[True, False],
        llama__attention__key_length=16,
    )
    shape = header_facts(read_gguf(write_gguf(tmp_path / "m.gguf", metadata)))
    assert (shape.kv_heads, shape.sliding_window, shape.sliding_layers, shape.key_length) == ((2, 0), 64, 1, 16)


def test_a_window_of_an_unknown_pattern_counts_no_layer(tmp_path: Path) -> None:
    metadata = llama_metadata(llama__attention__sliding_window=64)
    assert header_facts(read_gguf(write_gguf(tmp_path / "m.gguf", metadata))).sliding_layers == 0


def test_split_parts_tell_their_number(tmp_path: Path) -> None:
    metadata = llama_metadata(split__no=1, split__count=3)
    assert split_of(read_gguf(write_gguf(tmp_path / "m.gguf", metadata))) == (1, 3)
    assert split_of(read_gguf(write_gguf(tmp_path / "whole.gguf"))) == (0, 1)


@pytest.mark.parametrize("kept", [0, 3, 4, 8, 20, 23, 24, 60, 200, 900, -1, -7000])
def test_a_truncated_file_is_refused(tmp_path: Path, kept: int) -> None:
    whole = gguf_bytes(tensors=(("token_embd.weight", (32, 100), 0),))
    message = refused(tmp_path / "m.gguf", whole[:kept])
    assert "cut off" in message or "not a GGUF" in message or "fit in it" in message


def test_the_missing_bytes_are_named(tmp_path: Path) -> None:
    whole = gguf_bytes(tensors=(("token_embd.weight", (32, 100), 0),))
    assert "ends 5 bytes after the end" in refused(tmp_path / "m.gguf", whole[:-5])


HOSTILE = {
    "tensor count": b"GGUF" + struct.pack("<IQQ", 3, 2**63, 0),
    "metadata count": b"GGUF" + struct.pack("<IQQ", 3, 0, 2**60),
    "key length": b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 2**62) + b"x" * 64,
    "text length": b"GGUF"
    + struct.pack("<IQQ", 3, 0, 1)
    + gguf_text("k")
    + struct.pack("<IQ", TEXT, 2**40)
    + b"x" * 64,
    "array count": b"GGUF"
    + struct.pack("<IQQ", 3, 0, 1)
    + gguf_text("k")
    + struct.pack("<IIQ", ARRAY, U64, 2**61)
    + b"x" * 64,
    "array of texts": b"GGUF"
    + struct.pack("<IQQ", 3, 0, 1)
    + gguf_text("k")
    + struct.pack("<IIQ", ARRAY, TEXT, 2**32)
    + b"x" * 64,
    "nested arrays": b"GGUF"
    + struct.pack("<IQQ", 3, 0, 1)
    + gguf_text("k")
    + struct.pack("<I", ARRAY)
    + struct.pack("<IQ", ARRAY, 1) * 100
    + b"x" * 64,
    "value type": b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + gguf_text("k") + struct.pack("<I", 99) + b"x" * 64,
    "version 1": b"GGUF" + struct.pack("<III", 1, 0, 0) + b"x" * 64,
    "big endian": b"GGUF" + struct.pack(">IQQ", 3, 0, 0) + b"x" * 64,
    "twice": gguf_bytes({"a": 1})[:12] + struct.pack("<Q", 2) + (gguf_text("a") + struct.pack("<II", U32, 1)) * 2,
    "key not utf-8": b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + gguf_text(b"\xff\xfe") + struct.pack("<II", U32, 1),
    "boolean 7": b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + gguf_text("k") + struct.pack("<IB", 7, 7) + b"x" * 64,
    "bad shape": gguf_bytes().replace(struct.pack("<QQ", 32, 100), struct.pack("<QQ", 2**40, 2**40), 1),
    "tensor type": gguf_bytes(tensors=(("t", (32, 1), 0),)).replace(
        struct.pack("<QQI", 32, 1, 0), struct.pack("<QQI", 32, 1, 31), 1
    ),
    "tensor outside": gguf_bytes(tensors=(("t", (32, 1), 0),)).replace(
        struct.pack("<QQIQ", 32, 1, 0, 0), struct.pack("<QQIQ", 32, 1, 0, 2**62), 1
    ),
    "tensor misaligned": gguf_bytes(tensors=(("t", (32, 1), 0),)).replace(
        struct.pack("<QQIQ", 32, 1, 0, 0), struct.pack("<QQIQ", 32, 1, 0, 3), 1
    ),
    "overlap": gguf_bytes(tensors=(("t", (32, 1), 0), ("u", (32, 2), 0))).replace(
        struct.pack("<QQIQ", 32, 2, 0, 128), struct.pack("<QQIQ", 32, 2, 0, 64), 1
    ),
    "same name": gguf_bytes(tensors=(("t", (32, 1), 0), ("t", (32, 1), 0))),
    "alignment": gguf_bytes(llama_metadata(general__alignment=33)),
    "no architecture": gguf_bytes(llama_metadata(general__architecture=None)),
    "odd architecture": gguf_bytes(llama_metadata(general__architecture="../../x")),
    "endless layers": gguf_bytes(llama_metadata(llama__block_count=2**32 - 1)),
    "no layers": gguf_bytes(llama_metadata(llama__block_count=None)),
    "layers as text": gguf_bytes(llama_metadata(llama__block_count="2")),
    "too few heads": gguf_bytes(llama_metadata(llama__attention__head_count_kv=[2])),
    "template as number": gguf_bytes(llama_metadata(tokenizer__chat_template=3)),
    "adapter": gguf_bytes(llama_metadata(general__type="adapter")),
    "projector": gguf_bytes(llama_metadata(general__type="mmproj")),
    "no tensors": gguf_bytes(tensors=()),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_headers_are_refused_with_a_sentence(tmp_path: Path, case: str) -> None:
    tracemalloc.start()
    try:
        message = refused(tmp_path / "m.gguf", HOSTILE[case])
        assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    finally:
        tracemalloc.stop()
    assert message.endswith(".") and len(message) < 500


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match="cannot be read"):
        read_gguf(tmp_path / "none.gguf")


GOOD = gguf_bytes(
    llama_metadata(extra=[1, 2, 3], flags=[True, False], nested=(ARRAY, struct.pack("<IQIQI", 9, 1, 4, 1, 7)))
)


def check_any(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    tracemalloc.start()
    try:
        describe_gguf(read_gguf(path))
    except ModelRefused as error:
        assert error.message
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 8 * 2**20


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tail=st.binary(max_size=400))
def test_any_bytes_behind_the_magic(tmp_path: Path, tail: bytes) -> None:
    check_any(tmp_path / "m.gguf", b"GGUF\x03\0\0\0" + tail)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    edits=st.lists(
        st.tuples(
            st.integers(0, 2200),
            st.one_of(
                st.binary(min_size=1, max_size=9),
                st.sampled_from([b"\xff" * 8, b"\0" * 8, struct.pack("<Q", 2**63), struct.pack("<Q", 2**31)]),
            ),
        ),
        min_size=1,
        max_size=4,
    ),
    cut=st.one_of(st.none(), st.integers(0, 2500)),
)
def test_any_change_of_a_good_header(tmp_path: Path, edits: list[tuple[int, bytes]], cut: int | None) -> None:
    content = bytearray(GOOD)
    for at, new in edits:
        content[at : at + len(new)] = new
    check_any(tmp_path / "m.gguf", bytes(content[:cut]))


def test_a_vocabulary_longer_than_a_window_is_walked_to_its_end(tmp_path: Path) -> None:
    tokens = [("t" * (number % 300)) for number in range(8_000)] + ["x" * 400_000, "end"]
    header = read_gguf(write_gguf(tmp_path / "m.gguf", llama_metadata(tokenizer__ggml__tokens=tokens, after=7)))
    assert header.metadata["tokenizer.ggml.tokens"] == SkippedArray(count=8_002) and header.metadata["after"] == 7
