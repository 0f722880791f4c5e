"""Trains `ticket-category`, the bundled model that is no language model: TF-IDF and logistic regression.

Writes the `headgate-classic/1` folder that `headgate.engines.classic_model` reads; scikit-learn is needed only here.
"""

import json
import struct
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import FeatureUnion, make_pipeline

from recipes.tickets import Draw, draw_tickets

SEED = 20261123
TRAINING_TICKETS = 8000
ANALYZERS = (("word", (1, 2)), ("char_wb", (2, 4)))
FEATURES_KEPT = 9000


def train_category(out: Path) -> None:
    """Trains on generated tickets and writes `out/ticket-category/`."""
    started = time.monotonic()
    tickets = list(draw_tickets(SEED, TRAINING_TICKETS, Draw(scramble=True)))
    texts, labels = [t.text for t in tickets], [t.category for t in tickets]
    analyzers = choose_features(texts, labels)
    union, regression = fit_classifier(texts, labels, analyzers)
    write_classic(out / "ticket-category", union, regression)
    facts = {"job": "ticket-category", "seed": SEED, "tickets": len(tickets), "features": regression.n_features_in_,
             "seconds": round(time.monotonic() - started, 1)}  # fmt: skip
    (out / "ticket-category.json").write_text(json.dumps(facts, indent=1) + "\n")


def fit_classifier(
    texts: list[str], labels: list[str], vocabularies: list[list[str]] | None = None
) -> tuple[FeatureUnion, LogisticRegression]:
    """Vectorizers (one for each of `ANALYZERS`, limited to `vocabularies` when given) and the regression on them."""
    parts = []
    for i, (kind, sizes) in enumerate(ANALYZERS):
        vocabulary = vocabularies[i] if vocabularies else None
        parts.append(
            (kind, TfidfVectorizer(analyzer=kind, ngram_range=sizes, sublinear_tf=True, vocabulary=vocabulary))
        )
    union = FeatureUnion(parts)
    regression = LogisticRegression(C=10.0, max_iter=400)
    make_pipeline(union, regression).fit(texts, labels)
    return union, regression


def choose_features(texts: list[str], labels: list[str]) -> list[list[str]]:
    """The `FEATURES_KEPT` n-grams that weigh most in a first regression, by analyzer, sorted."""
    union, regression = fit_classifier(texts[:3000], labels[:3000])
    spread_F = regression.coef_.max(axis=0) - regression.coef_.min(axis=0)
    kept = set(np.argsort(-spread_F, kind="stable")[:FEATURES_KEPT].tolist())
    chosen, offset = [], 0
    for _, vectorizer in union.transformer_list:
        grams = vectorizer.get_feature_names_out().tolist()
        chosen.append([gram for i, gram in enumerate(grams) if offset + i in kept])
        offset += len(grams)
    return chosen


def write_classic(folder: Path, union: FeatureUnion, regression: LogisticRegression) -> None:
    """Writes `classic.json` and `model.safetensors`; two classes become two rows of opposite halves."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary: dict[str, int] = {}
    for name, vectorizer in union.transformer_list:
        offset = len(vocabulary)
        ordered = sorted(vectorizer.vocabulary_.items(), key=lambda item: item[1])
        vocabulary |= {f"{name[0]}:{gram}": offset + int(column) for gram, column in ordered}
    config = {
        "format": "headgate-classic/1", "task": "classify", "name": "ticket-category", "licence": "Apache-2.0",
        "labels": regression.classes_.tolist(),
        "analyzers": [{"kind": kind, "ngram_range": list(sizes), "lowercase": True} for kind, sizes in ANALYZERS],
        "sublinear_tf": True, "norm": "l2", "vocabulary": vocabulary,
    }  # fmt: skip
    (folder / "classic.json").write_text(json.dumps(config, ensure_ascii=False, separators=(",", ":")))
    coef_CF, intercept_C = regression.coef_, regression.intercept_
    if len(coef_CF) == 1:
        coef_CF, intercept_C = np.concatenate([-coef_CF, coef_CF]) / 2, np.concatenate([-intercept_C, intercept_C]) / 2
    idf_F = np.concatenate([vectorizer.idf_ for _, vectorizer in union.transformer_list])
    write_safetensors(folder / "model.safetensors", {"idf_F": idf_F, "coef_CF": coef_CF, "intercept_C": intercept_C})


def write_safetensors(path: Path, tensors: dict[str, NDArray[np.float64]]) -> None:
    """Writes `tensors` as float32."""
    header, blobs, offset = {}, [], 0
    for name, tensor in tensors.items():
        blob = np.ascontiguousarray(tensor, dtype="<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [offset, offset + len(blob)]}
        blobs.append(blob)
        offset += len(blob)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(blobs))
