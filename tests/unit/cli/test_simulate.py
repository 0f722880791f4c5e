"""`simulate`, `trace` and `explain` as a user meets them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from headgate.allocation.profile import Profile
from headgate.app.opening import Where
from headgate.app.plan import describe_subject, plan_model
from headgate.cli import exits
from headgate.cli.program import program
from headgate.control.journal import StoreJournal
from headgate.core.clock import ManualClock
from headgate.core.principal import LOCAL_ADMIN
from headgate.engines.fake import Fake
from headgate.evaluation import simulation
from headgate.evaluation.profiles import save_profile
from headgate.metering.ledger import Ledger
from headgate.store.database import Database
from headgate.workers.hardware import load_hardware
from tests.helpers.database import make_database, make_ids
from tests.unit.control.world import World, make_plan


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "s"
    monkeypatch.setenv("HEADGATE_STATE", str(folder))
    monkeypatch.delenv("HEADGATE_CONFIG", raising=False)
    monkeypatch.delenv("HEADGATE_DEBUG", raising=False)
    return folder


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """Two pipelines whose load goes from the one to the other after a minute."""
    rng = np.random.default_rng(3)
    rows = [(at, name) for name, begin in (("a", 0.0), ("b", 60.0)) for at in rng.uniform(begin, begin + 60.0, 240)]
    path = tmp_path / "t.csv"
    path.write_text("at,pipeline,seconds\n" + "".join(f"{at:.3f},{name},0.4\n" for at, name in sorted(rows)))
    return path


def call(*words: str) -> Any:
    return CliRunner().invoke(program, list(words))


def told(*words: str, code: int = 0) -> Any:
    result = call(*words, "--json")
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def database(folder: Path) -> Database:
    folder.mkdir(mode=0o700, exist_ok=True)
    return make_database(folder)


def test_a_trace_is_played_under_every_policy_and_a_report_is_written(trace: Path, tmp_path: Path) -> None:
    html = tmp_path / "r.html"
    answer = told("simulate", "--trace", str(trace), "--pools", "cpu=4", "--start", "1s", "--html", str(html))
    (pool,) = answer["pools"]
    policies = pool["policies"]
    assert list(policies) == ["headgate", "equal", "proportional", "static"]
    assert (answer["trace"]["requests"], pool["devices"]) == (480, 4.0)
    assert policies["headgate"]["late"] <= policies["static"]["late"] <= policies["equal"]["late"]
    assert "a new replica serves 1 s after it was asked for (--start)" in pool["assumed"]
    assert html.read_text().count("<svg") == 7
    shown = call("simulate", "--trace", str(trace), "--policy", "equal,static")
    assert shown.exit_code == 0
    assert "best static split" in shown.stdout and "moves/h" in shown.stdout
    assert "80% busy in the busier minutes (--pools)" in shown.stderr


def test_what_if_options_change_what_is_played(trace: Path) -> None:
    base = ("simulate", "--trace", str(trace), "--pools", "cpu=4", "--policy", "static")

    def late(*more: str) -> float:
        return told(*base, *more)["pools"][0]["policies"]["static"]["late_requests"]

    assert late("--times", "3") > late() > late("--pools", "cpu=8")
    assert late("--answer", "410ms") > late("--answer", "60s") == 0.0
    only = told(*base, "--pipeline", "b", "--from", "60s", "--until", "90s", "--slots", "2", "--cap", "b=2")
    assert only["trace"]["pipelines"] == 1 and only["trace"]["span_s"] == 30.0
    assert only["pools"][0]["policies"]["static"]["pipelines"][0]["replicas_mean"] == 2.0
    first = told(*base, "--times", "1.5", "--seed", "5")
    assert first == told(*base, "--times", "1.5", "--seed", "5") != told(*base, "--times", "1.5", "--seed", "6")


def test_pipelines_and_pools_come_from_the_configuration(trace: Path, tmp_path: Path) -> None:
    config = tmp_path / "headgate.yaml"
    models = "models: {m: {source: 'fake:seed=1', cores: 0.5, slots: 2}, n: {source: 'fake:seed=1'}}\n"
    pipelines = "pipelines: {a: {model: m, weight: 3, slo: {first_token_ms: 250}}, b: {model: n, cap: 2}}\n"
    config.write_text("pools: {cpu: {cores: [0]}}\n" + models + pipelines)
    (pool,) = told("simulate", "--trace", str(trace), "--policy", "equal")["pools"]
    assert pool["devices"] == 1.0
    text = "; ".join(pool["assumed"])
    assert "the first token within 0.25 s" in text and "2 at once on a replica" in text
    more = told("simulate", "--trace", str(trace), "--policy", "equal", "--pools", "cpu=6")
    assert more["pools"][0]["devices"] == 6.0
    config.write_text("pools: {cpu: {cores: [0]}}\n" + models + "pipelines: {a: {model: m}}\n")
    assert told("simulate", "--trace", str(trace), "--policy", "equal")["pools"][0]["devices"] > 1.0  # not this house's
    result = call("simulate", "--trace", str(trace), "--config", str(config))
    assert result.exit_code == exits.BAD_INPUT and "has no pipeline b" in result.stderr


def test_a_pool_that_is_paid_for_by_use_is_played_so(trace: Path, tmp_path: Path) -> None:
    base = ("simulate", "--trace", str(trace), "--policy", "headgate,static", "--start", "1s", "--first-token", "2s")
    (pool,) = told(*base, "--rent", "cpu=1.5", "--slo-minutes", "0.9")["pools"]
    assert (pool["price_per_hour"], pool["slo_minutes"]) == (1.5, 0.9)
    ours, static = pool["policies"]["headgate"], pool["policies"]["static"]
    assert ours["money"] == pytest.approx(1.5 * ours["device_hours"]) and ours["money"] < static["money"]
    html = tmp_path / "r.html"
    shown = call(*base, "--rent", "cpu=1.5", "--html", str(html))
    assert "minutes kept" in shown.stdout and "paid for by use" in shown.stdout
    assert "minutes kept" in html.read_text()
    (fixed,) = told(*base)["pools"]
    assert fixed["price_per_hour"] is None and fixed["policies"]["headgate"]["money"] is None
    config = tmp_path / "headgate.yaml"
    config.write_text(
        "pools: {cpu: {cores: [0, 1, 2, 3], elastic: true, price_per_hour: 2.5}}\ncontrol: {slo_minutes: 0.95}\n"
        "models: {m: {source: 'fake:seed=1', slots: 1}}\npipelines: {a: {model: m}, b: {model: m}}\n"
    )
    (pool,) = told(*base)["pools"]
    assert (pool["price_per_hour"], pool["slo_minutes"], pool["devices"]) == (2.5, 0.95, 4.0)
    (owned,) = told(*base, "--rent", "cpu=0")["pools"]
    assert owned["price_per_hour"] is None and any("at no price" in text for text in owned["assumed"])
    (dearer,) = told(*base, "--rent", "cpu=5")["pools"]
    assert (dearer["price_per_hour"], dearer["slo_minutes"]) == (5.0, 0.95)


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--rent", "gpu=1"], "No pipeline of the trace runs on pool gpu"),
        (["--rent", "cpu=-1"], "--rent: 'cpu=-1' is not NAME=NUMBER"),
        (["--slo-minutes", "0.9"], "--slo-minutes: no pool is paid for by use; name one with --rent"),
        (["--slo-minutes", "0.9", "--rent", "cpu=0"], "no pool is paid for by use"),
        (["--slo-minutes", "99", "--rent", "cpu=1"], "99 is no part between 0 and 1"),
        (["--warm", "1m"], "--warm: nobody can rest: how much memory replicas take is not known"),
        (["--warm", "1m", "--rent", "cpu=1"], "what is paid for by use is given back"),
        (["--warm", "long"], "is not a duration"),
        (["--policy", "best"], "take of headgate, equal"),
        (["--pools", "cpu"], "such as cpu=8"),
        (["--pools", "gpu=1"], "No pipeline of the trace runs on pool gpu"),
        (["--weight", "c=2"], "no pipeline 'c'"),
        (["--floor", "a=1.5"], "whole number"),
        (["--answer", "soon"], "is not a duration"),
        (["--from", "1d"], "the trace lasts"),
        (["--format", "xml"], "requests: CSV"),
        (["--html", "/nowhere/r.html", "--policy", "equal"], "cannot be written"),
    ],
)
def test_bad_options_are_told_with_their_cure(trace: Path, words: list[str], what: str) -> None:
    result = call("simulate", "--trace", str(trace), *words)
    assert result.exit_code == exits.BAD_INPUT, result.output
    assert what in result.stderr.replace("\n", " ")


def test_without_the_extra_nothing_is_read(trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulation, "find_spec", lambda _name: None)
    result = call("simulate", "--trace", "missing.csv")
    assert result.exit_code == exits.BAD_INPUT
    assert "pip install 'headgate[sim]'" in result.stderr


def test_what_was_served_is_recorded_shown_and_played(state: Path, tmp_path: Path) -> None:
    db = database(state)
    clock = ManualClock()
    ledger = Ledger(db, make_ids(clock=clock), clock, gateway="g")
    ledger.start()
    for number in range(40):
        clock._elapsed = number * 0.5
        name = "red" if number % 2 else "blue"
        request = ledger.open_request(kind="chat", pipeline=name, principal=LOCAL_ADMIN, stream=True)
        ledger.settle_request(request, state="ok", status=200)
    ledger.close()
    out = tmp_path / "week.csv.gz"
    made = told("trace", "record", "--since", "2023-11-14T00:00", "--out", str(out))
    assert made["requests"] == 40
    assert told("trace", "record", "--out", str(out), code=exits.BAD_INPUT)["error"]["param"] == "out"
    one = told("trace", "record", "--since", "2023-11-14T00:00", "--pipeline", "red", "--out", str(out), "--force")
    assert one["requests"] == 20
    shown = told("trace", "show", str(out))
    assert [(each["pipeline"], each["requests"]) for each in shown["pipelines"]] == [("red", 20)]
    assert "red" in call("trace", "show", str(out)).stdout
    assert told("simulate", "--trace", str(out), "--policy", "headgate")["trace"]["requests"] == 20
    for words in (["--since", "1s"], ["--since", "later"], ["--since", "1d", "--until", "2d"]):
        assert call("trace", "record", *words, "--out", "x.csv").exit_code == exits.BAD_INPUT
    assert not Path("x.csv").exists()


def test_decisions_are_explained_and_made_again_with_no_house_running(state: Path) -> None:
    async def decide() -> list[Any]:
        async with World(make_plan(cores=1, a={}, b={})) as world:
            for pipeline in "aba":
                world.work = {pipeline: (2, 0)}
                await world.run(4.0)
            return list(world.journal.decisions)

    rows = asyncio.run(decide())
    journal = StoreJournal(database(state), ManualClock(), decisions_kept=1000)
    for row in rows:
        journal.record_decision(row)
    journal.flush()
    found = told("explain", "--last", "2")["decisions"]
    assert [one["number"] for one in found] == [len(rows), len(rows) - 1]
    assert found[0]["changes"][0]["reason"] in rows[-1]["reason"]
    assert {"pipeline", "before", "after", "reason"} <= set(found[0]["changes"][0])
    shown = call("explain", "--pipeline", "b").stdout
    assert "b" in shown and "moves: " in shown and "->" in shown
    assert told("explain", "--pipeline", "nobody")["decisions"] == []
    again = told("explain", "--replay", "1")
    assert again["same"] and again["again"] == rows[0]["reason"]
    assert "the same byte for byte" in call("explain", "--replay", "1").stdout
    assert call("explain", "--replay", "999").exit_code == exits.NOT_FOUND


def test_a_decision_that_is_another_now_is_a_failure(state: Path) -> None:
    async def decide() -> Any:
        async with World(make_plan(cores=1, a={})) as world:
            world.work = {"a": (2, 0)}
            await world.run(1.0)
            return dict(world.journal.decisions[0])

    row = asyncio.run(decide())
    journal = StoreJournal(database(state), ManualClock(), decisions_kept=1000)
    journal.record_decision({**row, "reason": "a 0 -> 7: a bribe"})
    journal.flush()
    result = call("explain", "--replay", "1")
    assert result.exit_code == exits.FAILURE
    assert "a bribe" in result.stdout and "another one" in result.stdout


def test_no_decisions_yet(state: Path) -> None:
    assert told("explain")["decisions"] == []
    assert "No decisions yet" in call("explain").stdout


def test_what_tuning_measured_is_used(trace: Path, tmp_path: Path) -> None:
    config = tmp_path / "headgate.yaml"
    config.write_text(
        "pools: {cpu: {cores: [0]}}\nmodels: {m: {source: 'fake:seed=1', slots: 2}}\n"
        "pipelines: {a: {model: m}, b: {model: m}}\n"
    )
    told("model", "add", "m", "fake:seed=1")
    where = Where(config=config)
    settings, _ = where.settings()
    with where.house() as house:
        planned = plan_model("m", settings.models["m"], house.registry().get("m"), {"fake": Fake(None)}, settings)  # type: ignore[arg-type]
        subject = describe_subject(planned, load_hardware())
        profile = Profile(service_s=0.2, load_s=1.5, slow=((1, 1.0), (2, 1.9)))
        save_profile(house.database, house.clock, subject, profile, best=True)
    bare = tmp_path / "bare.csv"
    bare.write_text("at,pipeline\n0,a\n1,b\n2,a\n")
    (pool,) = told("simulate", "--trace", str(bare), "--pools", "cpu=2", "--policy", "equal")["pools"]
    assert pool["start_s"] == 1.5
    assert "each request is 0.2 s of work, as measured or said" in pool["assumed"]
    assert not any("k^" in text for text in pool["assumed"])
    assert pool["memory_bytes"] > 0 and any("stays loaded for 600 s" in text for text in pool["assumed"])
    words = ("simulate", "--trace", str(bare), "--pools", "cpu=2", "--policy", "equal")
    assert any("stays loaded for 60 s" in text for text in told(*words, "--warm", "1m")["pools"][0]["assumed"])
    (cold,) = told(*words, "--warm", "0s")["pools"]
    assert cold["memory_bytes"] is None and any("warm_s is 0" in text for text in cold["assumed"])
