"""Estimated and measured peak memory of llama.cpp replicas, over random-weight models of several shapes.

    python benchmarks/memory_estimate.py --json benchmarks/results/memory_estimate.json

Each replica is loaded, all of its slots answer a prompt of several steps at once, and the process's own high-water
mark (VmHWM) is read. llama.cpp clears the KV cache when it loads, so all of it is resident however long the prompts.
Shapes marked `held out` were not looked at when the estimate was fitted. Linux only.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.helpers.replicas import engines_for, make_version, running_replica, wait_ready
from tests.helpers.tiny_gguf import Shape, write_llama

from headgate.core.chat import Call
from headgate.core.clock import SystemClock
from headgate.engines.engine import ModelOptions
from headgate.engines.http import HttpClient
from headgate.registry.gguf import read_gguf
from headgate.registry.gguf_facts import header_facts

TINY = dict(layers=4, embedding=128, feed_forward=384, heads=4, kv_heads=4, vocabulary=652)
SMALL = dict(layers=12, embedding=768, feed_forward=2048, heads=12, kv_heads=4, vocabulary=32000)
HALF = dict(
    layers=24, embedding=896, feed_forward=4864, heads=14, kv_heads=2, vocabulary=151936, tied=True, merges=True
)
TIED = dict(
    layers=10, embedding=640, feed_forward=1792, heads=10, kv_heads=5, vocabulary=100000, tied=True, merges=True
)
ODD = dict(layers=16, embedding=1024, feed_forward=2816, heads=16, kv_heads=8, vocabulary=64000)

CASES = [
    (False, "tiny", TINY, "F16", 1024, 1),
    (False, "tiny", TINY, "F16", 1024, 8),
    (False, "0.1B", SMALL, "F16", 512, 1),
    (False, "0.1B", SMALL, "F16", 2048, 4),
    (False, "0.1B", SMALL, "Q8_0", 512, 1),
    (False, "0.1B", SMALL, "Q4_0", 512, 1),
    (False, "0.5B", HALF, "F16", 1024, 2),
    (False, "0.5B", HALF, "Q8_0", 1024, 2),
    (True, "tiny", TINY, "Q8_0", 768, 4),
    (True, "0.1B", SMALL, "Q8_0", 1024, 8),
    (True, "0.1B", SMALL, "Q4_0", 4096, 2),
    (True, "0.25B", ODD, "F16", 512, 2),
    (True, "0.25B", ODD, "Q8_0", 2048, 4),
    (True, "0.25B", ODD, "Q4_0", 1024, 1),
    (False, "0.5B", HALF, "Q4_0", 512, 4),
    (True, "0.1B tied", TIED, "F16", 2048, 1),
    (True, "0.1B tied", TIED, "Q4_0", 512, 2),
]


async def fill(running, context: int, slots: int) -> None:
    """Let every slot read a prompt of several steps and answer."""
    await wait_ready("llamacpp", running, 120)
    client = HttpClient(SystemClock())
    engine = engines_for(client)["llamacpp"]
    call = Call(
        kind="completion",
        pipeline="p",
        body={"prompt": "ab" * min(100, (context - 20) // 2), "temperature": 0},
        max_tokens=8,
    )

    async def ask() -> None:
        async for _ in engine.stream(running.upstream, call):
            pass

    await asyncio.gather(*[ask() for _ in range(slots)])
    await client.close()


def measure(folder: Path, case: tuple) -> dict:
    """One row: the estimate and what was measured."""
    held_out, name, shape, kind, context, slots = case
    path = folder / f"{name}-{kind}.gguf"
    if not path.exists():
        write_llama(path, Shape(**shape, kind=kind, context=4096))
    header = read_gguf(path)
    parameters = sum(tensor.parameters for tensor in header.tensors)
    version = make_version("gguf", path, context=4096, parameters=parameters, header=header_facts(header))
    options = ModelOptions(context=context, slots=slots)
    engine = engines_for(HttpClient(SystemClock()))["llamacpp"]
    memory = engine.estimate_memory(version, options)
    with running_replica("llamacpp", version, options, wait=False) as running:
        asyncio.run(fill(running, context, slots))
        status = Path(f"/proc/{running.process.pid}/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0]) * 1024
    parts = {k: int(status.split(k + ":")[1].split()[0]) * 1024 for k in ("RssAnon", "RssFile")}
    return {
        "held_out": held_out,
        "model": name,
        "kind": kind,
        "context": context,
        "slots": slots,
        "weights_bytes": memory.weights,
        "kv_cache_bytes": memory.kv_cache,
        "compute_bytes": memory.compute,
        "overhead_bytes": memory.overhead,
        "estimate_bytes": memory.total,
        "peak_bytes": peak,
        "error": memory.total / peak - 1,
        "anonymous_bytes": parts["RssAnon"],
        "file_bytes": parts["RssFile"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", type=Path, help="folder that keeps the models between runs")
    parser.add_argument("--only", help="models whose name begins so")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        print("model     kind  context slots  weights     kv  compute  estimate     peak   error   anon   file")
        for case in CASES:
            if arguments.only and not case[1].startswith(arguments.only):
                continue
            row = measure(folder, case)
            rows.append(row)
            mib = {
                name: row[f"{name}_bytes"] / 2**20 for name in ("weights", "kv_cache", "compute", "estimate", "peak")
            }
            print(
                f"{row['model']:9} {row['kind']:5} {row['context']:7} {row['slots']:5} {mib['weights']:8.1f} "
                f"{mib['kv_cache']:6.1f} {mib['compute']:8.1f} {mib['estimate']:9.1f} {mib['peak']:8.1f} "
                f"{100 * row['error']:6.1f}%{' held out' if row['held_out'] else ''} "
                f"{row['anonymous_bytes'] / 2**20:7.1f} {row['file_bytes'] / 2**20:7.1f}",
                flush=True,
            )
    worst = max(abs(row["error"]) for row in rows)
    print(
        f"largest error: {100 * worst:.1f} %; of the held-out shapes: "
        f"{100 * max((abs(row['error']) for row in rows if row['held_out']), default=0):.1f} %"
    )
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps({"largest_error": worst, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
