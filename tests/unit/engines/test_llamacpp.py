"""What llama.cpp is started with, what it refuses, and how much memory it is said to need."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.helpers.replicas import make_version

from headgate.core.clock import SystemClock
from headgate.core.errors import BadRequest, ModelRefused, SchemaViolation
from headgate.core.model import HeaderFacts, Version
from headgate.core.secret import Secret
from headgate.engines.catalogue import build_engines, choose_engine
from headgate.engines.engine import Engine, Launch, ModelOptions
from headgate.engines.http import HttpClient
from headgate.engines.llamacpp_memory import estimate_llamacpp_memory, maps_weights
from headgate.engines.llamacpp_tools import demanded_tools, read_tool_call, tool_schema
from headgate.engines.settings import EnginesSettings

HEADER = HeaderFacts(
    layers=4,
    embedding=64,
    feed_forward=128,
    heads=4,
    kv_heads=(2, 2, 2, 2),
    key_length=16,
    value_length=16,
    vocabulary=1000,
    tensor_bytes=10_000_000,
    token_embedding_bytes=128_000,
    output_bytes=128_000,
    layer_bytes=(2_000_000,) * 4,
)
OPTIONS = ModelOptions(context=512, slots=2)
TOOLS = [{"type": "function", "function": {"name": name}} for name in ("open", "close")]


def engines(**settings: object) -> dict[str, Engine]:
    return build_engines(EnginesSettings.model_validate({"llamacpp": settings}), HttpClient(SystemClock()))


def launch(version: Version, options: ModelOptions = OPTIONS) -> Launch:
    return Launch(replica="r", version=version, options=options, address="unix:/tmp/x.sock", secret=Secret("hidden"))


@pytest.fixture
def version() -> Version:
    return make_version("gguf", "/models/a.gguf", context=1024, header=HEADER, parameters=5_000_000)


def test_where_a_replica_listens(version: Version) -> None:
    at_port = replace(launch(version), address="http://127.0.0.1:4711")
    assert (launch(version).host, launch(version).port) == ("/tmp/x.sock", None)
    assert (at_port.host, at_port.port) == ("127.0.0.1", 4711)
    own = engines(binary="/bin/true")["llamacpp"]
    socket, port = own.command(launch(version)), own.command(at_port)
    assert socket is not None and port is not None
    assert "--port" not in socket.argv and port.argv[port.argv.index("--port") + 1] == "4711"
    assert own.upstream(at_port).address == "http://127.0.0.1:4711"


def test_the_secret_is_in_no_argument(version: Version) -> None:
    packaged = engines()["llamacpp"].command(launch(version))
    own = engines(binary="/bin/true", flags=["--numa", "isolate"])["llamacpp"].command(launch(version))
    assert packaged is not None and own is not None
    for command in (packaged, own):
        assert "hidden" not in " ".join(command.argv)
        assert "hidden" not in repr(replace(command, environment={}))
    assert json.loads(packaged.stdin)["secret"] == "hidden"
    assert own.environment["LLAMA_API_KEY"] == "hidden"
    assert own.argv[-2:] == ("--numa", "isolate")
    assert own.argv[own.argv.index("--ctx-size") + 1] == "1024"
    assert "--no-cache-prompt" in own.argv


def test_what_versions_of_llama_server_name_otherwise_is_told_in_variables(version: Version) -> None:
    own = engines(binary="/bin/true")["llamacpp"]
    quantised = own.command(launch(replace(version, parameters=20_000_000)))
    whole = own.command(launch(version))
    assert quantised is not None and whole is not None
    assert quantised.environment["LLAMA_ARG_LOAD_MODE"] == "none" and quantised.environment["LLAMA_ARG_NO_MMAP"] == "1"
    assert not {"LLAMA_ARG_LOAD_MODE", "LLAMA_ARG_NO_MMAP"} & whole.environment.keys(), "it maps its weights"
    for command in (quantised, whole):
        assert command.environment["LLAMA_ARG_FIT"] == "off"
        assert not {"--no-mmap", "--load-mode", "--fit"} & {*command.argv}


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"context": 4096}, "context"),
        ({"settings": {"pooling": "mean"}}, "settings.pooling"),
        ({"settings": {"unknown": 1}}, "settings.unknown"),
        ({"adapters": ("/nowhere.gguf",)}, "adapters"),
    ],
)
def test_refuses_with_field_and_cure(version: Version, options: dict[str, object], param: str) -> None:
    with pytest.raises(ModelRefused) as raised:
        engines()["llamacpp"].check(version, ModelOptions(**({"context": 512, "slots": 1} | options)))  # type: ignore[arg-type]
    assert raised.value.param == param


def test_refuses_a_binary_that_is_none(version: Version, tmp_path: Path) -> None:
    with pytest.raises(ModelRefused) as raised:
        engines(binary=str(tmp_path / "none"))["llamacpp"].check(version, OPTIONS)
    assert raised.value.param == "engines.llamacpp.binary"


def test_chooses_the_engine_by_format(version: Version) -> None:
    all_engines = engines()
    assert choose_engine(all_engines, version).name == "llamacpp"
    assert choose_engine(all_engines, make_version("classic")).name == "classic"
    assert choose_engine(all_engines, make_version("endpoint")).leaves_walls
    assert choose_engine(all_engines, version, "fake").name == "fake"
    with pytest.raises(ModelRefused, match="no engine for it here yet"):
        choose_engine(all_engines, make_version("safetensors"))
    with pytest.raises(ModelRefused, match="nothing"):
        choose_engine(all_engines, version, "nothing")


def test_memory_grows_with_context_and_slots(version: Version) -> None:
    small = estimate_llamacpp_memory(version, OPTIONS, 64)
    assert small.weights == 10_000_000
    assert small.kv_cache == 4 * 2 * 32 * 2 * 1024
    assert estimate_llamacpp_memory(version, replace(OPTIONS, slots=4), 64).kv_cache == 2 * small.kv_cache
    padded = estimate_llamacpp_memory(version, replace(OPTIONS, context=300), 64)
    assert padded.kv_cache == small.kv_cache, "a slot's context is rounded up to 256"
    assert small.total == small.weights + small.kv_cache + small.compute + small.overhead


def test_memory_on_a_gpu_is_counted_apart(version: Version) -> None:
    none = estimate_llamacpp_memory(version, OPTIONS, 64)
    assert none.device == 0
    half = estimate_llamacpp_memory(version, replace(OPTIONS, gpu_layers=2), 64)
    assert half.weights == 6_000_000
    assert half.kv_cache == 2 * 2 * 32 * 2 * 1024
    all_of_it = estimate_llamacpp_memory(version, replace(OPTIONS, gpu_layers=99), 64)
    assert (all_of_it.weights, all_of_it.kv_cache) == (10_000_000 - 8_000_000 - 128_000, 0)
    context = 640 * 2**20
    compute = none.compute - 4 * 1000 * 3  # the next token's scores are made there with the last layer alone
    assert half.device == context + 4_000_000 + half.kv_cache + compute
    assert all_of_it.device == context + 8_128_000 + none.kv_cache + compute + 4 * 1000 * 64


def test_a_tied_table_is_copied_to_a_gpu(version: Version) -> None:
    tied = replace(version, header=replace(HEADER, output_bytes=0, token_embedding_bytes=36_000))
    whole, tables = (estimate_llamacpp_memory(one, replace(OPTIONS, gpu_layers=99), 64) for one in (version, tied))
    assert tables.device == whole.device - 128_000 + 36_000
    assert tables.weights == 10_000_000 - 8_000_000, "and is packed for no processor"


def test_memory_of_a_sliding_window(version: Version) -> None:
    header = replace(HEADER, sliding_window=100, sliding_layers=3)
    sliding = estimate_llamacpp_memory(replace(version, header=header), replace(OPTIONS, context=1024), 64)
    assert sliding.kv_cache == 2 * 32 * 2 * 2 * (3 * 256 + 1024)


def test_a_packed_table_that_is_tied_counts_twice(version: Version) -> None:
    header = replace(HEADER, output_bytes=0, token_embedding_bytes=36_000)
    assert estimate_llamacpp_memory(replace(version, header=header), OPTIONS, 64).weights == 10_036_000


def test_only_unquantised_weights_are_mapped(version: Version) -> None:
    assert maps_weights(version)
    assert not maps_weights(replace(version, parameters=9_000_000))
    assert not maps_weights(replace(version, parameters=None))


def test_no_header_no_estimate(version: Version) -> None:
    with pytest.raises(ModelRefused):
        estimate_llamacpp_memory(replace(version, header=None), OPTIONS, 64)


def test_which_tools_must_be_called() -> None:
    assert demanded_tools({"tools": TOOLS}) is None
    assert demanded_tools({"tools": TOOLS, "tool_choice": "auto"}) is None
    assert demanded_tools({"tools": TOOLS, "tool_choice": "required"}) == TOOLS
    named = {"type": "function", "function": {"name": "close"}}
    assert demanded_tools({"tools": TOOLS, "tool_choice": named}) == TOOLS[1:]
    with pytest.raises(BadRequest):
        demanded_tools({"tools": TOOLS, "tool_choice": {"function": {"name": "other"}}})
    assert len(tool_schema(TOOLS)["anyOf"]) == 2


def test_a_call_that_was_cut_off_is_no_call() -> None:
    (call,) = read_tool_call('{"name": "open", "arguments": {"a": 1}}')
    assert call["function"] == {"name": "open", "arguments": '{"a":1}'}
    with pytest.raises(SchemaViolation):
        read_tool_call('{"name": "open", "argu')


def test_knobs_are_read_and_turned() -> None:
    engine = engines()["llamacpp"]
    knobs = {knob.name: knob for knob in engine.knobs(make_version("gguf", context=1000))}
    assert knobs["batch"].read(OPTIONS) == 64
    turned = knobs["batch"].turn(knobs["slots"].turn(OPTIONS, 8), 128)
    assert (turned.slots, dict(turned.settings)) == (8, {"batch": 128})
    assert knobs["batch"].turn(turned, 64).settings == {}  # the default need not be written down
    assert knobs["context"].values == (256, 512)
    assert "batch" not in {knob.name for knob in engine.knobs(make_version("gguf", task="embed"))}


def test_a_models_own_batch_and_kv_type_reach_its_replica() -> None:
    options = replace(OPTIONS, settings={"batch": 128, "kv_type": "q8_0"})
    engine = engines()["llamacpp"]
    command = engine.command(launch(make_version("gguf"), options))
    assert command is not None
    told = json.loads(command.stdin)
    assert (told["batch"], told["kv_type"]) == (128, "q8_0")
    with pytest.raises(ModelRefused, match="kv_type"):
        engine.check(make_version("gguf"), replace(OPTIONS, settings={"kv_type": "q2"}))


def test_a_smaller_kv_type_is_counted_as_smaller() -> None:
    version = make_version("gguf", header=HEADER)
    half = estimate_llamacpp_memory(version, OPTIONS, 64, kv_type="q8_0").kv_cache
    whole = estimate_llamacpp_memory(version, OPTIONS, 64).kv_cache
    assert half == pytest.approx(whole * 34 / 64)
