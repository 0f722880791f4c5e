"""Starts real replica processes for tests and ends them by id; tiny versions of every engine to run in them."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from headgate.core.clock import SystemClock
from headgate.core.errors import UpstreamFailed
from headgate.core.model import Task, Version
from headgate.core.secret import Secret
from headgate.engines.catalogue import build_engines
from headgate.engines.engine import Engine, Launch, ModelOptions, Upstream
from headgate.engines.http import HttpClient
from headgate.engines.settings import EnginesSettings

SECRET = "secret-of-the-test"

# A stand-in for a user's own llama-server: takes its flags and environment, serves by the packaged llama.cpp.
LLAMA_SERVER = """#!{python}
import argparse, os, signal, sys
import xllamacpp
from headgate.engines.llamacpp_process import build_params
parser = argparse.ArgumentParser(allow_abbrev=False)
for name in ("model", "host", "pooling"):
    parser.add_argument("--" + name)
parser.add_argument("--port", type=int)
NUMBERS = "parallel ctx-size threads threads-batch batch-size ubatch-size n-gpu-layers cache-ram"
for name in NUMBERS.split():
    parser.add_argument("--" + name, type=int, required=True)
for name in ("no-warmup", "no-webui", "jinja", "no-cache-prompt", "embedding"):
    parser.add_argument("--" + name, action="store_true")
for name in ("cache-type-k", "cache-type-v"):
    parser.add_argument("--" + name, default="f16")
parser.add_argument("--lora", action="append", default=[])
a = parser.parse_args()
assert os.environ["LLAMA_ARG_FIT"] == "off"
mapped = os.environ.get("LLAMA_ARG_LOAD_MODE") != "none"
assert a.cache_ram == 0 and a.no_warmup and a.jinja and a.threads == a.threads_batch and a.batch_size == a.ubatch_size
signal.pthread_sigmask(signal.SIG_BLOCK, {{signal.SIGTERM}})
server = xllamacpp.Server(build_params(dict(
    model=a.model, host=a.host, port=a.port, secret=os.environ["LLAMA_API_KEY"], context=a.ctx_size // a.parallel,
    slots=a.parallel, threads=a.threads, batch=a.batch_size, embedding=a.embedding, pooling=a.pooling,
    gpu_layers=a.n_gpu_layers, adapters=a.lora, prompt_cache=not a.no_cache_prompt, mapped=mapped,
    kv_type=a.cache_type_k)))
signal.sigwait({{signal.SIGTERM}})
os._exit(0)
"""

# The fake engine's app behind a loopback port, as an endpoint of others would be.
ENDPOINT = """
import asyncio, sys, types, json
from headgate.core.clock import SystemClock
from headgate.engines.fake_process import FakeApp
from headgate.engines.replica_server import ReplicaServer
async def main():
    told = json.loads(sys.stdin.read())
    app = FakeApp(types.SimpleNamespace(**told["settings"]), told["context"], 2, SystemClock())
    def handle(path, body, reply):
        assert path.startswith("/base/v1/") or path == "/slots", path
        return app.handle(path.removeprefix("/base"), body, reply)
    server = ReplicaServer(handle, told["secret"])
    listening = await asyncio.get_running_loop().create_server(server.connection, "127.0.0.1", 0)
    print(listening.sockets[0].getsockname()[1], flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """One running replica."""

    process: subprocess.Popen[bytes]
    upstream: Upstream
    launch: Launch


def make_version(format: str, path: Path | str = "", task: Task = "generate", **more: object) -> Version:
    """A version with what engines look at."""
    size = sum(file.stat().st_size for file in Path(path).rglob("*")) if path and Path(path).is_dir() else 0
    if path and Path(path).is_file():
        size = Path(path).stat().st_size
    values: dict[str, object] = {
        "digest": "sha256:" + "0" * 64,
        "format": format,
        "task": task,
        "architecture": format,
        "parameters": None,
        "context": None,
        "bytes": size,
        "path": str(path),
    }
    return Version(**(values | more))  # type: ignore[arg-type]


def engines_for(client: HttpClient, binary: Path | None = None) -> dict[str, Engine]:
    """All engines on one client."""
    llamacpp = {"binary": str(binary)} if binary else {}
    return build_engines(EnginesSettings.model_validate({"llamacpp": llamacpp}), client)


def find_port() -> int:
    """A loopback port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def running_replica(
    name: str,
    version: Version,
    options: ModelOptions,
    binary: Path | None = None,
    wait: bool = True,
    port: int | None = None,
) -> Iterator[Running]:
    """A replica of engine `name`, on a Unix socket or at `port`, ready unless `wait` is False; ended by its id."""
    folder = Path(tempfile.mkdtemp(prefix="hg", dir="/tmp"))
    address = f"unix:{folder / 'r.sock'}" if port is None else f"http://127.0.0.1:{port}"
    launch = Launch(replica="r1", version=version, options=options, address=address, secret=Secret(SECRET))
    engine = engines_for(HttpClient(SystemClock()), binary)[name]
    command = engine.command(launch)
    assert command is not None
    process = subprocess.Popen(
        command.argv,
        stdin=subprocess.PIPE,
        env={**os.environ, **command.environment},
        start_new_session=True,
    )
    try:
        assert process.stdin is not None
        process.stdin.write(command.stdin)
        process.stdin.close()
        running = Running(process=process, upstream=engine.upstream(launch), launch=launch)
        if wait:
            asyncio.run(wait_ready(name, running))
        yield running
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


async def wait_ready(name: str, running: Running, limit_s: float = 30.0) -> None:
    """Return once the replica is ready; fail when it ends or takes too long."""
    client = HttpClient(SystemClock())
    engine = engines_for(client)[name]
    end = time.monotonic() + limit_s
    try:
        while True:
            try:
                return await engine.check_ready(running.upstream, running.launch.version)
            except UpstreamFailed:
                assert running.process.poll() is None, f"the replica ended with {running.process.returncode}"
                assert time.monotonic() < end, "the replica was not ready in time"
                await asyncio.sleep(0.02)
    finally:
        await client.close()


@contextmanager
def running_endpoint(settings: dict[str, object], context: int) -> Iterator[str]:
    """An OpenAI-compatible endpoint on a loopback port; gives its base address."""
    process = subprocess.Popen(
        [sys.executable, "-c", ENDPOINT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps({"settings": settings, "context": context, "secret": SECRET}).encode())
        process.stdin.close()
        port = int(process.stdout.readline())
        yield f"http://127.0.0.1:{port}/base/v1"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()


def write_llama_server(path: Path) -> Path:
    """A small program that takes llama-server's flags."""
    path.write_text(LLAMA_SERVER.format(python=sys.executable))
    path.chmod(0o755)
    return path


def write_classic(folder: Path) -> Path:
    """A classic version of three labels: what is said of money, of parcels and of the rest."""
    folder.mkdir(parents=True, exist_ok=True)
    words = {"w:invoice": 0, "w:refund": 1, "w:parcel": 2, "w:late": 3, "w:hello": 4}
    config = {
        "format": "headgate-classic/1",
        "labels": ["billing", "delivery", "other"],
        "vocabulary": words,
        "analyzers": [{"kind": "word", "ngram_range": [1, 1], "lowercase": True}],
        "sublinear_tf": False,
    }
    (folder / "classic.json").write_text(json.dumps(config))
    tensors = {
        "idf_F": np.ones(5, dtype=np.float32),
        "coef_CF": np.array([[3, 3, 0, 0, 0], [0, 0, 3, 3, 0], [0, 0, 0, 0, 3]], dtype=np.float32),
        "intercept_C": np.zeros(3, dtype=np.float32),
    }
    header: dict[str, object] = {}
    data = b""
    for name, tensor in tensors.items():
        raw = tensor.tobytes()
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    head = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + data)
    return folder
