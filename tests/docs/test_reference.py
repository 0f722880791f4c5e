"""docs/reference/ says what the code does: every setting, route, field, header, metric, error and command."""

from __future__ import annotations

import re

import pytest
from tools.reference.commands import ENVIRONMENT, list_commands, parameter_names
from tools.reference.errors import list_errors
from tools.reference.http import list_routes
from tools.reference.http_texts import HEADERS, ROUTES
from tools.reference.metrics import list_metrics
from tools.reference.pages import FOLDER, build_pages
from tools.reference.settings import find_model, list_settings

from headgate.config import Settings
from tests.docs.pages import ROOT


@pytest.fixture(scope="module")
def built() -> dict[str, str]:
    return build_pages()


def _read(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "name", ["settings.md", "cli.md", "http.md", "metrics.md", "errors.md", "headgate.schema.json"]
)
def test_page_is_current(name: str, built: dict[str, str]) -> None:
    assert _read(name) == built[name], f"docs/reference/{name} is out of date: run `make docs` and commit it"


def test_every_setting_is_documented_and_explained() -> None:
    page = _read("settings.md")
    missing = [one.path for one in list_settings() if f"| `{one.path}` |" not in page]
    assert not missing
    silent = [one.path for one in list_settings() if not one.text]
    assert not silent, "these settings have no description in their Field(...)"


def test_settings_walk_reaches_every_section() -> None:
    # The walk itself is checked: a section that it overlooked would be missing from the page without a word.
    for name, field in Settings.model_fields.items():
        inner = find_model(field.annotation)
        found = [one.path for one in list_settings() if one.path.split(".")[0] == name]
        assert len(found) >= (len(inner.model_fields) if inner is not None else 1), name


def test_every_route_is_explained() -> None:
    page = _read("http.md")
    routes = list_routes()
    assert routes
    for route in routes:
        assert ROUTES.get((route.method, route.path)), f"tools/reference/http_texts.py says nothing of {route}"
        assert f"`{route.method} {route.path}`" in page
    gone = set(ROUTES) - {(route.method, route.path) for route in routes}
    assert not gone, "tools/reference/http_texts.py explains routes that do not exist"


def test_every_header_of_answers_is_explained() -> None:
    sent: set[str] = set()
    for path in (ROOT / "src" / "headgate" / "gateway").rglob("*.py"):
        sent |= set(re.findall(r'b"(x-headgate-[a-z-]+|x-request-id|retry-after)"', path.read_text(encoding="utf-8")))
    assert sent
    assert sent == set(HEADERS)


def test_every_metric_is_documented() -> None:
    page = _read("metrics.md")
    metrics = list_metrics()
    assert metrics
    assert not [one.name for one in metrics if f"| `{one.name}` |" not in page or not one.text]


def test_every_error_is_documented() -> None:
    page = _read("errors.md")
    assert not [error.code for error in list_errors() if f"| `{error.code}` |" not in page]


def test_every_command_and_option_is_documented_and_explained() -> None:
    page = _read("cli.md")
    commands = list_commands()
    assert len(commands) > 1
    for command in commands:
        assert f"## {command.name}\n" in page
        assert command.text, f"`{command.name}` has no help text"
        for parameter in command.parameters:
            names = parameter_names(parameter)
            assert all(f"`{name}`" in page for name in names)
            assert getattr(parameter, "help", None), f"`{command.name} {names[0]}` has no help text"


def test_every_environment_variable_is_documented() -> None:
    internal = {"HEADGATE_APPLIED", "HEADGATE_SOCKETS", "HEADGATE_READY_FD", "HEADGATE_CHILD"}
    named: set[str] = set()
    for path in (ROOT / "src").rglob("*.py"):
        named |= set(re.findall(r"\"((?:HEADGATE|HF)_[A-Z_]+)\"", path.read_text(encoding="utf-8")))
    assert named - internal <= set(ENVIRONMENT)
