"""What `headgate tune` says of what was measured, and how it refuses. Real replicas are in tests/flow."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from headgate.allocation.profile import Profile
from headgate.app import tuning
from headgate.app.house import House
from headgate.app.tuning import Tuned
from headgate.cli import exits
from headgate.cli.program import program
from headgate.core.model import Version
from headgate.engines.engine import Knob, ModelOptions
from headgate.evaluation.quantisations import Beside
from headgate.evaluation.requests import Shape
from headgate.evaluation.tuning import Comparison, Outcome, Promise, Tried

PRESENT = ModelOptions(context=512, slots=4)
CHOSEN = replace(PRESENT, slots=8, settings={"batch": 128})
BETTER = Comparison(gain=1.2, low=1.1, likely=True, unlikely=False, pairs=16, kept=True)
TUNED = Tuned(
    name="m",
    version=Version(
        digest="sha256:0123456789abcdef",
        format="gguf",
        task="generate",
        architecture="llama",
        parameters=None,
        context=512,
        bytes=1,
        path="",
    ),
    engine="llamacpp",
    hardware="a processor",
    knobs=(Knob(name="slots", values=(4, 8), default=1), Knob(name="batch", values=(64, 128), default=64)),
    shape=Shape(),
    promise=Promise(first_token_s=0.5, per_token_s=0.1),
    seconds=12.0,
    outcome=Outcome(
        present=PRESENT,
        chosen=CHOSEN,
        tried=(
            Tried(knob="slots", value=8, verdict="better", comparison=BETTER),
            Tried(knob="kv_type", value="q8_0", verdict="other answers", why="2 of 6 greedy answers changed"),
        ),
        untried=("context",),
        confirmation=BETTER,
    ),
    present=Profile(service_s=0.5, load_s=0.2, decode_tokens_per_s=((1, 50.0), (4, 80.0)), slow=((1, 1.0), (4, 2.5))),
    best=Profile(service_s=0.4),
    beside=(Beside(name="m4", version="sha256:4", bits=4.5, gain=1.5, low=1.3, same=5, asked=8, memory_bytes=2**20),),
    disturbed=0.4,
    snippet="models:\n  m:\n    slots: 8\n",
)
STAYS = replace(TUNED, outcome=replace(TUNED.outcome, chosen=PRESENT), snippet="", disturbed=0.01)


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADGATE_STATE", str(tmp_path / "s"))


def call(*words: str) -> Any:
    return CliRunner().invoke(program, ["tune", *words])


def tell(monkeypatch: pytest.MonkeyPatch, told: Tuned) -> None:
    monkeypatch.setattr(tuning, "tune", lambda *_, **__: told)


def test_a_gain_is_told_with_its_certainty_and_what_to_write(monkeypatch: pytest.MonkeyPatch) -> None:
    tell(monkeypatch, TUNED)
    result = call("m")
    assert result.exit_code == 0, result.output
    assert "20.0% more requests a second a core (at least 10.0%" in result.stdout
    assert "slots: 8" in result.stdout and "2 of 6 greedy answers changed" in result.stdout
    assert "Not tried for want of time: context; more --seconds" in result.stdout and "5 of 8" in result.stdout
    assert "other processes took 40%" in result.stderr


def test_settings_that_stay_are_said_to_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    tell(monkeypatch, STAYS)
    result = call("m")
    assert "Nothing beats the present settings by more than noise: they stay." in result.stdout
    assert "chosen" not in result.stdout and "warning" not in result.stderr
    assert "not surely, when it was measured again" in result.stdout
    tell(monkeypatch, replace(STAYS, outcome=replace(STAYS.outcome, confirmation=None)))
    assert "There was no time to confirm what looked better" in call("m").stdout


def test_an_engine_without_knobs_is_only_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    tell(monkeypatch, replace(STAYS, knobs=(), engine="classic"))
    assert "classic has no settings" in call("m").stdout


def test_json_has_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    tell(monkeypatch, TUNED)
    told = json.loads(call("m", "--json").stdout)
    assert told["chosen"]["options"]["slots"] == 8 and told["confirmation"]["better"] is True
    assert told["present"]["profile"]["decode_tokens_per_s"] == [[1, 50.0], [4, 80.0]]
    assert told["tried"][1]["comparison"] is None and told["beside"][0]["bits"] == 4.5


def test_unknown_models_and_too_little_time_are_refused_with_a_cure() -> None:
    unknown = call("nothing-of-that-name")
    assert unknown.exit_code == exits.NOT_FOUND and "headgate model list" in unknown.stderr
    short = call("ticket-category", "--seconds", "3")
    assert short.exit_code == exits.BAD_INPUT and "--seconds" in short.stderr


def test_a_house_that_serves_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(House, "running", lambda _: object())
    result = call("ticket-category")
    assert result.exit_code == exits.ALREADY_RUNNING and "--force" in result.stderr
