"""What Headgate takes: `python -m benchmarks.footprint --json FILE`.

Size and packages of a base install, seconds from `headgate up` on an empty state folder to the first token of a bundled
model, idle memory of all processes but the replicas (proportional set size), and whether memory grows with requests.
Needs `wrk` (Debian package) on the path, and the development install.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.gateway import CHAT, FAKE, body, wrk
from benchmarks.running import Running, headgate, write_json
from headgate.core.clock import SystemClock
from headgate.engines.http import HttpClient

ROOT = Path(__file__).parent.parent
NOT_COUNTED = {"pip", "setuptools"}
BUNDLED = "ticket-category"


def install() -> dict[str, object]:
    """Megabytes (10^6 bytes, on disk, byte code included) and packages of a base install in a new environment."""
    with tempfile.TemporaryDirectory(prefix="hg-install-") as name:
        folder = Path(name)
        subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
        pip = [str(folder / "venv/bin/python"), "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, "--require-hashes", "-r", str(ROOT / "requirements.lock")], check=True)
        build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(folder), str(ROOT)]
        subprocess.run(build, check=True)
        subprocess.run([*pip, "--no-deps", str(next(folder.glob("headgate-*.whl")))], check=True)
        site = next((folder / "venv/lib").glob("python*/site-packages"))
        names = [
            line.split("==")[0].split(" @ ")[0].lower()
            for line in subprocess.run(
                [str(folder / "venv/bin/python"), "-m", "pip", "freeze", "--all"],
                check=True,
                capture_output=True,
                text=True,
            ).stdout.splitlines()
        ]
        size = sum(
            file.stat().st_blocks * 512
            for file in site.rglob("*")
            if file.is_file()
            and not file.relative_to(site).parts[0].split("-")[0].lower().startswith(("pip", "setupt"))
        )
        return {
            "install_mb": round(size / 1e6, 1),
            "packages": len([name for name in names if name not in NOT_COUNTED]),
        }


def first_token(runs: int) -> dict[str, object]:
    """Median seconds from the start of `headgate up` to the first token: on an empty folder, and on a used one."""
    fresh: list[float] = []
    again: list[float] = []
    for _ in range(runs):
        with tempfile.TemporaryDirectory(prefix="hg-first-") as name:
            fresh.append(_time_first_token(Path(name)))
            again.append(_time_first_token(Path(name)))
    return {
        "first_token_s": round(statistics.median(fresh), 2),
        "first_token_used_folder_s": round(statistics.median(again), 2),
    }


def _time_first_token(folder: Path) -> float:
    config = folder / "headgate.yaml"
    config.write_text("gateway: {port: 0}\nmodels:\n" + _bundled("models") + "pipelines:\n" + _bundled("pipelines"))
    environment = os.environ | {"HEADGATE_STATE": str(folder / "state")}
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "headgate", "up", "--config", str(config)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        asyncio.run(_await_token(folder / "state" / "run" / "admin.sock", began + 60))
        return time.perf_counter() - began
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def _bundled(section: str) -> str:
    names = ("ticket-category", "ticket-extract", "ticket-summary")
    if section == "models":
        return "".join(f"  {name}: {{source: 'bundled:{name}', cores: 0.5}}\n" for name in names)
    return "".join(f"  {name}: {{model: {name}}}\n" for name in names)


async def _await_token(socket: Path, until: float) -> None:
    client = HttpClient(SystemClock())
    asked = body("ticket-extract", 1, prompt="Hello, my order 4711 did not arrive.")
    while time.perf_counter() < until:
        try:
            async with client.request("POST", f"unix:{socket}", CHAT, (), asked) as response:
                answer = await response.read()
                if response.status == 200 and json.loads(answer)["usage"]["completion_tokens"]:
                    return
        except Exception:
            await asyncio.sleep(0.01)
    raise TimeoutError("no token within a minute")


WAKING = """
gateway: {port: 0}
pools: {cpu: {cores: 2}}
models: {ticket-extract: {source: "bundled:ticket-extract", cores: 0.5}}
pipelines: {ticket-extract: {model: ticket-extract, floor: 0, idle_s: 0.5s}}
"""


async def waking(running: Running, runs: int) -> dict[str, object]:
    """Seconds from a request to a pipeline without replicas to its one token."""
    client = HttpClient(SystemClock())
    asked = body("ticket-extract", 1, prompt="Hello, my order 4711 did not arrive.")
    seen: list[float] = []
    while len(seen) < runs:
        async with client.request("GET", running.address, "/admin/status", running.bearer) as response:
            asleep = not json.loads(await response.read())["replicas"]
        if not asleep:
            await asyncio.sleep(0.1)
            continue
        began = time.perf_counter()
        async with client.request("POST", running.address, CHAT, running.bearer, asked) as response:
            assert response.status == 200, await response.read()
            await response.read()
        seen.append(time.perf_counter() - began)
    await client.close()
    return {"wake_to_token_s": round(statistics.median(seen), 3), "wake_to_token_s_max": round(max(seen), 3)}


def processes(running: Running) -> list[int]:
    """The supervisor and its node and gateways; replicas are not among them."""
    account = json.loads((running.state / "run" / "supervisor.json").read_text())
    return [account["pid"], *(child["pid"] for child in account["children"])]


def memory(pids: list[int], field: str) -> int:
    """The sum of a field of smaps_rollup, in bytes."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith(field + ":"):
                total += int(line.split()[1]) * 1024
    return total


def growth(running: Running, requests: int) -> dict[str, object]:
    """Bytes of resident memory per request, by a line through many looks, after a first tenth that is not counted."""
    folder = Path(tempfile.mkdtemp(prefix="hg-wrk-"))
    pids = processes(running)
    seen: list[tuple[int, int]] = []
    served = 0
    while served < requests:
        served += int(wrk(running.address, running.key, 5, folder) * 5)
        time.sleep(1.0)
        seen.append((served, memory(pids, "Rss")))
    shutil.rmtree(folder)
    counted = [(count, size) for count, size in seen if count > requests / 10]
    slope, _ = np.polyfit([count for count, _ in counted], [size for _, size in counted], 1)
    return {"requests": served, "rss_slope_bytes_per_request": round(float(slope), 2)}


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", help="write the result here")
    parser.add_argument("--requests", type=int, default=200_000, help="requests over which memory is watched")
    parser.add_argument("--runs", type=int, default=3, help="starts that are timed; the median is told")
    parser.add_argument("--no-install", dest="install", action="store_false", help="leave the install out")
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk is missing: apt-get install wrk")
    result: dict[str, object] = install() if options.install else {}
    result |= first_token(options.runs)
    with headgate(FAKE) as running:
        time.sleep(3.0)
        result["idle_pss_mb"] = round(memory(processes(running), "Pss") / 1e6, 1)
        result |= growth(running, options.requests)
    with headgate(WAKING) as running:
        result |= asyncio.run(waking(running, 10))
    for name, value in result.items():
        print(f"{name:40} {value}")
    write_json(options.json, result)


if __name__ == "__main__":
    main()
