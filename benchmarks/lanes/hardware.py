"""What lane H knows of hardware: published facts, each with its source and date, and what follows from them.

One model size is measured everywhere under the same limits (MLPerf's Server scenario: first token within 2 s, a token
each 0.1 s); other sizes are reckoned by parameters. Power is that of the devices alone: no hosts, fans or memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headgate.allocation.arrays import Floats

FIRST_TOKEN_S, TOKEN_S = 2.0, 0.1
"""Limits under which the speeds were measured. Source: MLPerf Inference v5.1, Llama-3.1-8B, Server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """A published number."""

    value: float
    unit: str
    source: str
    date: str


_MLPERF = "MLCommons inference_results_v5.1, summary_results.json, Llama-3.1-8B, Server"
_PRICES = "skypilot-catalog v8, nebius/vms.csv (0082b0435f39), on demand"
_CODECARBON = "codecarbon, cpu_power.csv and load_curves (RAPL, EPYC 8024P, all cores, 2025-01-14)"

FACTS = {
    "cpu_speed": Fact(value=258.0 / 172, unit="tokens/s by core", source=f"{_MLPERF}, 2 x Xeon 6787P", date="2025-09"),
    "l40s_speed": Fact(value=1207.0, unit="tokens/s", source=f"{_MLPERF}, L40S", date="2025-09"),
    "h100_speed": Fact(value=5104.0, unit="tokens/s", source=f"{_MLPERF}, H100 SXM", date="2025-09"),
    "prompt": Fact(
        value=778.0 / 73, unit="prompt tokens by token", source="MLPerf's CNN/DailyMail task", date="2025-09"
    ),
    "cpu_price": Fact(value=1.5872 / 32, unit="USD/h by core", source=f"{_PRICES}, cpu-d3_64vcpu", date="2026-11"),
    "l40s_price": Fact(value=1.5484, unit="USD/h", source=f"{_PRICES}, gpu-l40s-a_1gpu", date="2026-11"),
    "h100_price": Fact(value=2.95, unit="USD/h", source=f"{_PRICES}, gpu-h100-sxm_1gpu", date="2026-11"),
    "cpu_watts": Fact(
        value=350.0 / 86, unit="W by core", source=f"{_CODECARBON}, Xeon 6787P, 86 cores", date="2025-01"
    ),
    "l40s_watts": Fact(value=350.0, unit="W", source="NVIDIA, L40S data sheet", date="2023-08"),
    "h100_watts": Fact(value=700.0, unit="W", source="NVIDIA, H100 SXM data sheet", date="2023-03"),
    "gpu_idle": Fact(value=80.3 / 700, unit="of its most", source="H200 SXM, idle, api.serialalice.pt", date="2026-06"),
    "slice_part": Fact(
        value=1 / 8, unit="of memory", source="NVIDIA MIG guide, 1g.10gb (one in seven)", date="2026-01"
    ),
}

_GPU_LOAD = np.array([0.0, 1070.0, 5147.0, 9010.0, 9806.0]) / 9806.0
_GPU_POWER = np.array([FACTS["gpu_idle"].value, 486 / 700, 610 / 700, 691 / 700, 691 / 700])
"""Power by load, both as parts of the most. Taken for the L40S too, for want of its own.

Source: ml-energy/leaderboard, 2026-02, Llama-3.1-8B on one H100 at batch 8, 64, 255 and 511; idle as in FACTS.
"""

_CPU_LOAD = np.array([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0])
_CPU_POWER = np.array([0.6, 18.6, 29.5, 38.7, 41.8, 43.2, 48.7, 50.7]) / 50.7
"""The same for CPUs. Source: FACTS, cpu_watts. Idle cores draw next to nothing there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One way to hold hardware: `units` of `pool`; tokens per second for a model of `REFERENCE` parameters.

    `prompt_per_s` is prompt tokens per second of one request alone; `memory_gb` is what a model has.
    """

    name: str
    pool: str
    units: float
    usd_per_hour: float
    tokens_per_s: float
    prompt_per_s: float
    watts_most: float
    memory_gb: float

    def watts(self, load: Floats) -> Floats:
        """Watts that one draws at `load`, a part of its tokens per second."""
        curve = (_CPU_LOAD, _CPU_POWER) if self.pool == "cpu" else (_GPU_LOAD, _GPU_POWER)
        return self.watts_most * np.interp(load, *curve)


REFERENCE = 8.03
"""Billions of parameters of the model that was measured (Llama-3.1-8B)."""


def _kind(name: str, pool: str, fact: str, units: float, part: float, price: float, memory_gb: float) -> Kind:
    speed = FACTS[f"{fact}_speed"].value * part
    return Kind(
        name=name,
        pool=pool,
        units=units,
        usd_per_hour=FACTS[f"{fact}_price"].value * price,
        tokens_per_s=speed,
        # Why twice: a device that serves at this rate gives about half of its time to prompts.
        prompt_per_s=2.0 * FACTS["prompt"].value * speed,
        watts_most=FACTS[f"{fact}_watts"].value * price,
        memory_gb=memory_gb,
    )


KINDS = (
    _kind("2 cores", "cpu", "cpu", 2.0, 2.0, 2.0, 8.0),
    _kind("4 cores", "cpu", "cpu", 4.0, 4.0, 4.0, 16.0),
    _kind("16 cores", "cpu", "cpu", 16.0, 16.0, 16.0, 64.0),
    _kind("L40S", "l40s", "l40s", 1.0, 1.0, 1.0, 48.0),
    _kind("H100 slice", "h100", "h100", 1.0, FACTS["slice_part"].value, 1 / 7, 10.0),
    _kind("H100", "h100", "h100", 7.0, 1.0, 1.0, 80.0),
)
"""From small to large. A slice of a GPU has a seventh of its price and power and an eighth of its speed."""

POOLS = ("cpu", "l40s", "h100")


def tokens_per_s(kind: Kind, billions: float) -> float:
    """Output tokens per second of one `kind` with a model of so many parameters: in inverse proportion to them."""
    return kind.tokens_per_s * REFERENCE / billions


def first_token_s(kind: Kind, billions: float, prompt_tokens: float) -> float:
    """Seconds that a prompt takes alone."""
    return prompt_tokens * billions / REFERENCE / kind.prompt_per_s
