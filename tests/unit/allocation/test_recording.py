import json

import pytest

from headgate.allocation.demand import Outlook
from headgate.allocation.policy import decide
from headgate.allocation.recording import build_state, plain_allocation, plain_state
from headgate.allocation.state import History
from tests.unit.allocation.test_policy import load, make_capacity, runs, spec, state

RATES = (1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0)
RECORDED = state(
    make_capacity(3),
    spec("a", floor=1),
    spec("b", share=0.5),
    running=(runs("r1", "a", 0), runs("r2", "b", 1, share=0.5, stage="draining")),
    demands={
        "b": load(7, queued=2, outlook=Outlook(near=RATES, far=RATES, near_s=2.0, far_s=7.0)),
        "a": load(1),
    },
    histories={"a": History(raised_at=1.5)},
    held={"c": {"c": "why"}},
)


def test_a_state_survives_json_and_gives_the_same_decision_byte_for_byte():
    told = json.dumps(plain_state(RECORDED))
    again = build_state(json.loads(told))
    assert again == RECORDED
    assert json.dumps(plain_state(again)) == told
    one, other = (json.dumps(plain_allocation(decide(each))) for each in (RECORDED, again))
    assert one == other


@pytest.mark.parametrize("broken", [{}, {"at": 1.0, "nonsense": 2}, {"at": 1.0, "capacity": 3, "pipelines": []}])
def test_something_else_is_refused(broken):
    with pytest.raises(ValueError, match="not a recorded state"):
        build_state(broken)
