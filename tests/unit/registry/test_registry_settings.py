from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from headgate.registry.settings import RegistrySettings


def test_quantities_as_people_write_them() -> None:
    settings = RegistrySettings.model_validate({"max_model_bytes": "8GiB", "connect_timeout_s": "500ms"})
    assert (settings.max_model_bytes, settings.connect_timeout_s) == (8 * 2**30, 0.5)


def test_only_the_hub_is_spoken_to_by_default() -> None:
    settings = RegistrySettings()
    assert "huggingface.co" in settings.hub_hosts and settings.allowed_hosts == () == settings.plain_http_hosts


@pytest.mark.parametrize(
    "bad",
    [{"nope": 1}, {"max_model_bytes": 0}, {"max_model_bytes": "much"}, {"sources": ["ftp"]}, {"connect_timeout_s": -1}],
)
def test_impossible_values(bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        RegistrySettings.model_validate(bad)


def test_every_setting_is_described() -> None:
    schema = RegistrySettings.model_json_schema()
    assert all(entry.get("description") for entry in schema["properties"].values())
    kinds = {entry["type"] for entry in schema["properties"]["max_model_bytes"]["anyOf"]}
    assert kinds == {"integer", "string"}
