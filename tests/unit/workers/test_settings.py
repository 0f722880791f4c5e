"""Settings as people write them."""

from __future__ import annotations

import pytest
import yaml
from pydantic import ValidationError

from headgate.workers.settings import WorkerSettings


def test_quantities_as_people_write_them() -> None:
    settings = WorkerSettings.model_validate({"grace_s": "500ms", "log_bytes": "1 MiB", "isolate": "off"})
    assert (settings.grace_s, settings.log_bytes) == (0.5, 1 << 20)


@pytest.mark.parametrize("word", ["on", "off", "auto", '"on"', "true", "no"])
def test_a_switch_may_be_written_bare(word: str) -> None:
    settings = WorkerSettings.model_validate(yaml.safe_load(f"isolate: {word}"))
    assert settings.isolate == {"true": "on", "no": "off"}.get(word, word.strip('"'))


def test_editors_take_a_switch_as_a_word_or_a_boolean() -> None:
    kinds = WorkerSettings.model_json_schema()["properties"]["isolate"]["anyOf"]
    assert kinds == [{"enum": ["auto", "on", "off"], "type": "string"}, {"type": "boolean"}]


@pytest.mark.parametrize(
    "raw",
    [
        {"grace_s": "soon"},
        {"log_keep": -1},
        {"isolate": "perhaps"},
        {"isolate": 1},
        {"colour": 1},
        {"log_bytes": 0},
        {"ready_s": "0s"},
    ],
)
def test_nonsense_is_refused(raw: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        WorkerSettings.model_validate(raw)
