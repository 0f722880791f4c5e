"""`headgate tune` with a real model: what it measures is kept, shown, and used by the next node."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from headgate.cli import exits
from tests.helpers.whole_house import WholeHouse, new_house

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
    with new_house(CONFIGURATION) as made:
        yield made


def test_what_is_measured_is_kept_shown_and_used(house: WholeHouse) -> None:
    tuned = house.told("tune", "ticket-extract", "--seconds", "10")
    profile = tuned["present"]["profile"]
    assert 0 < profile["first_token_s"] < profile["service_s"] < 30
    assert profile["load_s"] > 0 and profile["memory_bytes"] > profile["warm_bytes"] > 2**20
    assert profile["prefill_tokens_per_s"] > 0 and profile["decode_tokens_per_s"][0][0] == 1
    assert 50 <= tuned["shape"]["prompt_tokens"] <= 200
    options = (tuned["chosen"] or tuned["present"])["options"]
    assert (tuned["snippet"] == "") == (tuned["chosen"] is None), options

    shown = house.told("model", "show", "ticket-extract")["profiles"]
    assert [row["best"] for row in shown].count(True) == 1
    measured = next(row for row in shown if row["told"]["slots"] == 2 and not row["told"]["settings"])
    assert measured["profile"]["load_s"] == pytest.approx(profile["load_s"])

    house.up()
    wake_s = house.told("status")["pipelines"]["ticket-extract"]["wake_s"]
    assert wake_s == pytest.approx(profile["load_s"], abs=2e-3), "the node goes by what was measured"
    refused = house.command("tune", "ticket-extract", "--config", str(house.config))
    assert refused.returncode == exits.ALREADY_RUNNING and "--force" in refused.stderr
