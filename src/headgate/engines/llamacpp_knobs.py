"""Which options of a llama.cpp replica have a best value that depends on the machine. Measures nothing."""

from __future__ import annotations

from headgate.core.model import Version
from headgate.engines.engine import Knob

_CONTEXTS = (256, 512, 1024, 2048, 4096, 8192, 16_384, 32_768, 65_536, 131_072)
_SLOTS = Knob(name="slots", values=(1, 2, 4, 8, 16, 32), default=1)
_THREADS = Knob(name="threads", values=(1, 2, 4, 8, 16), default=1)
_KV_TYPE = Knob(name="kv_type", values=("f16", "q8_0"), default="f16", effect="answers")


def llamacpp_knobs(version: Version, batch: int) -> tuple[Knob, ...]:
    """The knobs of a version, the most telling first; `batch` is the engine's own, in prompt tokens a step."""
    most = version.context or _CONTEXTS[-1]
    contexts = tuple(context for context in _CONTEXTS if context <= most)
    context = Knob(name="context", values=contexts, default=most, effect="limits")
    if version.task == "embed":  # its batch follows the context, and it keeps nothing from one text to the next
        return (_SLOTS, _THREADS, context)
    return (
        Knob(name="batch", values=(32, 64, 128, 256, 512), default=batch),
        _SLOTS,
        _KV_TYPE,
        _THREADS,
        context,
    )
