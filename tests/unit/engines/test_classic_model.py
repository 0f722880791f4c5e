"""The numpy classifier agrees with scikit-learn, and refuses files that are not what they say."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from headgate.core.errors import ModelRefused
from headgate.engines import classic_model

TEXTS = [
    "Please refund my money, the kettle is broken",
    "where is my parcel? it has not arrived",
    "I cannot log in: password rejected!!",
    "refund the refund of the refund",
    "My delivery is late, a b c",
    "reset my password please",
]
LABELS = ["returns", "delivery", "account", "returns", "delivery", "account"]
HARD = ["", " ", "x", "ÄÖÜ ß İstanbul 😡", "a\n\nb  c\td", "refund " * 500, "日本語 テキスト", "I I I a a"]


@pytest.fixture
def trained(tmp_path: Path):
    """A folder in our format and scikit-learn's own pipeline, trained on the same six texts."""
    pytest.importorskip("sklearn")
    from recipes.category import fit_classifier, write_classic
    from sklearn.pipeline import make_pipeline

    union, regression = fit_classifier(TEXTS, LABELS)
    write_classic(tmp_path, union, regression)
    return tmp_path, make_pipeline(union, regression)


def test_probabilities_agree_with_scikit_learn(trained):
    folder, pipeline = trained
    model = classic_model.load(folder)
    for text in TEXTS + HARD:
        labels, probabilities_C = model.predict(text)
        assert list(labels) == sorted(set(LABELS))
        np.testing.assert_allclose(probabilities_C, pipeline.predict_proba([text])[0], atol=1e-5)


def test_two_classes_agree_too(tmp_path: Path):
    pytest.importorskip("sklearn")
    from recipes.category import fit_classifier, write_classic
    from sklearn.pipeline import make_pipeline

    union, regression = fit_classifier(TEXTS, ["a", "b"] * 3)
    write_classic(tmp_path, union, regression)
    _, probabilities_C = classic_model.load(tmp_path).predict(TEXTS[0])
    expected = make_pipeline(union, regression).predict_proba([TEXTS[0]])[0]
    np.testing.assert_allclose(probabilities_C, expected, atol=1e-5)


def write_model(
    folder: Path, *, shape: list[int], offsets: list[int], dtype: str = "F32", data: bytes = bytes(16)
) -> None:
    """A folder whose `idf_F` says what the test wants."""
    header = json.dumps({"idf_F": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + data)


@pytest.mark.parametrize(
    ("shape", "offsets", "dtype"),
    [([4], [0, 32], "F32"), ([8], [0, 16], "F32"), ([-4], [0, 16], "F32"), ([4], [8, 4], "F32"), ([4], [0, 16], "F16")],
)
def test_tensors_out_of_bounds_are_refused(tmp_path: Path, shape: list[int], offsets: list[int], dtype: str):
    write_model(tmp_path, shape=shape, offsets=offsets, dtype=dtype)
    with pytest.raises(ModelRefused):
        classic_model.read_safetensors(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    "raw", [b"", b"\x00" * 8, struct.pack("<Q", 2**60), struct.pack("<Q", 2) + b"[]", b"\xff" * 64]
)
def test_broken_headers_are_refused(tmp_path: Path, raw: bytes):
    (tmp_path / "model.safetensors").write_bytes(raw)
    with pytest.raises(ModelRefused):
        classic_model.read_safetensors(tmp_path / "model.safetensors")


def test_a_vocabulary_that_does_not_match_the_tensors_is_refused(trained):
    folder, _ = trained
    config = json.loads((folder / "classic.json").read_text())
    config["vocabulary"].popitem()
    (folder / "classic.json").write_text(json.dumps(config))
    with pytest.raises(ModelRefused, match="do not agree"):
        classic_model.load(folder)


def test_a_missing_folder_is_refused(tmp_path: Path):
    with pytest.raises(ModelRefused, match="cannot be read"):
        classic_model.load(tmp_path)
