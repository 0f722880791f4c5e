from dataclasses import replace

import highspy
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.allocation import bound
from headgate.allocation.mixes import Menu
from headgate.allocation.offer import near_mixes
from headgate.allocation.problem import Curves
from headgate.allocation.solver import Effort, Problem, solve, worth_of

TINY = 1e-7
SEARCH = Effort(cells=0)


def make(seed, pipelines=6, pools=2, most_options=2, points=9, classes=1, cap=5, even=True, floors=True) -> Problem:
    """A seeded problem with S-shaped curves, replicas that run already, and too little capacity for all."""
    chance = np.random.default_rng(seed)
    peak = chance.lognormal(0.0, 0.5, pipelines) * 3.0
    loads = peak[:, None] * 1.2 * np.linspace(0.0, 1.0, points) ** (1.0 if even else 1.7)
    steep = chance.uniform(3.0, 14.0, pipelines) / peak
    shape = 1.0 / (1.0 + np.exp(-steep[:, None] * (loads - (chance.uniform(0.2, 0.7, pipelines) * peak)[:, None])))
    values = chance.lognormal(0.0, 0.7, pipelines)[:, None] * (shape - shape[:, :1])
    pairs = [
        (i, pool)
        for i in range(pipelines)
        for pool in sorted(chance.choice(pools, min(pools, chance.integers(1, most_options + 1)), replace=False))
    ]
    pipeline, pool = np.array(pairs).T
    units = chance.choice([1.0, 1.0, 2.0], len(pairs))
    speed = units**0.9 * chance.uniform(0.7, 1.4, len(pairs))
    asked = np.bincount(pool, peak[pipeline] / speed * units, pools) * pipelines / len(pairs)
    return Problem(
        capacity=np.floor(asked * chance.uniform(0.4, 0.9)),
        pipeline=pipeline,
        pool=pool,
        units=units,
        speed=speed,
        cost=0.02 * chance.uniform(0.0, 1.5, len(pairs)),
        now=chance.integers(0, 3, len(pairs)),
        start_cost=chance.uniform(0.0, 0.08, len(pairs)),
        stop_cost=chance.uniform(0.0, 0.03, len(pairs)),
        loads=loads,
        values=values,
        floor=chance.integers(0, 2, pipelines) if floors else np.zeros(pipelines, int),
        cap=chance.integers(2, cap + 1, pipelines),
        rank=chance.integers(0, classes, pipelines),
    )


def plain(values, loads=None, capacity=4, **more) -> Problem:
    """One pool, one option of one unit and speed 1 for each pipeline; nothing costs anything."""
    values = np.array(values, float)
    pipelines, points = values.shape
    none = np.zeros(pipelines)
    fields = dict(
        capacity=[float(capacity)], pipeline=np.arange(pipelines), pool=none, units=none + 1, speed=none + 1,
        cost=none, now=none, start_cost=none, stop_cost=none, values=values, floor=none, rank=none,
        loads=np.tile(np.arange(points, dtype=float), (pipelines, 1)) if loads is None else loads,
        cap=np.full(pipelines, 32),
    )  # fmt: skip
    return Problem(**{**fields, **more})


def held(problem, solution) -> np.ndarray:
    return np.bincount(problem.pipeline, solution.counts, problem.pipelines)


def exact_one_pool(problem) -> float:
    """The best value by dynamic programming, for one pool and one option of one unit for each pipeline."""
    capacity = int(problem.capacity[0])
    best = np.zeros(capacity + 1)
    curves = Curves(problem.loads, problem.values)
    for i in range(problem.pipelines):
        number = np.arange(min(capacity, problem.cap[i]) + 1)
        change = number - problem.now[i]
        costs = (
            problem.cost[i] * number
            + problem.start_cost[i] * change.clip(0)
            + problem.stop_cost[i] * -change.clip(None, 0)
        )
        worth = curves.at(np.full(len(number), i), problem.speed[i] * number) - costs
        worth[: problem.floor[i]] = -np.inf
        best = np.array([max(worth[n] + best[c - n] for n in number if n <= c) for c in range(capacity + 1)])
    return float(best.max())


def exact_by_mip(problem) -> float:
    """The best value by HiGHS over all mixes, listed here one by one."""
    columns = []
    curves = Curves(problem.loads, problem.values)
    for i in range(problem.pipelines):
        k = np.flatnonzero(problem.pipeline == i)
        for mix in np.ndindex(*[problem.cap[i] + 1] * len(k)):
            counts = np.array(mix)
            if problem.floor[i] <= counts.sum() <= problem.cap[i]:
                change = counts - problem.now[k]
                costs = problem.cost[k] @ counts + problem.start_cost[k] @ change.clip(0)
                costs += problem.stop_cost[k] @ (-change).clip(0)
                value = curves.at(np.array([i]), np.array([problem.speed[k] @ counts]))[0]
                columns.append(
                    (i, value - costs, np.bincount(problem.pool[k], problem.units[k] * counts, problem.pools))
                )
    model = highspy.Highs()
    model.silent()
    taken = [model.addBinary() for _ in columns]
    for i in range(problem.pipelines):
        model.addConstr(model.qsum(taken[c] for c, one in enumerate(columns) if one[0] == i) == 1)
    for p in range(problem.pools):
        used = model.qsum(float(one[2][p]) * taken[c] for c, one in enumerate(columns))
        model.addConstr(used <= float(problem.capacity[p]))
    model.setOptionValue("mip_rel_gap", 1e-7)
    model.maximize(model.qsum(float(one[1]) * taken[c] for c, one in enumerate(columns)))
    assert model.getModelStatus() == highspy.HighsModelStatus.kOptimal
    return model.getInfo().objective_function_value


def check(problem, solution) -> None:
    """What must hold of every solution."""
    used = np.bincount(problem.pool, problem.units * solution.counts, problem.pools)
    assert (used <= problem.capacity + TINY).all()
    assert (solution.counts >= 0).all()
    total = held(problem, solution)
    assert (total <= problem.cap).all()
    assert (total >= np.minimum(problem.floor, problem.cap) - solution.unseated).all()
    assert (solution.unseated >= 0).all()
    assert solution.value == pytest.approx(worth_of(problem, solution.counts))
    assert solution.bound >= solution.value


problems = st.builds(
    make,
    st.integers(0, 2**32 - 1),
    pipelines=st.sampled_from([1, 2, 5, 9, 20, 40]),
    pools=st.integers(1, 4),
    most_options=st.integers(1, 3),
    points=st.sampled_from([2, 3, 9, 17]),
    classes=st.integers(1, 3),
    even=st.booleans(),
)


efforts = st.sampled_from([Effort(), SEARCH])


@settings(max_examples=150, deadline=None)
@given(problems, efforts)
def test_never_over_capacity_or_cap_and_never_under_a_seated_floor(problem, effort):
    solution = solve(problem, effort=effort)
    check(problem, solution)
    again = solve(problem, effort=effort)
    assert (again.counts == solution.counts).all()
    assert again.bound == solution.bound
    check(problem, solve(problem, prices=solution.prices * 1.3, effort=effort))


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3), st.booleans())
def test_the_best_at_once_is_what_the_search_finds_and_as_much_as_it_proves(seed, pools, together):
    problem = make(seed, pipelines=6, pools=pools, most_options=3, cap=4)
    if together:  # several ways into one pool
        problem = replace(problem, pool=problem.pool // 2, capacity=problem.capacity[::2] * 2.0)
    direct, search = solve(problem), solve(problem, effort=SEARCH)
    check(problem, direct)
    assert (direct.unseated == search.unseated).all()
    assert search.value - TINY <= direct.value <= search.bound + TINY
    assert direct.gap < 1e-12
    assert np.isfinite(direct.prices).all()
    assert (direct.prices >= 0.0).all()


@settings(max_examples=60, deadline=None)
@given(problems, st.randoms(use_true_random=False), efforts)
def test_order_of_pipelines_and_options_does_not_change_the_value(problem, chance, effort):
    rows = np.array(chance.sample(range(problem.pipelines), problem.pipelines))
    options = np.array(chance.sample(range(problem.options), problem.options))
    place = np.argsort(rows)
    moved = replace(
        problem,
        **{name: getattr(problem, name)[rows] for name in ("loads", "values", "floor", "cap", "rank")},
        **{
            name: getattr(problem, name)[options]
            for name in ("pool", "units", "speed", "cost", "now", "start_cost", "stop_cost")
        },
        pipeline=place[problem.pipeline[options]],
    )
    one, other = solve(problem, effort=effort), solve(moved, effort=effort)
    assert other.value == pytest.approx(one.value, rel=1e-9, abs=1e-9)
    assert other.bound == pytest.approx(one.bound, rel=1e-9, abs=1e-9)
    assert (held(moved, other) == held(problem, one)[rows]).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.floats(1.05, 5.0))
def test_a_higher_weight_never_serves_a_pipeline_worse(seed, factor):
    problem = make(seed, pipelines=6, most_options=1, floors=False)
    values = problem.values.copy()
    values[0] *= factor
    heavier = replace(problem, values=values)
    before, after = solve(problem), solve(heavier)
    curves = Curves(problem.loads, problem.values)

    def served(solution):
        work = np.bincount(problem.pipeline, problem.speed * solution.counts, problem.pipelines)
        return curves.at(np.arange(problem.pipelines), work)[0]

    if before.gap < 1e-9 and after.gap < 1e-9:
        assert served(after) >= served(before) - TINY


def menu_of(problem):
    """All that the pipelines may choose from, with their options [I, 3] and a seat of each floor [K]."""
    seats, slots = np.zeros(problem.options, int), np.full((problem.pipelines, 3), -1)
    for i in range(problem.pipelines):
        mine = np.flatnonzero(problem.pipeline == i)
        slots[i, 3 - len(mine) :] = mine
        seats[mine[0]] = min(problem.floor[i], problem.capacity[problem.pool[mine[0]]] // problem.units[mine[0]])
    curves = Curves(problem.loads, problem.values)
    return Menu(problem, curves, np.arange(problem.pipelines), slots, seats, problem.capacity), slots, seats


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.05, 2.0), st.floats(0.01, 0.5))
def test_mixes_are_listed_for_prices_that_fall_by_a_part(seed, level, fall):
    menu, _, _ = menu_of(make(seed, pipelines=5, pools=3, most_options=3, cap=4))
    prices = level * np.random.default_rng(seed).uniform(0.1, 1.0, 3)
    mixes = near_mixes(menu, prices, 0.0, fall)
    lower = prices * (1.0 - fall / (1.0 + fall))
    best = np.maximum.reduceat(mixes.worth - lower @ mixes.use, mixes.first)
    assert (mixes.unlisted(lower) <= best + TINY).all()


def test_what_gets_cheaper_in_a_pool_matters_to_those_only_who_may_use_it():
    problem = replace(plain([[0, 1, 1.5], [0, 1, 1.5]]), capacity=[2.0, 2.0], pool=[0, 1])
    menu, _, _ = menu_of(problem)
    mixes = near_mixes(menu, np.array([1.0, 1.0]), 0.0)
    told, cheaper = mixes.beyond, mixes.unlisted(np.array([0.5, 1.0]))
    assert cheaper[0] > told[0]
    assert cheaper[1] == told[1]


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.0, 2.0), st.floats(0.01, 3.0), st.floats(0.2, 3.0))
def test_no_mix_that_is_not_listed_is_worth_more_than_is_told_at_any_prices(seed, level, reach, change):
    problem = make(seed, pipelines=5, pools=3, most_options=3, cap=4, even=bool(seed % 2))
    menu, slots, seats = menu_of(problem)
    curves = menu.curves
    chance = np.random.default_rng(seed)
    prices = level * chance.uniform(0.0, 1.0, problem.pools)
    mixes = near_mixes(menu, prices, reach * 0.1, fall=(seed % 3) * 0.1)
    others = prices * change ** chance.uniform(-1.0, 1.0, problem.pools)
    limit, limit_there = mixes.unlisted(prices), mixes.unlisted(others)
    listed = {(int(i), *held) for i, held in zip(mixes.owner, mixes.counts.T.tolist(), strict=True)}
    assert set(mixes.owner.tolist()) == set(range(problem.pipelines))
    for i in range(problem.pipelines):
        k = slots[i][slots[i] >= 0]
        best = -np.inf
        for mix in np.ndindex(*[problem.cap[i] + 1] * len(k)):
            counts = np.array(mix)
            used = np.bincount(problem.pool[k], problem.units[k] * counts, problem.pools)
            if not seats[k].sum() <= counts.sum() <= problem.cap[i] or (used > problem.capacity + TINY).any():
                continue
            change_of = counts - problem.now[k]
            costs = problem.cost[k] @ counts + problem.start_cost[k] @ change_of.clip(0)
            costs += problem.stop_cost[k] @ (-change_of).clip(0)
            worth = curves.at(np.array([i]), np.array([problem.speed[k] @ counts]))[0] - costs
            best = max(best, worth - prices @ used)
            if (i, *([0] * (3 - len(k))), *mix) not in listed:
                stands = fewer_are_as_good(problem, curves, i, k, counts)
                assert stands or worth - prices @ used <= limit[i] + TINY
                assert stands or worth - others @ used <= limit_there[i] + TINY
        mine = mixes.owner == i
        # The best is listed itself, or what is told of the others allows for it.
        assert max((mixes.worth - prices @ mixes.use)[mine].max(), limit[i]) >= best - TINY


def fewer_are_as_good(problem, curves, i, k, counts) -> bool:
    """Whether with one replica less of some option the mix is worth as much, so that the smaller one stands for it."""

    def worth(held):
        change = held - problem.now[k]
        costs = problem.cost[k] @ held + problem.start_cost[k] @ change.clip(0)
        costs += problem.stop_cost[k] @ (-change).clip(0)
        return curves.at(np.array([i]), np.array([problem.speed[k] @ held]))[0] - costs

    smaller = [counts - one for one in np.eye(len(k), dtype=int) if (counts >= one).all()]
    return any(worth(one) >= worth(counts) - TINY for one in smaller)


def test_ten_pipelines_on_32_replicas_are_as_good_as_the_exact_answer():
    gaps = []
    for seed in range(300):
        problem = replace(
            make(seed, pipelines=10, pools=1, most_options=1, points=17, cap=32), capacity=np.array([32.0])
        )
        problem = replace(problem, units=np.ones(10), values=problem.values, loads=problem.loads * (1.5 + seed % 3))
        best = exact_one_pool(problem)
        solution = solve(problem)
        check(problem, solution)
        assert solution.value == pytest.approx(best, abs=TINY)
        assert solution.gap < 1e-12
        solution = solve(problem, effort=SEARCH)
        check(problem, solution)
        assert solution.value <= best + TINY <= solution.bound + 2 * TINY
        gaps.append(1.0 - solution.value / best)
        assert solution.gap <= 0.01
    assert max(gaps) <= 0.002


@pytest.mark.parametrize("seed", range(40))
def test_several_pools_against_mixed_integer_programming(seed):
    problem = make(seed, pipelines=7, pools=3, most_options=3, cap=4, even=bool(seed % 2))
    solution = solve(problem, effort=SEARCH)
    check(problem, solution)
    if solution.unseated.any():
        return
    best = exact_by_mip(problem)
    assert solution.value <= best + TINY
    assert solution.bound >= best - TINY
    assert solution.value >= best - 0.002 * abs(best)
    assert solution.gap <= 0.01
    assert solve(problem).value == pytest.approx(best, abs=TINY)


def test_many_pipelines_come_with_a_small_gap():
    for seed in range(3):
        problem = make(seed, pipelines=400, pools=4, most_options=3, cap=12)
        cold = solve(problem)
        check(problem, cold)
        assert cold.gap <= 0.01
        assert solve(problem, prices=cold.prices).gap <= 0.01


def test_an_s_shaped_curve_is_taken_in_one_leap():
    problem = plain([[0, 0, 0, 9], [0, 1, 2, 3]], capacity=3)
    assert solve(problem).counts.tolist() == [3, 0]
    assert solve(replace(problem, capacity=np.array([2.0]))).counts.tolist() == [0, 2]


def test_a_lower_rank_gets_what_it_wants_before_the_next_sees_anything():
    problem = plain([[0, 0.1, 0.2, 0.2], [0, 50, 60, 70]], capacity=3, rank=[0, 1])
    assert solve(problem).counts.tolist() == [2, 1]
    assert solve(replace(problem, rank=np.array([1, 0]))).counts.tolist() == [0, 3]
    with_floor = replace(problem, capacity=np.array([2.0]), floor=np.array([0, 1]))
    assert solve(with_floor).counts.tolist() == [1, 1]


def test_floors_that_do_not_fit_are_seated_by_rank_and_then_by_value():
    problem = plain([[0, 1, 2], [0, 5, 6], [0, 3, 4]], capacity=2, floor=[1, 1, 1])
    solution = solve(problem)
    assert solution.counts.tolist() == [0, 1, 1]
    assert solution.unseated.tolist() == [1, 0, 0]
    ranked = solve(replace(problem, rank=np.array([0, 1, 1])))
    assert ranked.counts.tolist() == [1, 1, 0]
    assert ranked.unseated.tolist() == [0, 0, 1]


def test_a_seated_floor_moves_to_another_pool_for_one_that_cannot():
    problem = replace(
        plain([[0, 1], [0, 1]], floor=[1, 1]),
        capacity=np.array([1.0, 1.0]), pipeline=np.array([0, 0, 1]), pool=np.array([0, 1, 0]),
        **{name: np.ones(3) for name in ("units", "speed")},
        **{name: np.zeros(3) for name in ("cost", "now", "start_cost", "stop_cost")},
    )  # fmt: skip
    assert solve(problem).counts.tolist() == [0, 1, 1]


def test_nothing_is_left_idle_that_costs_nothing_and_helps():
    problem = plain([[0, 1, 1], [0, 1, 1]], capacity=10, cap=[3, 4])
    assert solve(problem).counts.tolist() == [3, 4]
    costly = replace(problem, cost=np.array([0.1, 0.1]))
    assert solve(costly).counts.tolist() == [1, 1]


def test_what_runs_is_kept_when_a_move_gains_less_than_it_costs():
    problem = plain([[0, 5, 5.1], [0, 5, 5.3]], capacity=3, now=[2, 1])
    assert solve(problem).counts.tolist() == [1, 2]
    sticky = replace(problem, start_cost=np.full(2, 0.15), stop_cost=np.full(2, 0.15))
    assert solve(sticky).counts.tolist() == [2, 1]


def test_a_cheaper_pool_is_used_until_it_is_full():
    problem = replace(
        plain([[0, 4, 7, 9, 10]], capacity=2),
        capacity=np.array([2.0, 5.0]), pipeline=np.array([0, 0]), pool=np.array([0, 1]), cost=np.array([0.1, 1.5]),
        **{name: np.ones(2) for name in ("units", "speed")},
        **{name: np.zeros(2) for name in ("now", "start_cost", "stop_cost")},
    )  # fmt: skip
    solution = solve(problem)
    assert solution.counts.tolist() == [2, 1]
    assert solution.prices[0, 1] == pytest.approx(0.0)


def test_a_pool_is_worth_what_its_last_units_bring():
    leap, slope = [0, 0, 0, 9, 9], [0, 5, 8, 8, 8]
    assert solve(plain([leap], capacity=3)).prices.tolist() == [[3.0]]
    assert solve(plain([slope], capacity=2)).prices.tolist() == [[3.0]]
    assert solve(plain([slope], capacity=3)).prices.tolist() == [[0.0]]
    in_other_units = plain([slope], capacity=0.5, units=[0.25])
    assert solve(in_other_units).prices.tolist() == [[12.0]]
    # Floors took all there is: what the next unit would bring whom it helps most.
    assert solve(plain([slope, [0, 1, 1, 1, 1]], capacity=2, floor=[1, 1])).prices.tolist() == [[3.0]]


def test_many_pools_are_too_many_states_for_the_best_at_once():
    pools = 40
    alone = plain(np.tile([0.0, 1.0, 1.5], (pools, 1)))
    problem = replace(alone, capacity=np.ones(pools), pool=np.arange(pools))
    solution = solve(problem)
    check(problem, solution)
    assert solution.value == pytest.approx(float(pools))


@pytest.mark.parametrize("factor", [0.3, 1.0, 3.0])
def test_prices_that_were_far_off_cost_no_further_listing(factor, monkeypatch):
    problem = make(5, pipelines=300, pools=4, most_options=3, cap=12)
    known = solve(problem).prices
    asked = []
    monkeypatch.setattr(bound, "near_mixes", lambda *args: asked.append(1) or near_mixes(*args))
    assert solve(problem, prices=factor * known).gap <= 0.01
    assert len(asked) == 1


@pytest.mark.parametrize("seed", [0, 7, 12, 19])
def test_prices_that_were_far_off_in_some_pools_are_found_again(seed):
    problem = make(seed, pipelines=40, pools=4, most_options=3, cap=12)
    known = solve(problem).prices
    assert solve(problem, prices=known * np.array([4.0, 1.0, 0.25, 1.0])).gap <= 0.01


def test_replicas_that_share_no_step_are_searched_for():
    problem = plain([[0, 3, 5, 6], [0, 2, 3, 3]], capacity=2.0, units=[0.7, 0.3])
    solution = solve(problem)
    check(problem, solution)
    assert solution.counts.tolist() == [2, 2]
    assert solution.gap < 1e-9


def test_nobody_and_nothing():
    empty = plain(np.zeros((0, 3)), capacity=4)
    assert solve(empty).counts.tolist() == []
    assert solve(plain([[0, 1, 2]], capacity=0)).counts.tolist() == [0]
    nowhere = {name: np.zeros(0) for name in ("pipeline", "pool", "units", "speed", "cost", "now")}
    nowhere |= {name: np.zeros(0) for name in ("start_cost", "stop_cost")}
    solution = solve(replace(plain([[1, 2, 3]], floor=[1]), **nowhere))
    assert (solution.value, solution.bound, solution.unseated.tolist()) == (1.0, 1.0, [1])
    alone = {name: np.array([1.0]) for name in ("pipeline", "units", "speed")}
    alone |= {name: np.zeros(1) for name in ("pool", "cost", "now", "start_cost", "stop_cost")}
    homeless = replace(plain([[1, 2, 3], [0, 1, 2]]), **alone)
    solution = solve(homeless)
    assert solution.counts.tolist() == [4]
    nowhere_first = replace(homeless, rank=np.array([1, 0]))
    for effort in (Effort(), SEARCH):
        assert solve(nowhere_first, effort=effort).value == pytest.approx(3.0)
    assert solution.value == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("units", np.zeros(2), "above 0"),
        ("cost", np.array([0.1, -0.1]), "cost: must not be negative"),
        ("speed", np.ones(3), "speed: one entry"),
        ("pool", np.array([0, 1]), "past the last"),
        ("loads", np.array([[0.0, 1, 1], [0, 1, 2]]), "begin with 0 and rise"),
        ("values", np.array([[0.0, 2, 1], [0, 1, 2]]), "must not fall"),
        ("floor", np.zeros(3), "floor: one entry"),
    ],
)
def test_a_problem_that_cannot_be_says_which_field(field, value, message):
    with pytest.raises(ValueError, match=message):
        replace(plain([[0, 1, 2], [0, 1, 2]]), **{field: value})
