"""Traces: every format is read as it is meant, and whatever else is in a file is a clear error."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headgate.core.errors import BadRequest
from headgate.evaluation import traces
from headgate.evaluation.traces import Reading, Trace, load_trace


def read(folder: Path, text: str, name: str = "t.csv", **how: object) -> Trace:
    path = folder / name
    path.write_text(text)
    return load_trace(path, Reading(**how))  # type: ignore[arg-type]


def refused(folder: Path, text: str, name: str = "t.csv", **how: object) -> str:
    with pytest.raises(BadRequest) as caught:
        read(folder, text, name, **how)
    assert name in caught.value.message
    return caught.value.message


def test_a_row_for_each_request_in_any_order_of_rows_and_columns(tmp_path: Path) -> None:
    text = "seconds,pipeline,who,at,prompt_tokens\n0.5,b,x,103,\n,a,y,101,7\n0.25,b,z,100.5,9\n"
    trace = read(tmp_path, text)
    assert (trace.format, trace.requests, trace.span_s) == ("requests", 3, 3.0)
    a, b = trace.streams
    assert (a.pipeline, b.pipeline) == ("a", "b")
    assert (a.at.tolist(), b.at.tolist()) == ([0.5], [0.0, 2.5])
    assert (b.seconds.tolist(), b.prompt_tokens.tolist()[0]) == ([0.25, 0.5], 9.0)
    assert np.isnan(a.seconds).all() and np.isnan(b.prompt_tokens[1]) and np.isnan(b.output_tokens).all()
    assert trace.notes == ("read at as when, pipeline as pipeline, prompt_tokens as prompt tokens, "
                           "seconds as seconds of work",)  # fmt: skip


def test_azures_columns_and_times(tmp_path: Path) -> None:
    text = (
        "\ufeffTIMESTAMP,ContextTokens,GeneratedTokens\r\n2023-11-16 18:15:46.6805900,374,44\r\n"
        "2023-11-16 18:15:50.6805900,396,109\r\n"
    )
    (only,) = read(tmp_path, text).streams
    assert (only.pipeline, only.at.tolist()) == ("all", [0.0, 4.0])
    assert (only.prompt_tokens.tolist(), only.output_tokens.tolist()) == ([374.0, 396.0], [44.0, 109.0])


@pytest.mark.parametrize(
    ("first", "second", "seconds"),
    [("0", "90000", 90_000.0), ("1700000000", "1700000001", 1.0), ("1700000000000", "1700000000500", 0.5),
     ("1700000000000000000", "1700000001000000000", 1.0),
     ("2026-01-31T12:00:00Z", "2026-01-31T13:00:00+00:30", 1800.0)],
)  # fmt: skip
def test_times_in_many_forms(tmp_path: Path, first: str, second: str, seconds: float) -> None:
    (only,) = read(tmp_path, f"timestamp\n{first}\n{second}\n").streams
    assert only.at.tolist() == pytest.approx([0.0, seconds])


def test_lines_of_json_as_openai_logs_them(tmp_path: Path) -> None:
    text = (
        '{"created": 1700000000, "model": "m", "usage": {"prompt_tokens": 5, "completion_tokens": 2}}\n\n'
        '{"created": 1700000002, "response": {"body": {"model": "n", "usage": {"input_tokens": 4}}}}\n'
    )
    m, n = read(tmp_path, text, "t.jsonl").streams
    assert (m.pipeline, m.prompt_tokens.tolist(), m.output_tokens.tolist()) == ("m", [5.0], [2.0])
    assert (n.at.tolist(), n.pipeline, n.prompt_tokens.tolist()) == ([2.0], "n", [4.0])


def test_mooncake_counts_milliseconds(tmp_path: Path) -> None:
    line = '{"timestamp": %d, "input_length": 9, "output_length": 1, "hash_ids": [1]}\n'
    (only,) = read(tmp_path, line % 0 + line % 1500, "t.jsonl").streams
    assert only.at.tolist() == [0.0, 1.5]


def test_counts_come_within_their_minute_and_repeat_with_the_seed(tmp_path: Path) -> None:
    text = "minute,a,b\n0,3,0\n1,0,2\n2,1,1\n"
    trace = read(tmp_path, text)
    a, b = trace.streams
    assert (trace.format, trace.span_s) == ("counts", 180.0)
    assert (a.at // 60).tolist() == [0.0, 0.0, 0.0, 2.0]
    assert (b.at // 60).tolist() == [1.0, 1.0, 2.0]
    assert read(tmp_path, text).streams[0].at.tolist() == a.at.tolist()
    assert read(tmp_path, text, seed=2).streams[0].at.tolist() != a.at.tolist()
    assert read(tmp_path, text, pipelines=("b",)).streams[0].at.tolist() == b.at.tolist()
    assert read(tmp_path, text, step_s=1.0, until_s=2.0).span_s == 2.0


def test_windows_have_their_rate_and_their_burstiness(tmp_path: Path) -> None:
    head = "model,client,t_s,rate_rps,cv,dist,p1,p2\n"
    rows = "".join(f"m,1,{600 * k},2,1,Gamma,1,0.5\nm,2,{600 * k},2,4,Weibull,0.4,0.2\n" for k in range(8))
    path = tmp_path / "w.csv.gz"
    path.write_bytes(gzip.compress((head + rows).encode()))
    even, bursty = load_trace(path).streams
    assert (even.pipeline, bursty.pipeline) == ("m/1", "m/2")
    assert len(even.at) == len(bursty.at) == 8 * 1200
    assert (np.diff(even.at) >= 0).all() and (np.bincount((bursty.at // 600).astype(int)) == 1200).all()
    variation = [float(np.diff(one.at).std() / np.diff(one.at).mean()) for one in (even, bursty)]
    assert 0.9 < variation[0] < 1.1 and variation[1] > 2.5
    assert load_trace(path, Reading(until_s=600.0, pipelines=("m/2",))).requests == 1200


def test_a_part_of_it_and_more_of_it(tmp_path: Path) -> None:
    trace = read(tmp_path, "at,pipeline\n" + "".join(f"{k},a\n" for k in range(1000)))
    part = trace.between(100.0, 200.0)
    assert (part.requests, part.span_s, part.streams[0].at[0]) == (100, 100.0, 0.0)
    assert trace.between(0.0, None) is trace
    with pytest.raises(BadRequest, match="the trace lasts 1000 s"):
        trace.between(5000.0, None)
    twice = trace.times(2.0, 1)
    assert twice.requests == 2000 and (np.diff(twice.streams[0].at) >= 0).all()
    assert set(trace.streams[0].at.tolist()) <= set(twice.streams[0].at.tolist())
    assert 400 < trace.times(0.5, 1).requests < 600
    assert trace.times(1.5, 3).streams[0].at.tolist() == trace.times(1.5, 3).streams[0].at.tolist()


@pytest.mark.parametrize(
    ("text", "name", "what"),
    [
        ("", "t.csv", "nothing in it"),
        ("at,pipeline\n", "t.csv", "no request is in it"),
        ("at,pipeline\n1,a,b\n", "t.csv", "t.csv:2: it has 3 fields, the header has 2"),
        ("at,pipeline\nsoon,a\n", "t.csv", "t.csv:2: at is 'soon'. Write seconds"),
        ("at,seconds\n1,-2\n", "t.csv", "t.csv:2: seconds is '-2'"),
        ("at,seconds\n1,nan\n", "t.csv", "seconds is 'nan'"),
        ("at,pipeline\ninf,a\n", "t.csv", "at is 'inf'"),
        ("at,pipeline\n1,\n", "t.csv", "Write a name"),
        ("a,b\n1,x\n", "t.csv", "t.csv:2: b is 'x'"),
        ("a,b\n1,1.5\n", "t.csv", "a whole number"),
        ("a,a\n1,1\n", "t.csv", "a column twice"),
        ("1,2\n3,4\n", "t.csv", "no header that is known"),
        ("t_s,rate_rps,cv,dist,p1\n0,1,1,Pareto,1\n", "t.csv", "Gamma, Weibull or Exponential"),
        ("t_s,rate_rps,cv,dist,p1\n0,1,1,Gamma,0\n", "t.csv", "p1 '0'"),
        ("[1]\n", "t.jsonl", "jq -c"),
        ("{\n", "t.jsonl", "t.jsonl:1: it is not JSON"),
        ('{"at": 1}\n[]\n', "t.jsonl", "t.jsonl:2: it is not a JSON object"),
        ('{"at": 1}\n{}\n', "t.jsonl", "t.jsonl:2: there is no at"),
        ('{"when": 1}\n', "t.jsonl", "no field says when"),
        ('{"at": true}\n', "t.jsonl", "at is 'True'"),
        ('{"at": 1, "model": []}\n', "t.jsonl", "model is not text"),
        ('{"at": 1, "seconds": "2"}\n', "t.jsonl", "seconds is not a number"),
    ],
)
def test_faults_name_file_line_field_and_cure(tmp_path: Path, text: str, name: str, what: str) -> None:
    message = refused(tmp_path, text, name)
    assert what in message
    assert message.endswith((".", "FILE`.", "}."))


def test_files_that_are_no_text_or_not_there(tmp_path: Path) -> None:
    for name, data, what in (
        ("a.csv", b"at\n\xff\xfe\n", "UTF-8"),
        ("b.csv.gz", b"at\n1\n", "gzip"),
        ("c.csv.gz", gzip.compress(b"at\n" + b"1\n" * 9999)[:40], "gzip"),
        ("d.csv", b"at\n" + b"1" * (2 << 20), "longer than"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(BadRequest, match=what):
            load_trace(tmp_path / name)
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(BadRequest, match="cannot be read"):
            load_trace(path)


def test_bounds_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "MOST_REQUESTS", 5)
    monkeypatch.setattr(traces, "MOST_PIPELINES", 3)
    assert "more than 5 requests" in refused(tmp_path, "at\n" + "1\n" * 6)
    assert "more than 5 requests" in refused(tmp_path, "a\n6\n")
    assert "more than 3 pipelines" in refused(tmp_path, "at,model\n1,a\n1,b\n1,c\n1,d\n")
    assert "It has: a, b" in refused(tmp_path, "at,model\n1,a\n1,b\n", pipelines=("c",))


_CELLS = st.one_of(
    st.sampled_from(["at", "timestamp", "pipeline", "seconds", "t_s", "rate_rps", "cv", "dist", "p1", "Gamma", "1",
                     "0.5", "-1", "nan", "1e308", "", "a", "2026-01-01", "0001-01-01T00:00+23:59", '"', "9" * 40]),
    st.text(max_size=6),
)  # fmt: skip
_TABLES = st.lists(st.lists(_CELLS, min_size=1, max_size=6).map(",".join), max_size=6).map("\n".join)
_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2),
        st.dictionaries(
            st.sampled_from(["at", "created", "model", "usage", "response", "body", "prompt_tokens", "seconds"]), inner
        ),
    ),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.one_of(
        _TABLES.map(str.encode),
        st.lists(_JSON, max_size=3).map(lambda rows: "\n".join(json.dumps(one) for one in rows).encode()),
        st.binary(max_size=60),
    ),
    form=st.sampled_from([None, *traces.FORMATS]),
    packed=st.booleans(),
)  # fmt: skip
def test_whatever_a_file_holds_it_is_read_or_clearly_refused(
    tmp_path: Path, data: bytes, form: traces.Format | None, packed: bool
) -> None:
    path = tmp_path / ("t.gz" if packed else "t")
    path.write_bytes(gzip.compress(data) if packed else data)
    try:
        trace = load_trace(path, Reading(format=form))
    except BadRequest as error:
        assert str(path) in error.message and error.param == "trace"
        return
    assert trace.requests > 0 and trace.span_s > 0.0
    for one in trace.streams:
        assert (np.diff(one.at) >= 0.0).all() and one.at[0] >= 0.0 and np.isfinite(one.at).all()
