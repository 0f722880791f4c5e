"""Settings of engines: what YAML makes of a bare word is taken as it was written."""

from __future__ import annotations

import pytest
import yaml
from pydantic import ValidationError

from headgate.engines.settings import LlamaCppSettings


def test_flags_may_be_written_bare() -> None:
    told = yaml.safe_load("flags: [--flash-attn, on, --threads-http, 2, --cont-batching, off]")
    settings = LlamaCppSettings.model_validate(told)
    assert settings.flags == ("--flash-attn", "on", "--threads-http", "2", "--cont-batching", "off")


def test_a_flag_is_no_list() -> None:
    with pytest.raises(ValidationError):
        LlamaCppSettings.model_validate({"flags": [["--a"]]})
