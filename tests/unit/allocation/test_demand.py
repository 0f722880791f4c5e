import pytest

from headgate.allocation.demand import RATE_S, Demand, Seen, learn_demand


def test_a_steady_stream_is_learned_whatever_the_length_of_the_ticks():
    for tick in (0.05, 0.25, 1.0):
        demand = Demand()
        for _ in range(int(120 / tick)):
            seen = Seen(elapsed_s=tick, arrivals=1, settled=1, busy_s=0.5, in_flight=2)
            demand = learn_demand(demand, seen)
        assert demand.arrivals_per_s == pytest.approx(1 / tick, rel=0.02)
        assert demand.service_s == pytest.approx(0.5)
        assert demand.concurrency == pytest.approx(2.0, rel=0.01)
        assert demand.steady == pytest.approx(max(2.0, 0.5 / tick), rel=0.02)


def test_two_looks_at_one_moment_count_everything_once():
    once = learn_demand(Demand(), Seen(elapsed_s=0.0, arrivals=5))
    assert once.arrivals_per_s == pytest.approx(5 / RATE_S)
    assert learn_demand(once, Seen(elapsed_s=0.0)).arrivals_per_s == once.arrivals_per_s


def test_idle_time_starts_with_the_last_request():
    demand = learn_demand(Demand(), Seen(elapsed_s=1.0, in_flight=1))
    assert demand.idle_for_s == 0.0
    for _ in range(3):
        demand = learn_demand(demand, Seen(elapsed_s=2.0))
    assert demand.idle_for_s == 6.0
    assert learn_demand(demand, Seen(elapsed_s=2.0, arrivals=1, settled=1, busy_s=0.1)).idle_for_s == 0.0
