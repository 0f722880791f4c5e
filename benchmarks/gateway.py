"""What the gateway costs: `python -m benchmarks.gateway --json FILE`.

Added latency and first-token time against the same replica called directly (paired, alternating, one run); requests
per second at concurrency 64 beside a minimal starlette proxy; tokens per second of a real engine with and without the
gateway between. Needs `wrk` (Debian package) on the path, and the development install.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import orjson
from tests.helpers.tiny_gguf import TINY, Shape, write_llama

from benchmarks.running import Running, headgate, write_json
from headgate.core.clock import SystemClock
from headgate.engines.engine import Upstream
from headgate.engines.http import HttpClient
from headgate.engines.replica_call import request_headers

CHAT = "/v1/chat/completions"
HALF_BILLION = Shape(
    layers=24, embedding=896, feed_forward=4864, heads=14, kv_heads=2, vocabulary=151_936, context=2048, kind="Q8_0"
)
PROMPT = "x" * 100

FAKE = """
gateway: {port: 0}
pools: {cpu: {cores: 2}}
models: {fake: {source: "fake:", slots: 128, cores: 0.5, context: 4096, settings: {answer_tokens: 16}}}
pipelines: {fake: {model: fake, floor: 1, cap: 1, queue: 512, slo: {first_token_ms: 1000}}}
"""
SLOW = """
gateway: {port: 0}
pools: {cpu: {cores: 2}}
models: {fake: {source: "fake:", slots: 8, cores: 0.5, context: 4096, settings: {answer_tokens: 8, tokens_per_s: 20}}}
pipelines: {fake: {model: fake, floor: 1, cap: 1}}
"""
REAL = """
gateway: {{port: 0}}
pools: {{cpu: {{cores: 2}}}}
models: {{real: {{source: "{path}", slots: 16, cores: 1, context: {context}}}}}
pipelines: {{real: {{model: real, floor: 1, cap: 1, queue: 512, timeout_s: 600}}}}
"""


def body(model: str, tokens: int | None = None, stream: bool = False, prompt: str = PROMPT) -> bytes:
    """A chat request as most clients send it; one of a set length is greedy, so that both ways do the same work."""
    asked: dict[str, object] = {"model": model, "messages": [{"role": "user", "content": prompt}]}
    if tokens is not None:
        asked |= {"max_tokens": tokens, "temperature": 0}
    if stream:
        asked |= {"stream": True, "stream_options": {"include_usage": True}}
    return orjson.dumps(asked)


class Caller:
    """The same request, to the gateway or straight to its replica."""

    def __init__(self, running: Running, upstream: Upstream, client: HttpClient) -> None:
        self._client = client
        self._ways = {
            "gateway": (running.address, running.bearer),
            "direct": (upstream.address, request_headers(upstream)),
        }

    async def whole(self, way: str, asked: bytes) -> float:
        """Seconds of one whole answer."""
        address, headers = self._ways[way]
        began = time.perf_counter()
        async with self._client.request("POST", address, CHAT, headers, asked) as response:
            answer = await response.read()
        took = time.perf_counter() - began
        assert response.status == 200, answer
        return took

    async def chunks(self, way: str, asked: bytes) -> AsyncIterator[tuple[float, bytes]]:
        """(seconds since the request, bytes) of each piece of a stream."""
        address, headers = self._ways[way]
        began = time.perf_counter()
        async with self._client.request("POST", address, CHAT, headers, asked) as response:
            assert response.status == 200, await response.read()
            async for chunk in response.chunks():
                yield time.perf_counter() - began, chunk

    async def first_text(self, way: str, asked: bytes) -> tuple[float, float]:
        """Seconds to the first piece with text, and to the end."""
        first = last = 0.0
        async for at, chunk in self.chunks(way, asked):
            if not first and re.search(rb'"content":\s*"[^"]', chunk):
                first = at
            last = at
        return first, last

    async def tokens(self, way: str, asked: bytes) -> int:
        """Output tokens of one streamed answer, by its usage."""
        count = 0
        async for _, chunk in self.chunks(way, asked):
            found = re.findall(rb'"completion_tokens":\s*(\d+)', chunk)
            count = int(found[-1]) if found else count
        return count


def percentile(values: Sequence[float], part: float) -> float:
    """The value below which `part` of the values lie."""
    return sorted(values)[min(len(values) - 1, int(part * len(values)))]


async def alternate(call: Callable[[str], object], count: int) -> dict[str, list[float]]:
    """`count` measurements each way, in turn, after a warm-up."""
    measured: dict[str, list[float]] = {"direct": [], "gateway": []}
    for number in range(count + 50):
        for way in ("direct", "gateway") if number % 2 else ("gateway", "direct"):
            value = await call(way)  # type: ignore[misc]
            if number >= 50:
                measured[way].append(value)
    return measured


async def latency(running: Running, client: HttpClient, count: int) -> dict[str, object]:
    """Added milliseconds at concurrency 1, keys on: a plain request, and a greedy one, whose token ids are read too."""
    caller = Caller(running, running.upstream("fake"), client)
    result: dict[str, object] = {}
    for prefix, asked in (("", body("fake")), ("greedy_", body("fake", tokens=16))):
        seen = await alternate(partial(_whole, caller, asked), count)
        for name, part in (("p50", 0.5), ("p99", 0.99)):
            direct, through = (percentile(seen[way], part) * 1e3 for way in ("direct", "gateway"))
            result |= {
                f"{prefix}direct_ms_{name}": round(direct, 3),
                f"{prefix}gateway_ms_{name}": round(through, 3),
                f"{prefix}overhead_ms_{name}": round(through - direct, 3),
            }
    streamed = body("fake", stream=True)

    async def first(way: str) -> float:
        return (await caller.first_text(way, streamed))[0]

    firsts = await alternate(first, count // 2)
    added = statistics.median(firsts["gateway"]) - statistics.median(firsts["direct"])
    return result | {"first_token_overhead_ms": round(added * 1e3, 3)}


async def _whole(caller: Caller, asked: bytes, way: str) -> float:
    return await caller.whole(way, asked)


async def buffering(running: Running, client: HttpClient) -> dict[str, object]:
    """Whether the first token of a slow answer comes at once: its time as a part of the whole answer's."""
    caller = Caller(running, running.upstream("fake"), client)
    runs = [await caller.first_text("gateway", body("fake", stream=True)) for _ in range(5)]
    part = statistics.median(first / last for first, last in runs)
    return {"first_token_part_of_answer": round(part, 3), "first_token_buffered": part > 0.5}


def wrk(address: str, key: str, seconds: int, folder: Path) -> float:
    """Requests per second at concurrency 64."""
    script = folder / "chat.lua"
    script.write_text(
        f"wrk.method='POST'; wrk.body='{body('fake').decode()}'\n"
        f"wrk.headers['Content-Type']='application/json'; wrk.headers['Authorization']='Bearer {key}'\n"
    )
    command = ["wrk", "-t1", "-c64", f"-d{seconds}s", "-s", str(script), address + CHAT]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in said:
        raise RuntimeError(f"some requests failed:\n{said}")
    found = re.search(r"Requests/sec:\s+([\d.]+)", said)
    assert found is not None, said
    return float(found[1])


@contextlib.contextmanager
def proxy(upstream: Upstream, client: str) -> Iterator[str]:
    """A minimal starlette proxy in its own process; its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    argv = [sys.executable, "-m", "benchmarks.starlette_proxy", str(port), upstream.address]
    process = subprocess.Popen([*argv, upstream.secret.reveal(), client])
    try:
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.1):
                break
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def throughput(running: Running, seconds: int, rounds: int) -> dict[str, object]:
    """Requests per second at concurrency 64 through the gateway and through the proxies, in turn.

    Why many short rounds and the median of their ratios: a shared machine's speed moves by a half within seconds, and
    medians of each side alone would compare one side's fast moments with the other's slow ones.
    """
    upstream = running.upstream("fake")
    folder = Path(tempfile.mkdtemp(prefix="hg-wrk-"))
    seen: dict[str, list[float]] = {"gateway": [], "aiohttp": [], "own": []}
    with proxy(upstream, "aiohttp") as plain, proxy(upstream, "own") as hard:
        for address in (running.address, plain, hard):
            wrk(address, running.key, 2, folder)
        ways = [("gateway", running.address), ("aiohttp", plain), ("own", hard)]
        for number in range(rounds):
            for name, address in ways if number % 2 else reversed(ways):
                seen[name].append(wrk(address, running.key, seconds, folder))
    shutil.rmtree(folder)
    rate = {name: statistics.median(values) for name, values in seen.items()}
    ratio = {
        name: statistics.median(ours / theirs for ours, theirs in zip(seen["gateway"], seen[name], strict=True))
        for name in ("aiohttp", "own")
    }
    return {
        "requests_per_second": round(rate["gateway"]),
        "starlette_aiohttp_requests_per_second": round(rate["aiohttp"]),
        "starlette_own_client_requests_per_second": round(rate["own"]),
        "proxy_ratio": round(ratio["aiohttp"], 3),
        "proxy_ratio_own_client": round(ratio["own"], 3),
        "proxy_rounds": rounds,
    }


async def engine_speed(
    running: Running, client: HttpClient, streams: int, tokens: int, rounds: int
) -> tuple[dict[str, float], float]:
    """Median tokens per second of so many streams at once, each way, and the median of the paired ratios."""
    caller = Caller(running, running.upstream("real"), client)
    seen: dict[str, list[float]] = {"direct": [], "gateway": []}
    for number in range(rounds):
        for way in ("direct", "gateway") if number % 2 else ("gateway", "direct"):
            prompts = [body("real", tokens, True, f"{way[0]}{number}-{index} go on") for index in range(streams)]
            began = time.perf_counter()
            counts = await asyncio.gather(*(caller.tokens(way, asked) for asked in prompts))
            seen[way].append(sum(counts) / (time.perf_counter() - began))
    ratio = statistics.median(gateway / direct for gateway, direct in zip(seen["gateway"], seen["direct"], strict=True))
    return {way: statistics.median(values) for way, values in seen.items()}, ratio


async def leaving(running: Running, client: HttpClient, prompt_tokens: int, rounds: int) -> dict[str, object]:
    """Milliseconds until a replica's slot is free after its client left: while decoding, and while reading a prompt."""
    caller = Caller(running, running.upstream("real"), client)
    upstream = running.upstream("real")

    async def busy() -> bool:
        async with client.request("GET", upstream.address, "/slots", request_headers(upstream)) as response:
            return any(slot["is_processing"] for slot in orjson.loads(await response.read()))

    async def leave(asked: bytes, after_s: float | None) -> float:
        pieces = caller.chunks("gateway", asked)
        task = asyncio.ensure_future(anext(pieces))
        if after_s is None:
            await task
        else:
            await asyncio.sleep(after_s)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        left = time.perf_counter()
        await pieces.aclose()
        while await busy():
            await asyncio.sleep(0.002)
        return (time.perf_counter() - left) * 1e3

    decoding = [await leave(body("real", 500, True, f"leave {number}"), None) for number in range(rounds)]
    text = "x" * prompt_tokens  # the random model's tokenizer knows single bytes only: a token each
    reading = [await leave(body("real", 5, True, f"{number}{text}"), 0.5) for number in range(rounds)]
    return {
        "disconnect_decoding_ms": round(statistics.median(decoding), 1),
        "disconnect_decoding_ms_max": round(max(decoding), 1),
        "disconnect_prompt_ms": round(statistics.median(reading), 1),
        "disconnect_prompt_ms_max": round(max(reading), 1),
    }


async def engines(path: Path, name: str, context: int, tokens: int, rounds: int) -> dict[str, object]:
    """Tokens per second of llama.cpp alone and behind the gateway, at 1, 4 and 16 streams."""
    result: dict[str, object] = {}
    with headgate(REAL.format(path=path, context=context)) as running:
        client = HttpClient(SystemClock())
        for streams in (1, 4, 16):
            more = {1: 8, 4: 4, 16: 4}[streams]  # a short run tells less, and costs less
            speed, ratio = await engine_speed(running, client, streams, tokens, rounds + more)
            result |= {
                f"{name}_direct_tokens_per_second_{streams}": round(speed["direct"], 1),
                f"{name}_gateway_tokens_per_second_{streams}": round(speed["gateway"], 1),
                f"{name}_throughput_ratio_{streams}": round(ratio, 4),
            }
        if name == "engine":
            result |= await leaving(running, client, context // 2, rounds)
        await client.close()
    return result


async def run(options: argparse.Namespace) -> dict[str, object]:
    """All parts, one after another: two cores are busy with one."""
    result: dict[str, object] = {}
    client = HttpClient(SystemClock())
    if options.fake:
        with headgate(FAKE) as running:
            result |= await latency(running, client, options.requests)
            result |= await asyncio.to_thread(throughput, running, options.seconds, 3 * options.rounds)
        with headgate(SLOW) as running:
            result |= await buffering(running, client)
    await client.close()
    if options.engine:
        with tempfile.TemporaryDirectory(prefix="hg-gguf-") as name:
            tiny = write_llama(Path(name) / "tiny.gguf", TINY)
            result |= await engines(tiny, "tiny", 256, 64, options.rounds)
            large = write_llama(Path(name) / "half-billion.gguf", HALF_BILLION)
            result |= await engines(large, "engine", 1024, 24, options.rounds)
        ratios = [result[f"engine_throughput_ratio_{streams}"] for streams in (1, 4, 16)]
        result["engine_throughput_ratio"] = min(float(str(ratio)) for ratio in ratios)
    return result


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", help="write the result here")
    parser.add_argument("--requests", type=int, default=2000, help="requests each way for latency")
    parser.add_argument("--seconds", type=int, default=3, help="seconds of each run of wrk")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each measurement (of wrk three times so many)")
    parser.add_argument("--no-fake", dest="fake", action="store_false", help="leave the fake engine out")
    parser.add_argument("--no-engine", dest="engine", action="store_false", help="leave the real engine out")
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk is missing: apt-get install wrk")
    result = asyncio.run(run(options))
    for name, value in result.items():
        print(f"{name:48} {value}")
    write_json(options.json, result)


if __name__ == "__main__":
    main()
