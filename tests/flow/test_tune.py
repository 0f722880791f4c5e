"""`headgate tune` with a real model: what it measures is kept, shown, and used by the next node."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headgate.cli import exits
from tests.helpers.whole_house import WholeHouse

CONFIGURATION = """
gateway: {port: 0, drain_s: 2}
pools: {cpu: {cores: 1}}
models:
  ticket-extract: {source: "bundled:ticket-extract", cores: 0.5, slots: 2}
pipelines:
  ticket-extract: {model: ticket-extract}
"""


@pytest.fixture
def house() -> Iterator[WholeHouse]:
    """A house that is not up yet."""
    folder = Path(tempfile.mkdtemp(prefix="hgt-"))
    made = WholeHouse(folder, folder / "headgate.yaml")
    made.config.write_text(CONFIGURATION)
    try:
        yield made
    finally:
        made.close()


def told(house: WholeHouse, *words: str, code: int = 0) -> Any:
    result = house.command(*words, "--config", str(house.config), "--json")
    assert result.returncode == code, f"{words}: {result.returncode}\n{result.stdout}\n{result.stderr}"
    return json.loads(result.stdout)


def test_what_is_measured_is_kept_shown_and_used(house: WholeHouse) -> None:
    tuned = told(house, "tune", "ticket-extract", "--seconds", "10")
    profile = tuned["present"]["profile"]
    assert 0 < profile["first_token_s"] < profile["service_s"] < 30
    assert profile["load_s"] > 0 and profile["memory_bytes"] > profile["warm_bytes"] > 2**20
    assert profile["prefill_tokens_per_s"] > 0 and profile["decode_tokens_per_s"][0][0] == 1
    assert 50 <= tuned["shape"]["prompt_tokens"] <= 200
    options = (tuned["chosen"] or tuned["present"])["options"]
    assert (tuned["snippet"] == "") == (tuned["chosen"] is None), options

    shown = told(house, "model", "show", "ticket-extract")["profiles"]
    assert [row["best"] for row in shown].count(True) == 1
    measured = next(row for row in shown if row["told"]["slots"] == 2 and not row["told"]["settings"])
    assert measured["profile"]["load_s"] == pytest.approx(profile["load_s"])

    house.up()
    wake_s = told(house, "status")["pipelines"]["ticket-extract"]["wake_s"]
    assert wake_s == pytest.approx(profile["load_s"], abs=2e-3), "the node goes by what was measured"
    refused = house.command("tune", "ticket-extract", "--config", str(house.config))
    assert refused.returncode == exits.ALREADY_RUNNING and "--force" in refused.stderr
