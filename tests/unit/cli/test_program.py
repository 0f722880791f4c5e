"""The program as scripts meet it: help, JSON alone on stdout, exit codes, errors with a cure."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from headgate.cli import exits
from headgate.cli.program import program
from headgate.core import errors

COMMANDS = (
    ["up", "down", "reload", "status", "top", "chat", "demo", "doctor", "systemd", "version"],
    ["explain", "simulate", "tune"],
    [f"trace {name}" for name in ["record", "show"]],
    [f"model {name}" for name in ["add", "list", "show", "verify", "remove"]],
    [f"key {name}" for name in ["create", "list", "revoke"]],
    [f"config {name}" for name in ["check", "schema"]],
)
ALL = [name for group in COMMANDS for name in group]


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # a long state folder has its sockets there
    monkeypatch.setenv("HEADGATE_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("HEADGATE_CONFIG", raising=False)
    monkeypatch.delenv("HEADGATE_DEBUG", raising=False)
    return tmp_path / "state"


def call(*words: str, stdin: str | None = None) -> Any:
    return CliRunner().invoke(program, list(words), input=stdin)


def told(*words: str, code: int = 0) -> Any:
    """The JSON on stdout; nothing else may be there."""
    result = call(*words)
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def test_every_command_is_known_and_has_help() -> None:
    tree: Any = get_command(program)
    found = [
        f"{name} {sub}".strip()
        for name, command in tree.commands.items()
        for sub in (command.commands if hasattr(command, "commands") else ("",))
    ]
    assert sorted(found) == sorted(ALL)
    for words in ALL:
        result = call(*words.split(), "--help")
        assert result.exit_code == 0
        assert "Usage" in result.stdout


def test_every_command_takes_json() -> None:
    tree: Any = get_command(program)
    commands = [tree.commands[one] for one in ALL if " " not in one]
    commands += [tree.commands[group.split()[0]].commands[group.split()[1]] for group in ALL if " " in group]
    for command in commands:
        assert any("--json" in option.opts for option in command.params), command.name


@pytest.mark.parametrize("words", [["status"], ["top"], ["down"], ["chat", "x", "hello"]])
def test_not_running_is_told_with_a_cure(words: Sequence[str]) -> None:
    result = call(*words)
    assert result.exit_code == exits.NOT_RUNNING
    assert result.stdout == ""
    assert "headgate up" in result.stderr
    assert told(*words, "--json", code=exits.NOT_RUNNING)["error"]["code"] == "not_running"


def test_errors_are_never_tracebacks(monkeypatch: pytest.MonkeyPatch) -> None:
    from headgate.app import checkup

    def fail(_where: object) -> None:
        raise ZeroDivisionError("a fault")

    monkeypatch.setattr(checkup, "check_all", fail)
    result = call("doctor")
    assert result.exit_code == exits.FAILURE
    assert "ZeroDivisionError" in result.stderr
    assert "Traceback" not in result.output
    monkeypatch.setenv("HEADGATE_DEBUG", "1")
    assert isinstance(call("doctor").exception, ZeroDivisionError)


def test_bad_options_are_bad_input() -> None:
    assert call("status", "--nonsense").exit_code == exits.BAD_INPUT
    assert call("key", "create", "--expires", "soon").exit_code == exits.BAD_INPUT
    assert call("nonsense").exit_code == exits.BAD_INPUT


def test_a_broken_configuration_names_line_and_cure(tmp_path: Path) -> None:
    (tmp_path / "headgate.yaml").write_text("gateway:\n  prt: 80\n")
    for words in (["up"], ["config", "check"], ["reload"]):
        result = call(*words)
        assert result.exit_code == exits.BAD_INPUT, words
        assert "headgate.yaml:2" in result.stderr
        assert "did you mean 'port'" in result.stderr


def test_commands_on_a_running_house_ignore_what_is_wrong_in_the_file(tmp_path: Path) -> None:
    (tmp_path / "headgate.yaml").write_text(f"state: {tmp_path / 'else'}\nnonsense: 1\n")
    result = call("status")
    assert result.exit_code == exits.NOT_RUNNING
    assert str(tmp_path / "else") in result.stderr.replace("\n", "")


def test_a_named_file_must_exist() -> None:
    for words in (["up"], ["status"], ["config", "check"], ["reload"]):
        assert call(*words, "--config", "missing.yaml").exit_code == exits.BAD_INPUT


def test_keys_are_shown_once_listed_without_and_revoked() -> None:
    made = told("key", "create", "ci", "--user", "ann", "--team", "red", "--expires", "2h", "--json")
    assert made["key"].startswith("hg_")
    assert (made["user"], made["team"], made["role"]) == ("ann", "red", "user")
    assert 7000 < made["expires_at"] - made["created_at"] <= 7201
    listed = told("key", "list", "--json")["keys"]
    assert [one["state"] for one in listed] == ["works"]
    assert made["key"] not in call("key", "list").output
    assert told("key", "revoke", f"{made['prefix']}...", "--json")["revoked"]["id"] == made["id"]
    assert told("key", "list", "--json")["keys"] == []
    assert told("key", "list", "--all", "--json")["keys"][0]["state"] == "revoked"
    assert call("key", "revoke", "nobody").exit_code == exits.NOT_FOUND
    assert call("key", "create", "--role", "king").exit_code == exits.BAD_INPUT


def test_models_are_added_listed_verified_and_removed(state: Path) -> None:
    added = told("model", "add", "quick", "fake:seed=3", "--json")
    assert (added["outcome"], added["format"]) == ("added", "fake")
    assert told("model", "add", "quick", "fake:seed=3", "--json")["outcome"] == "unchanged"
    assert [one["name"] for one in told("model", "list", "--json")["models"]] == ["quick"]
    assert told("model", "show", "quick", "--json")["digest"] == added["digest"]
    assert told("model", "verify", "--json") == {"models": [{"name": "quick", "damages": []}], "ok": True}
    assert told("model", "remove", "quick", "--json")["removed"] == "quick"
    assert told("model", "list", "--json")["models"] == []
    assert call("model", "show", "quick").exit_code == exits.NOT_FOUND
    assert state.stat().st_mode & 0o777 == 0o700


def test_a_refused_model_has_its_own_exit_code(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("no model")
    result = call("model", "add", "x", str(tmp_path / "words.txt"))
    assert result.exit_code == exits.MODEL_REFUSED
    assert "GGUF" in result.stderr


def test_a_model_in_use_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "headgate.yaml").write_text("models: {quick: {source: 'fake:'}}\npipelines: {ask: {model: quick}}\n")
    told("model", "add", "quick", "fake:", "--json")
    result = call("model", "remove", "quick")
    assert result.exit_code == exits.MODEL_REFUSED
    assert "used by ask" in result.stderr


def test_config_schema_and_check() -> None:
    schema = told("config", "schema")
    assert schema["title"] == "headgate.yaml"
    assert {"pools", "models", "pipelines", "gateway"} <= schema["properties"].keys()
    assert told("config", "check", "--json")["pipelines"] == ["ticket-category", "ticket-extract", "ticket-summary"]


def test_version_and_systemd() -> None:
    assert {"headgate", "python", "xllamacpp", "platform"} == told("version", "--json").keys()
    unit = call("systemd", "--user", "bob", "--config", "/etc/h.yaml").stdout
    assert "User=bob" in unit
    assert "up --config /etc/h.yaml" in unit


def test_doctor_tells_findings_with_cures(tmp_path: Path) -> None:
    answer = told("doctor", "--json")
    found = {one["what"]: one for one in answer["findings"]}
    assert answer["ok"] is True
    assert {"Python", "cores", "memory", "open files", "configuration", "port", "disk"} <= found.keys()
    (tmp_path / "headgate.yaml").write_text("gateway: {port: -1}\n")
    answer = told("doctor", "--json", code=exits.FAILURE)
    bad = [one for one in answer["findings"] if one["verdict"] == "bad"]
    assert [one["what"] for one in bad] == ["configuration"]
    assert "headgate.yaml:1" in bad[0]["found"]


def test_chat_needs_something_to_say() -> None:
    result = call("chat", "x", stdin="")
    assert result.exit_code == exits.BAD_INPUT
    assert "MESSAGE" in result.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.NotRunning(), 3),
        (errors.AlreadyRunning(), 4),
        (errors.DoesNotFit(), 5),
        (errors.ModelNotFound(), 6),
        (errors.FloorsDoNotFit(), 2),
        (errors.ContextOverflow(), 2),
        (errors.StoreUnavailable(), 1),
        (errors.HeadgateError(), 1),
    ],
)
def test_exit_codes_do_not_change(error: errors.HeadgateError, code: int) -> None:
    assert exits.exit_code(error) == code
    assert code in exits.MEANINGS
