"""A linear text classifier in numpy: TF-IDF of word and character n-grams, one matrix, one softmax.

Owns the `headgate-classic/1` folder (`classic.json` and `model.safetensors`) and the arithmetic that agrees with
scikit-learn's `TfidfVectorizer` and `LogisticRegression`. Knows nothing of HTTP, engines or training.
"""

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from headgate.core.errors import ModelRefused

FORMAT = "headgate-classic/1"
MAX_CONFIG_BYTES = 64 * 2**20
MAX_HEADER_BYTES = 2**20
MAX_TENSOR_BYTES = 2**30
MAX_TEXT_CHARACTERS = 100_000
_WORD = re.compile(r"(?u)\b\w\w+\b")
_PREFIXES = {"word": "w:", "char_wb": "c:"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Analyzer:
    """How one family of features is counted: n-grams of `low` to `high` words or characters, and their columns."""

    kind: str
    low: int
    high: int
    lowercase: bool
    columns: dict[str, int]

    def count(self, text: str) -> dict[int, int]:
        """How often each known feature (column) occurs in `text`."""
        text = text.lower() if self.lowercase else text
        cut = _cut_words if self.kind == "word" else _cut_characters
        counts = Counter(map(self.columns.get, cut(text, self.low, self.high)))
        return {column: count for column, count in counts.items() if column is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassicModel:
    """A loaded model: C classes, F features."""

    labels: tuple[str, ...]
    analyzers: tuple[Analyzer, ...]
    sublinear_tf: bool
    idf_F: NDArray[np.float32]
    coef_CF: NDArray[np.float32]
    intercept_C: NDArray[np.float32]

    def predict(self, text: str) -> tuple[tuple[str, ...], NDArray[np.float64]]:
        """Labels and their probabilities [classes] for `text`, of which the first 100,000 characters count."""
        scores_C = self.intercept_C.astype(np.float64)
        for counts in (analyzer.count(text[:MAX_TEXT_CHARACTERS]) for analyzer in self.analyzers):
            if counts:
                columns = np.fromiter(counts.keys(), np.int64, len(counts))
                weights = np.fromiter(counts.values(), np.float64, len(counts))
                weights = (1 + np.log(weights) if self.sublinear_tf else weights) * self.idf_F[columns]
                scores_C = scores_C + self.coef_CF[:, columns] @ (weights / np.linalg.norm(weights))
        odds_C = np.exp(scores_C - scores_C.max())
        return self.labels, odds_C / odds_C.sum()


def load(folder: Path) -> ClassicModel:
    """The model in `folder`. Raises ModelRefused when a file is missing, malformed, too large or does not agree."""
    config = _read_config(folder / "classic.json")
    tensors = read_safetensors(folder / "model.safetensors")
    try:
        labels = tuple(str(label) for label in config["labels"])
        features = {str(name): int(column) for name, column in config["vocabulary"].items()}
        analyzers = tuple(_read_analyzer(entry, features) for entry in config["analyzers"])
        idf_F, coef_CF, intercept_C = tensors["idf_F"], tensors["coef_CF"], tensors["intercept_C"]
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as problem:
        raise ModelRefused(f"{folder}: classic.json or model.safetensors lacks or garbles {problem}") from None
    if (
        len(labels) < 2
        or idf_F.shape != (len(features),)
        or coef_CF.shape != (len(labels), len(features))
        or intercept_C.shape != (len(labels),)
        or sorted(features.values()) != list(range(len(features)))
        or not all(1 <= analyzer.low <= analyzer.high <= 8 for analyzer in analyzers)
    ):
        raise ModelRefused(f"{folder}: labels, vocabulary, n-gram ranges and tensor shapes do not agree")
    if not all(np.isfinite(tensor).all() for tensor in (idf_F, coef_CF, intercept_C)):
        raise ModelRefused(f"{folder}: a weight is not a finite number")
    return ClassicModel(
        labels=labels,
        analyzers=analyzers,
        sublinear_tf=bool(config.get("sublinear_tf", False)),
        idf_F=idf_F,
        coef_CF=coef_CF,
        intercept_C=intercept_C,
    )


def _read_analyzer(entry: dict[str, Any], features: dict[str, int]) -> Analyzer:
    prefix = _PREFIXES[entry["kind"]]
    low, high = entry["ngram_range"]
    columns = {name.removeprefix(prefix): column for name, column in features.items() if name.startswith(prefix)}
    return Analyzer(
        kind=entry["kind"], low=int(low), high=int(high), lowercase=bool(entry["lowercase"]), columns=columns
    )


def _cut_words(text: str, low: int, high: int) -> list[str]:
    """Word n-grams as scikit-learn's `word` analyzer cuts them: words of two letters or more, joined by a space."""
    words = _WORD.findall(text)
    return [" ".join(words[i : i + size]) for size in range(low, high + 1) for i in range(len(words) - size + 1)]


def _cut_characters(text: str, low: int, high: int) -> list[str]:
    """Character n-grams inside space-padded words, as scikit-learn's `char_wb` analyzer cuts them.

    Why: a word no longer than `size` counts once and is not cut into longer n-grams, as in `_char_wb_ngrams`.
    """
    grams: list[str] = []
    for word in text.split():
        padded = f" {word} "
        for size in range(low, high + 1):
            grams += [padded[i : i + size] for i in range(max(len(padded) - size, 0) + 1)]
            if len(padded) <= size:
                break
    return grams


def read_safetensors(path: Path) -> dict[str, NDArray[np.float32]]:
    """The float32 tensors of a safetensors file. Raises ModelRefused when anything in it is out of bounds.

    Source: https://github.com/huggingface/safetensors (8-byte little-endian header length, JSON header, raw data).
    """
    try:
        if path.stat().st_size > MAX_TENSOR_BYTES:
            raise ModelRefused(f"{path}: more than {MAX_TENSOR_BYTES} bytes")
        raw = path.read_bytes()
    except OSError as problem:
        raise ModelRefused(f"{path}: cannot be read ({problem.strerror})") from None
    header_bytes = int.from_bytes(raw[:8], "little")
    if len(raw) < 8 or not 2 <= header_bytes <= min(MAX_HEADER_BYTES, len(raw) - 8):
        raise ModelRefused(f"{path}: the header's length is out of bounds")
    try:
        header = json.loads(raw[8 : 8 + header_bytes])
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        return {name: _read_tensor(raw[8 + header_bytes :], entry) for name, entry in entries.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
        raise ModelRefused(f"{path}: not a valid safetensors file ({problem})") from None


def _read_tensor(data: bytes, entry: dict[str, Any]) -> NDArray[np.float32]:
    shape = tuple(int(size) for size in entry["shape"])
    begin, end = (int(offset) for offset in entry["data_offsets"])
    if entry["dtype"] != "F32" or len(shape) > 2 or any(size < 0 for size in shape):
        raise ValueError("a tensor is not float32 of one or two dimensions")
    count = 1
    for size in shape:
        count *= size
    if not 0 <= begin <= end <= len(data) or end - begin != 4 * count:
        raise ValueError("a tensor's offsets are out of bounds")
    return np.frombuffer(data, dtype="<f4", count=count, offset=begin).reshape(shape)


def _read_config(path: Path) -> dict[str, Any]:
    config: Any
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise ModelRefused(f"{path}: more than {MAX_CONFIG_BYTES} bytes")
        config = json.loads(path.read_bytes())
    except OSError as problem:
        raise ModelRefused(f"{path}: cannot be read ({problem.strerror})") from None
    except (ValueError, RecursionError):
        raise ModelRefused(f"{path}: not valid JSON") from None
    if not isinstance(config, dict) or cast(dict[str, Any], config).get("format") != FORMAT:
        raise ModelRefused(f"{path}: the format must be {FORMAT!r}")
    return cast(dict[str, Any], config)
