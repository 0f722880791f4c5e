"""What the supervisor is told to run."""

from __future__ import annotations

from pathlib import Path

import pytest

from headgate.app.house import Places
from headgate.app.processes import write_spec
from headgate.config import parse_settings
from headgate.core.errors import ConfigError
from headgate.workers.spec import load_spec


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run folders of long state paths are made here."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def test_several_gateways_share_a_folder_for_their_counts_and_begin_at_zero(tmp_path: Path) -> None:
    places = Places(state=tmp_path)
    settings = parse_settings("gateway: {processes: 2}")
    spec = load_spec(write_spec(settings, places).read_text())
    counts = Path(spec.children[1].environment["PROMETHEUS_MULTIPROC_DIR"])
    assert counts.stat().st_mode & 0o777 == 0o700
    (counts / "counter_7.db").write_text("old")
    write_spec(settings, places)
    assert list(counts.iterdir()) == []


def test_a_run_folder_apart_from_the_state_is_told_to_go(tmp_path: Path) -> None:
    assert not Places(state=Path("/short")).apart
    spec = load_spec(write_spec(parse_settings(""), Places(state=tmp_path / ("s" * 120))).read_text())
    assert spec.fleeting
    assert Path(spec.state).parent == tmp_path


def test_a_link_in_the_place_of_the_run_folder_is_refused(tmp_path: Path) -> None:
    places = Places(state=tmp_path / ("s" * 120))
    (tmp_path / "away").mkdir()
    places.run.parent.symlink_to(tmp_path / "away")
    with pytest.raises(ConfigError, match="is a link"):
        places.make()
    assert list((tmp_path / "away").iterdir()) == []
