"""A state folder opened."""

from __future__ import annotations

from pathlib import Path

from headgate.app.house import House
from headgate.config import Settings


def test_an_endpoint_is_registered_without_being_tried(tmp_path: Path) -> None:
    house = House(Settings(state=tmp_path))
    try:
        house.prepare()
        added = house.registry().add("far", "endpoint:http://127.0.0.1:9/v1")
    finally:
        house.close()
    assert (added.outcome, added.version.format) == ("added", "endpoint")
