"""The child process that refines one decision: when nobody else wants the core, with little memory, and not for long.

    python -m headgate.control.refiner_child < request.json > reply.json

The request has state (as recorded) and seconds (for each class of pipelines); the reply is a Refinement, or null.
"""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from pathlib import Path

MEMORY_BYTES = 4 * 2**30  # of addresses; interpreters and solvers reserve far more than they touch
_CPU_S = 60  # beside the solver's own limit, which holds for each of three classes


def main() -> None:
    """Answer the request on standard input."""
    _step_back()
    # Why so late: importing is most of the work, and that too must wait until nobody else wants the core.
    from dataclasses import asdict

    import orjson

    from headgate.allocation.recording import build_state
    from headgate.allocation.refine import refine

    request = orjson.loads(sys.stdin.buffer.read())
    seconds = float(request["seconds"])
    limit_s = _CPU_S + round(3 * seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (limit_s, limit_s + 1))
    found = refine(build_state(request["state"]), seconds)
    sys.stdout.buffer.write(orjson.dumps(None if found is None else asdict(found)))


def _step_back() -> None:
    """Run only when nobody else wants to, and be the first to go when memory runs out."""
    with contextlib.suppress(OSError):
        os.nice(19)
    with contextlib.suppress(OSError, AttributeError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    # Why the group too: where sessions are scheduled as groups, niceness counts only inside of one.
    for name, value in (("autogroup", "19"), ("oom_score_adj", "1000")):
        with contextlib.suppress(OSError):
            Path(f"/proc/self/{name}").write_text(value, encoding="ascii")
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


if __name__ == "__main__":
    main()
