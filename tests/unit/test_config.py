"""headgate.yaml: what is wrong is told with file, line, setting and cure."""

from __future__ import annotations

from pathlib import Path

import pytest

from headgate.config import MAX_CONFIG_BYTES, find_state, json_schema, load_settings, parse_settings
from headgate.core.errors import ConfigError

GOOD = """
state: /tmp/x
gateway: {port: 0, max_body_bytes: 2MiB, drain_s: 5s}
pools:
  cpu: {kind: cpu}
models:
  m: {engine: fake, context: 1024, slots: 2, cores: 0.5}
pipelines:
  p: {model: m, queue: 8}
"""


def test_a_good_file() -> None:
    settings = parse_settings(GOOD)
    assert settings.gateway.max_body_bytes == 2 * 2**20 and settings.gateway.drain_s == 5.0
    assert settings.models["m"].cores == 0.5 and settings.pipelines["p"].model == ("m",)


def test_a_pipeline_may_name_several_models_best_first() -> None:
    two = GOOD.replace("pipelines:", "  g: {engine: fake, pool: cpu}\npipelines:").replace("model: m", "model: [g, m]")
    assert parse_settings(two).pipelines["p"].model == ("g", "m")


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (GOOD.replace("slots: 2", "slotz: 2"), 7, ("models.m.slotz", "did you mean 'slots'")),
        (GOOD.replace("port: 0", "port: 99999"), 3, ("gateway.port", "65535")),
        (GOOD.replace("port: 0", "host: 0.0.0.0"), 3, ("gateway", "TLS", "allow_insecure_bind")),
        (GOOD.replace("model: m", "model: n"), 9, ("pipelines.p.model", "'n'", "not declared")),
        (GOOD.replace("model: m", "model: [m, n]"), 9, ("pipelines.p.model", "'n'", "not declared")),
        (GOOD.replace("model: m", "model: [m, m]"), 9, ("pipelines.p.model", "named twice")),
        (GOOD.replace("model: m", "model: []"), 9, ("pipelines.p.model", "at least 1")),
        (GOOD.replace("model: m", "model: {m: 1}"), 9, ("pipelines.p.model",)),
        (GOOD.replace("cores: 0.5", "cores: 1.5"), 7, ("models.m.cores", "whole number")),
        (GOOD.replace("2MiB", "lots"), 3, ("gateway.max_body_bytes", "size", "8GiB")),
        (GOOD.replace("cores: 0.5", "pool: gpu"), 7, ("models.m.pool", "'gpu'", "not declared")),
        (GOOD + "state: /tmp/y\n", 10, ("'state'", "twice")),
        (GOOD + "  q: [\n", 11, ("not valid YAML",)),
        ("a: &x {b: 1}\nc: *x\n", 1, ("aliases",)),
        ("- a\n", 1, ("settings",)),
        (GOOD.replace("  m:", "  'm m':"), 7, ("models",)),
    ],
)
def test_what_is_wrong_is_told_with_its_line(text: str, line: int, words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_settings(text, "headgate.yaml")
    first = caught.value.message.splitlines()[0]
    assert first.startswith(f"headgate.yaml:{line}:"), first
    for word in words:
        assert word in first


@pytest.mark.parametrize("text", [b"a: \xff", b"a: \x00", b"a: " + b"[" * 5000])
def test_what_is_no_text(text: bytes) -> None:
    with pytest.raises(ConfigError):
        parse_settings(text)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_settings(tmp_path / "none.yaml")
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * (MAX_CONFIG_BYTES + 1))
    with pytest.raises(ConfigError, match="larger"):
        load_settings(large)


def test_the_state_is_found_in_a_broken_file(tmp_path: Path) -> None:
    broken = tmp_path / "headgate.yaml"
    broken.write_text("state: /tmp/here\nwhat: 1\n")
    assert find_state(broken) == Path("/tmp/here")


def test_the_schema_for_editors_names_every_section() -> None:
    assert set(GOOD.split()) & {"state:"} and {"state", "gateway", "pools", "models", "pipelines"} <= set(
        json_schema()["properties"]
    )
