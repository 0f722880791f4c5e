"""The child process of a llama.cpp replica: `python -m headgate.engines.llamacpp_process`, its launch as JSON on stdin.

Serves llama.cpp's own OpenAI-speaking HTTP server on its socket or port until SIGTERM. It imports nothing but
xllamacpp, so that a tiny model answers a tenth of a second after its start. No parent-death signal: replicas outlive
the node.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

xllamacpp: Any = import_module("xllamacpp")  # it has no type stubs

EXIT_REFUSED = 3  # the model cannot be served so; starting it again will not help
_PR_SET_DUMPABLE = 4  # Source: prctl(2)
_LOG_WARNINGS = 2


def main() -> None:
    """Serve until SIGTERM or SIGINT; exit 3 with one line on stderr when the model cannot be served."""
    if sys.platform == "linux":
        # Why: the secret and the prompts are in this process's memory; no core dump and no peeking by other processes.
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    os.umask(0o077)
    launch = json.load(sys.stdin)
    if launch["gpu_layers"] and not _sees_gpu():
        # Why: llama.cpp would quietly run all layers on the CPU, and nobody would know why it is slow.
        _refuse("gpu_layers is set, but this build of llama.cpp sees no GPU; set it to 0 or engines.llamacpp.binary")
    # Blocked before the server starts its threads, so that they inherit it and only sigwait below sees the signal.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    socket = None if launch["port"] is not None else Path(launch["host"])
    if socket is not None:
        socket.unlink(missing_ok=True)
    try:
        server = xllamacpp.Server(build_params(launch))
    except Exception as error:
        _refuse(f"the model could not be loaded: {type(error).__name__}: {error}")
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    if socket is not None:
        socket.unlink(missing_ok=True)
    sys.stderr.flush()
    # Why at once and not by taking `server` down: that waits for callers who keep a connection open. The node has
    # drained what had to be drained before it sent the signal.
    os._exit(0 if server else EXIT_REFUSED)


def build_params(launch: dict[str, Any]) -> Any:
    """llama.cpp's parameters for one launch."""
    params: Any = xllamacpp.CommonParams()
    params.model.path = launch["model"]
    params.hostnames = [launch["host"]]
    if launch["port"] is not None:
        params.port = launch["port"]
    params.api_keys = [launch["secret"]]
    params.n_parallel = launch["slots"]
    params.n_ctx = launch["context"] * launch["slots"]
    params.cpuparams.n_threads = launch["threads"]
    params.cpuparams_batch.n_threads = launch["threads"]
    params.n_batch = params.n_ubatch = launch["batch"]
    kind = getattr(xllamacpp.ggml_type, f"GGML_TYPE_{launch['kv_type'].upper()}")
    params.cache_type_k = params.cache_type_v = kind
    params.n_gpu_layers = launch["gpu_layers"]
    params.n_threads_http = launch["slots"] + 2  # a streaming answer holds one; two more for probes
    params.embedding = launch["embedding"]
    params.cache_prompt = launch["prompt_cache"]
    params.cache_ram_mib = 0
    if not launch["mapped"]:
        params.load_mode = xllamacpp.llama_load_mode.LLAMA_LOAD_MODE_NONE
    params.use_jinja = True
    params.ui = params.fit_params = params.warmup = False
    params.verbosity = _LOG_WARNINGS
    if launch["pooling"] is not None:
        kind = f"LLAMA_POOLING_TYPE_{launch['pooling'].upper()}"
        params.pooling_type = getattr(xllamacpp.llama_pooling_type, kind)
    adapters: list[Any] = []
    for path in launch["adapters"]:
        adapter: Any = xllamacpp.CommonAdapterLoraInfo()
        adapter.path, adapter.scale = path, 1.0
        adapters.append(adapter)
    params.lora_adapters = adapters
    return params


def _sees_gpu() -> bool:
    processor = xllamacpp.ggml_backend_dev_type.GGML_BACKEND_DEVICE_TYPE_CPU
    return any(device["type"] != processor for device in xllamacpp.get_device_info())


def _refuse(why: str) -> NoReturn:
    sys.stderr.write(f"llamacpp: {why}\n")
    sys.stderr.flush()
    os._exit(EXIT_REFUSED)


if __name__ == "__main__":
    main()
