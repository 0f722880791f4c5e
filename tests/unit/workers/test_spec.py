"""The spec survives its way through JSON; what does not fit is named."""

from __future__ import annotations

import json

import pytest

from headgate.core.errors import ConfigError
from headgate.workers.spec import Spec, Supervised, TcpListener, UnixListener, dump_spec, load_spec

SPEC = Spec(
    state="/state",
    version="1",
    tcp=(TcpListener("gateway", "127.0.0.1", 0),),
    unix=(UnixListener("admin", "/state/run/admin.sock"),),
    children=(
        Supervised("node", "node", ("node",), leave_signal="SIGUSR2"),
        Supervised("gateway-0", "gateway", ("gw", "0"), ("gateway", "admin"), {"A": "b"}, "/log"),
    ),
    drain_s=3.0,
)


def test_there_and_back() -> None:
    again = load_spec(dump_spec(SPEC))
    assert dump_spec(again) == dump_spec(SPEC)
    assert again.children[1].sockets == ("gateway", "admin")
    assert again.children[1].environment == {"A": "b"}
    assert again.drain_s == 3.0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"colour": "red"}, "colour"),
        ({"children": [{"name": "x", "role": "queen", "argv": ["x"]}]}, "queen"),
        ({"children": [{"name": "x", "role": "node", "argv": []}]}, "needs argv"),
        ({"children": [{"name": "x", "role": "node", "argv": ["x"], "sockets": ["no"]}]}, "sockets out of"),
        ({"children": [{"name": "x", "role": "node"}]}, "argv"),
        ({"children": [{"name": "x", "role": "node", "argv": ["x"]}] * 2}, "same name"),
        ({"children": None}, "does not fit"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, object], words: str) -> None:
    raw = json.loads(dump_spec(SPEC)) | change
    with pytest.raises(ConfigError, match=words):
        load_spec(json.dumps(raw))


def test_no_json() -> None:
    with pytest.raises(ConfigError, match="does not fit"):
        load_spec("{")
