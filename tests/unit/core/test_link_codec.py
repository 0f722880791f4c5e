import orjson
import pytest

from headgate.core.errors import ConfigError, HeadgateError, Overloaded
from headgate.core.link_codec import Ask, Hello, Reply, decode, encode
from headgate.core.secret import Secret
from headgate.core.table import LoadReport, PipelineLoad, PipelineRoute, ReplicaLoad, ReplicaRoute, RoutingTable


def make_table() -> RoutingTable:
    pipeline = PipelineRoute(
        name="extract", model="m", version="sha256:aa", engine="llamacpp", task="generate", context=1024,
        queue=64, weight=1.5, first_token_s=0.5, per_token_s=0.1, timeout_s=120.0, created=1_700_000_000,
        blocked="why", versions=("sha256:aa", "sha256:bb"), engines=("llamacpp", "remote"),
    )  # fmt: skip
    replica = ReplicaRoute(
        id="r1", pipeline="extract", version="sha256:aa", engine="llamacpp", address="unix:/run/r1.sock",
        secret=Secret("s3cret"), epoch=7, slots=4, device="cpu:0", pool="cpu", share=0.5, state="ready",
    )  # fmt: skip
    return RoutingTable(node="n1", number=3, pipelines={"extract": pipeline}, replicas={"r1": replica})


MESSAGES = [
    Hello(gateway="g1", pid=42),
    Ask(id=3, method="reload", params={"wait": True}),
    make_table(),
    LoadReport(
        gateway="g1",
        pid=42,
        table_number=3,
        in_flight={"r1": 2},
        suspects=("r9",),
        pipelines={"extract": PipelineLoad(arrivals=5, queued=1, busy_s=0.25, oldest_wait_s=0.5)},
        replicas={"r1": ReplicaLoad(settled=3, busy_s=0.25, together_s=0.5)},
    ),
    Reply(id=3, result={"pipelines": ["extract"]}),
    Reply(id=4),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_every_message_comes_back_as_it_went_out(message):
    line = encode(message)
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    assert decode(line) == message


def test_the_secret_travels_but_does_not_print():
    table = decode(encode(make_table()))
    assert table.replicas["r1"].secret.reveal() == "s3cret"
    assert "s3cret" not in repr(table)


def test_an_error_comes_back_as_its_class():
    sent = ConfigError("line 3: cap is smaller than floor", param="pipelines.x.cap", retry_after_s=2.0)
    reply = decode(encode(Reply(id=1, error=sent)))
    with pytest.raises(ConfigError, match="line 3") as caught:
        reply.unwrap()
    assert (caught.value.param, caught.value.retry_after_s) == ("pipelines.x.cap", 2.0)


def test_an_error_of_an_unknown_class_is_still_an_error():
    said = {"kind": "reply", "id": 1, "error": {"type": "annotations", "message": "no", "code": "odd"}}
    error = decode(orjson.dumps(said)).error
    assert type(error) is HeadgateError and (error.message, error.code) == ("no", "odd")
    assert isinstance(decode(encode(Reply(id=1, error=Overloaded()))).error, Overloaded)


def test_unknown_fields_are_skipped():
    said = orjson.loads(encode(make_table()))
    said["replicas"]["r1"]["colour"] = "blue"
    said["later"] = 1
    assert decode(orjson.dumps(said)) == make_table()


@pytest.mark.parametrize(
    "line",
    [b"", b"{", b"[]", b"3", b'{"kind":"dance"}', b'{"kind":["table"]}', b'{"kind":"hello"}',
     b'{"kind":"table","node":"n","number":1,"pipelines":[],"replicas":{}}', b'{"kind":"load"}'],
)  # fmt: skip
def test_a_bad_line_is_a_value_error(line):
    with pytest.raises(ValueError):
        decode(line)


def test_a_bad_line_does_not_leak_the_secret():
    said = orjson.loads(encode(make_table()))
    del said["replicas"]["r1"]["epoch"]
    with pytest.raises(ValueError) as caught:
        decode(orjson.dumps(said))
    assert "s3cret" not in str(caught.value)
