"""What if: work, slack and capacity are reckoned as said, splits are the best there are, and Headgate is played."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from headgate.core.errors import BadRequest, ConfigError
from headgate.evaluation import simulation
from headgate.evaluation.report import write_report
from headgate.evaluation.simulation import BUCKETS, POLICIES, offered, simulate
from headgate.evaluation.splits import best_fixed, late_by_replicas, share, share_equally
from headgate.evaluation.traces import Stream, Trace
from headgate.evaluation.what_if import Case, Terms, build_cases


def stream(name: str, at: list[float] | np.ndarray, seconds: float | None = 0.5, **told: list[float]) -> Stream:
    nothing = np.full(len(at), np.nan)
    return Stream(
        pipeline=name,
        at=np.array(at, float),
        prompt_tokens=np.array(told.get("prompt", nothing), float),
        output_tokens=np.array(told.get("output", nothing), float),
        seconds=nothing if seconds is None else np.full(len(at), seconds),
    )


def make(*streams: Stream, span_s: float = 600.0) -> Trace:
    return Trace(name="t.csv", format="requests", streams=streams, span_s=span_s)


def swing(seed: int = 1, span_s: float = 600.0) -> Trace:
    """Two pipelines, each with six times the load of the other for half of the time."""
    rng = np.random.default_rng(seed)
    half = span_s / 2
    parts = [np.sort(np.concatenate([rng.uniform(0, half, a), rng.uniform(half, span_s, b)]))
             for a, b in ((1200, 200), (200, 1200))]  # fmt: skip
    return make(stream("a", parts[0]), stream("b", parts[1]), span_s=span_s)


def case_of(trace: Trace, devices: float | None = None, **terms: object) -> Case:
    told = {one.pipeline: Terms(**terms) for one in trace.streams}  # type: ignore[arg-type]
    (case,) = build_cases(trace, told, {} if devices is None else {"cpu": devices})
    return case


def test_models_that_are_not_played_are_told() -> None:
    trace = make(stream("a", [0, 1]))
    assert not any("left out" in note for note in case_of(trace).notes)
    assert any("the first of the pipeline's models" in note for note in case_of(trace, left_out=("slow",)).notes)


def test_work_comes_from_the_trace_else_from_tokens_else_is_assumed() -> None:
    told = stream("told", [0, 1], 0.25)
    told = Stream(
        **{name: getattr(told, name) for name in told.__dataclass_fields__} | {"seconds": np.array([0.2, np.nan])}
    )
    tokens = stream("tokens", [0, 1], None, prompt=[1000.0, 0.0], output=[10.0, 20.0])
    bare = stream("bare", [0])
    bare = stream("bare", [0], None)
    case = case_of(make(told, tokens, bare), prefill_tokens_per_s=1000.0, decode_tokens_per_s=10.0)
    assert [one.work.tolist() for one in case.served] == [[0.2, 0.2], [2.0, 2.0], [0.5]]
    text = "; ".join(case.notes)
    for said in ("the seconds that the trace tells", "take the mean of the others", "1000 prompt and 10 output tokens",
                 "0.5 s of work, assumed", "waits no longer than 0.5 s"):  # fmt: skip
        assert said in text


def test_slack_is_what_is_left_to_the_first_token_and_to_the_answer() -> None:
    trace = make(stream("a", [0, 1], None, prompt=[500.0, 4000.0], output=[50.0, 50.0]))
    speeds = {"prefill_tokens_per_s": 1000.0, "decode_tokens_per_s": 100.0}
    assert case_of(trace, **speeds).served[0].slack.tolist() == [0.5, 0.5]
    first = case_of(trace, first_token_s=1.0, **speeds)
    assert first.served[0].slack.tolist() == [0.5, -3.0]
    assert "50.0% of the requests can never be on time, even alone on an idle replica" in first.notes
    both = case_of(trace, first_token_s=1.0, answer_s=1.2, **speeds)
    assert both.served[0].slack.tolist() == pytest.approx([0.2, -3.3])


def test_capacity_is_chosen_or_taken_and_checked() -> None:
    trace = make(stream("a", np.arange(0, 600, 0.25)), stream("b", [0.0]))
    assert case_of(trace).budget == 3  # two of work, 80 % busy
    assert case_of(trace, 4.0, share=0.25).budget == 16
    for devices, terms, what in ((0.0, {}, "a replica takes 1"), (1.5, {"floor": 1}, "floors of pool cpu take 2")):
        with pytest.raises(BadRequest, match=what):
            case_of(trace, devices, **terms)
    with pytest.raises(BadRequest, match="No pipeline of the trace runs on pool gpu"):
        build_cases(trace, {"a": Terms(), "b": Terms()}, {"gpu": 1.0})
    sizes = {"a": Terms(share=0.5), "b": Terms(share=0.2)}
    (case,) = build_cases(trace, sizes, {"cpu": 2.0})
    assert ([one.units for one in case.served], case.unit, case.budget) == ([5, 2], 0.1, 20)
    two = build_cases(trace, {"a": Terms(), "b": Terms(pool="gpu")}, {"cpu": 3.0})
    assert [(one.pool, one.budget) for one in two] == [("cpu", 3), ("gpu", 1)]


def test_shares_fit_and_follow_load() -> None:
    case = case_of(swing(), 7.0)
    assert share_equally(case).tolist() == [4, 3]
    assert share(case, np.array([5.2, 1.8])).tolist() == [5, 2]
    assert share(case, np.array([1.0, 0.0])).tolist() == [6, 1]  # its floor is kept


def test_the_best_fixed_split_is_the_best_of_all() -> None:
    rng = np.random.default_rng(4)
    streams = [stream(name, np.sort(rng.uniform(0, 300, count))) for name, count in (("a", 900), ("b", 400), ("c", 90))]
    terms = {"a": Terms(weight=2.0), "b": Terms(share=2.0), "c": Terms(floor=1)}
    (case,) = build_cases(make(*streams, span_s=300.0), terms, {"cpu": 6.0})
    curves = [one.weight * late_by_replicas(one, case.span_s) for one in case.served]
    assert all((np.diff(curve) <= 1e-9).all() for curve in curves)
    found = best_fixed(case)

    def cost(counts: tuple[int, ...]) -> float:
        return sum(float(curve[count]) for curve, count in zip(curves, counts, strict=True))

    fitting = [
        counts
        for counts in itertools.product(*(range(one.floor, one.cap + 1) for one in case.served))
        if sum(one.units * count for one, count in zip(case.served, counts, strict=True)) <= case.budget
    ]
    assert tuple(found) in fitting
    assert cost(tuple(found)) == pytest.approx(min(cost(counts) for counts in fitting))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_headgate_follows_a_load_that_swings_and_nobody_is_over_budget(seed: int) -> None:
    case = case_of(swing(seed), 4.0)
    found = {one.policy: one for one in simulate(case, list(POLICIES))}
    assert found["headgate"].late < 0.45 * found["static"].late
    assert found["static"].late <= found["equal"].late + 1e-9
    for one in found.values():
        assert one.replicas.shape == (BUCKETS, 2)
        assert (one.replicas.sum(axis=1) <= 4.0 + 1e-9).all()
        assert one.device_hours <= 4.0 * case.span_s / 3600.0 + 1e-9
        assert [part.requests for part in one.pipelines] == [1400, 1400]
    assert found["equal"].moves_per_hour == 0.0 < found["headgate"].moves_per_hour
    assert found["headgate"].replicas[10:100, 0].mean() > 2.5 > 1.5 > found["headgate"].replicas[140:, 0].mean()
    again = simulate(case, ["headgate"])[0]
    assert (again.late, again.latency) == (found["headgate"].late, found["headgate"].latency)


def test_replicas_of_two_sizes_share_a_budget_without_passing_it() -> None:
    trace = swing()
    (case,) = build_cases(trace, {"a": Terms(share=1.0), "b": Terms(share=0.5, floor=0)}, {"cpu": 2.5})
    for one in simulate(case, ["headgate", "proportional"]):
        used = one.replicas @ np.array([part.units for part in case.served]) * case.unit
        assert used.max() <= 2.5 + 1e-9
        assert one.device_hours <= 2.5 * case.span_s / 3600.0 + 1e-9


def test_a_pipeline_that_sleeps_is_woken_by_its_first_request() -> None:
    case = case_of(make(stream("a", [301.3]), stream("b", np.arange(0.0, 600.0, 2.0))), 2.0, floor=0, start_s=2.0)
    one = simulate(case, ["headgate"])[0]
    (rare, _) = one.pipelines
    assert rare.unanswered == 0 and rare.latency.p99 is not None and rare.latency.p99 < 20.0


def test_what_is_dropped_or_never_answered_is_late() -> None:
    case = case_of(make(stream("a", np.zeros(100), 10.0), span_s=60.0), 1.0, queue=5)
    one = simulate(case, ["equal"])[0].pipelines[0]
    assert (one.dropped, one.requests) == (94, 100)  # one is served, five wait
    assert one.late == pytest.approx(0.99)


def test_load_is_told_in_devices() -> None:
    case = case_of(make(stream("a", np.arange(0, 600, 0.25)), stream("b", [0.0])), 4.0)
    assert offered(case)[:, 0].mean() == pytest.approx(2.0)


def test_without_numba_the_cure_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulation, "find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match=r"pip install 'headgate\[sim\]'"):
        simulate(case_of(swing(), 3.0), ["equal"])


def test_the_report_is_whole_and_escapes_every_name() -> None:
    import re
    import xml.etree.ElementTree as ElementTree

    evil = '<script>alert("x")</script>&'
    rng = np.random.default_rng(2)
    streams = [stream(evil, [0.0, 1.0])]
    streams += [stream(f"p{k}", np.sort(rng.uniform(0, 60, 20))) for k in range(11)]
    trace = Trace(name=f"{evil}.csv", format="requests", streams=tuple(streams), span_s=60.0, notes=(evil,))
    case = case_of(trace, 12.0)
    page = write_report(trace, [case], [simulate(case, ["headgate", "equal"])])
    assert "<script" not in page and "http" not in page.replace("http-equiv", "")
    assert page.count("&lt;script&gt;alert(") >= 4
    charts = re.findall(r"<svg.*?</svg>", page)
    assert len(charts) == 5
    for one in charts:
        root = ElementTree.fromstring(one)
        assert root.get("role") == "img"
        assert [child.tag for child in root][:2] == ["title", "desc"]
        assert root[0].text and root[1].text
        assert "nan" not in one
    assert "4 others" in page
    ElementTree.fromstring(re.sub(r"<meta[^>]*>", "", page.removeprefix("<!doctype html>")))


def changing(span_s: float = 400.0) -> Trace:
    """Three pipelines, one after the other."""
    names = ("a", "b", "c")
    at = np.arange(0.0, span_s, 0.8)
    return make(*(stream(name, at[(at // 30.0) % 3 == k]) for k, name in enumerate(names)), span_s=span_s)


def warm_case(memory: int | None, **more: object) -> Case:
    told = {name: Terms(**{"memory_bytes": 2**30, "floor": 0, "first_token_s": 1.0, **more}) for name in "abc"}  # type: ignore[arg-type]
    (case,) = build_cases(changing(), told, {"cpu": 1.0}, None, {} if memory is None else {"cpu": memory})
    return case


def test_who_stays_loaded_serves_sooner_where_memory_is_left() -> None:
    unknown, none, much = (simulate(warm_case(memory), ["headgate"])[0] for memory in (None, 2**30, 3 * 2**30))
    assert (none.late, none.latency, none.device_hours) == (unknown.late, unknown.latency, unknown.device_hours)
    assert much.late < 0.97 * none.late
    assert much.device_hours <= 400.0 / 3600.0 + 1e-9  # who rests holds no device
    assert (much.replicas.sum(axis=1) <= 1.0 + 1e-9).all()


def test_whether_anybody_rests_is_told() -> None:
    def told(memory: int | None, **more: object) -> str:
        return "; ".join(warm_case(memory, **more).notes)

    assert "stays loaded for 90 s at most (--warm) in what is left of 3 GiB" in told(3 * 2**30, warm_s=90.0)
    assert "starts anew: warm_s is 0" in told(3 * 2**30, warm_s=0.0)
    for one in (told(None), told(2**30, memory_bytes=None)):
        assert "starts anew: how much memory it and its pool have is not known" in one


def test_loaded_replicas_of_two_sizes_keep_to_the_budget() -> None:
    terms = {name: Terms(share=share, floor=0, memory_bytes=10) for name, share in (("a", 1.0), ("b", 0.5), ("c", 0.5))}
    (case,) = build_cases(changing(), terms, {"cpu": 1.0}, None, {"cpu": 1000})
    for one in simulate(case, ["headgate", "proportional"]):
        used = one.replicas @ np.array([part.units for part in case.served]) * case.unit
        assert used.max() <= 1.0 + 1e-9 and one.device_hours <= 400.0 / 3600.0 + 1e-9
