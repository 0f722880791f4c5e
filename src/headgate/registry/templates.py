"""Finds a broken or hostile chat template before its model is taken, by rendering it in a child process.

A template comes from a stranger's file and is a small program: template_sandbox runs it, this starts, limits and ends
that process. Engines render in their own way later; this only decides whether a template is taken.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from headgate.core.errors import ModelRefused

MAX_TEMPLATE_BYTES = 256 * 1024

_PACKAGES = Path(__file__).parents[2]  # the child must find this very package, also when it is not installed

MESSAGE = "Hello, headgate."


def check_template(template: str, *, now: float, timeout_s: float = 5.0, tokens: dict[str, str] | None = None) -> str:
    """What `template` makes of one plain message, rendered in a child process.

    `now` is the time that strftime_now tells (seconds since the epoch); `tokens` are bos_token and the like.

    Raises:
        ModelRefused: it is too long, malformed, reaches for what it may not, does not end, or loses the message.
    """
    if len(template.encode(errors="replace")) > MAX_TEMPLATE_BYTES:
        raise ModelRefused(
            f"The chat template is longer than {MAX_TEMPLATE_BYTES} bytes. Use another build of the model."
        )
    request = {"template": template, "message": MESSAGE, "now": now, "tokens": tokens or {}, "timeout_s": timeout_s}
    child = subprocess.Popen(
        [sys.executable, "-s", "-P", "-m", "headgate.registry.template_sandbox"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={"PATH": os.environ.get("PATH", ""), "LANG": "C.UTF-8", "PYTHONPATH": str(_PACKAGES)},
    )
    try:
        # Why twice and more: the child limits its own processor time; the wall is for a machine that is busy.
        reply, _ = child.communicate(json.dumps(request).encode(), timeout=timeout_s * 4 + 10)
    except subprocess.TimeoutExpired:
        raise _refuse("it does not end") from None
    finally:
        if child.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                pipe.close()
    return _answer(child.returncode, reply)


def _answer(code: int | None, reply: bytes) -> str:
    if code is not None and -code in (signal.SIGXCPU, signal.SIGKILL):
        raise _refuse("it does not end")
    try:
        answer = json.loads(reply)
    except ValueError:
        raise _refuse(f"rendering it broke down (exit status {code}), perhaps for want of memory") from None
    if "refused" in answer:
        raise _refuse(str(answer["refused"]))
    text = str(answer["text"])
    if MESSAGE not in text:
        raise _refuse("it loses the user's message")
    return text


def _refuse(why: str) -> ModelRefused:
    return ModelRefused(f"The model's chat template was refused: {why}. Use another build of the model.")
