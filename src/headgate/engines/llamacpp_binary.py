"""How a replica is started as a llama-server of one's own: by flags, and by variables where its versions differ."""

from __future__ import annotations

from headgate.engines.engine import Command, Launch
from headgate.engines.llamacpp_memory import maps_weights
from headgate.engines.settings import LlamaCppModelSettings, LlamaCppSettings

# Why not as flags: llama-server refuses to start with a flag that its version does not know, or no longer knows
# (--no-mmap became --load-mode none), and ignores a variable that it does not know. Source: common/arg.cpp of llama.cpp
# 11549. The packaged server is told the same.
_UNFITTED = {"LLAMA_ARG_FIT": "off"}  # nothing is moved to fit a device's memory: what is set, holds
_UNMAPPED = {"LLAMA_ARG_LOAD_MODE": "none", "LLAMA_ARG_NO_MMAP": "1"}


def build_binary_command(
    engine: LlamaCppSettings, launch: Launch, settings: LlamaCppModelSettings, batch: int
) -> Command:
    """The child process that is this replica; `batch` is prompt tokens read in one step."""
    options = launch.options
    argv: list[str] = [
        str(engine.binary),
        "--model",
        launch.version.path,
        "--host",
        launch.host,
    ]
    if launch.port is not None:
        argv += ["--port", str(launch.port)]
    argv += ["--parallel", str(options.slots), "--ctx-size", str(options.context * options.slots)]
    argv += ["--threads", str(options.threads), "--threads-batch", str(options.threads)]
    argv += ["--batch-size", str(batch), "--ubatch-size", str(batch)]
    argv += [
        "--n-gpu-layers",
        str(options.gpu_layers),
        "--cache-ram",
        "0",
        "--no-warmup",
        "--no-webui",
        "--jinja",
    ]
    if settings.kv_type != "f16":
        argv += ["--cache-type-k", settings.kv_type, "--cache-type-v", settings.kv_type]
    if not settings.prompt_cache:
        argv.append("--no-cache-prompt")
    if launch.version.task == "embed":
        argv.append("--embedding")
    if settings.pooling is not None:
        argv += ["--pooling", settings.pooling]
    for adapter in options.adapters:
        argv += ["--lora", adapter]
    argv += engine.flags
    environment = {"LLAMA_API_KEY": launch.secret.reveal(), **_UNFITTED}
    if not maps_weights(launch.version):
        environment |= _UNMAPPED
    return Command(argv=tuple(argv), environment=environment)
