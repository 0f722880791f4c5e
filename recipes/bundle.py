"""Puts trained models into the package: `python -m recipes.bundle --models DIR`.

Copies the files and writes `index.json`, with each model's own answer to an example ticket. The digest of a folder is
the SHA-256 of its files' `sha256sum` lines, sorted by name.
"""

import argparse
import hashlib
import json
import shutil
from pathlib import Path

from headgate.engines import classic_model
from recipes.jobs import JOBS
from recipes.serve import serve

BUNDLED = Path(__file__).parent.parent / "src/headgate/registry/bundled"
EXAMPLE = (
    "Hello team,\n\nMy Lumo kettle K-45 arrived broken. Order number is 48213. I paid $49.90 on 14 March 2026. "
    "Please send me a refund.\n\nKind regards,\nMaria Lopez"
)
CATEGORY = "ticket-category"


def main() -> None:
    """Parses the command line and fills the package's folder of bundled models."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, required=True)
    models: Path = parser.parse_args().models
    BUNDLED.mkdir(parents=True, exist_ok=True)
    entries = []
    for job in JOBS.values():
        path = BUNDLED / f"{job.name}.gguf"
        if (models / path.name).exists():
            shutil.copyfile(models / path.name, path)
        with serve(path) as served:
            entries.append(describe(path, "gguf", job.describes, served.answer(EXAMPLE)))
    folder = BUNDLED / CATEGORY
    if (models / CATEGORY).exists():
        shutil.copytree(models / CATEGORY, folder, dirs_exist_ok=True)
    labels, probabilities_C = classic_model.load(folder).predict(EXAMPLE)
    describes = f"Customer ticket to one of {', '.join(labels)}; linear, the job that needs no language model."
    entries.append(describe(folder, "classic", describes, labels[int(probabilities_C.argmax())]))
    (BUNDLED / "index.json").write_text(json.dumps(entries, indent=1, ensure_ascii=False) + "\n")


def describe(path: Path, form: str, describes: str, answer: str) -> dict[str, str | int]:
    """One entry of the index."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    digests = [(hashlib.sha256(file.read_bytes()).hexdigest(), file.name) for file in files]
    lines = "".join(f"{digest}  {name}\n" for digest, name in digests)
    return {
        "name": path.stem,
        "file": path.name,
        "sha256": hashlib.sha256(lines.encode()).hexdigest() if path.is_dir() else digests[0][0],
        "bytes": sum(file.stat().st_size for file in files),
        "format": form,
        "licence": "Apache-2.0",
        "origin": "bundled: recipes/train.py",
        "describes": describes,
        "example": EXAMPLE,
        "example_answer": answer,
    }


if __name__ == "__main__":
    main()
