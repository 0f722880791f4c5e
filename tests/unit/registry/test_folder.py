from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
from tests.helpers.model_files import TEMPLATE, safetensors_bytes, torch_zip, write_folder

from headgate.core.errors import ModelRefused
from headgate.registry.folder import describe_folder, list_folder


def test_everything_a_folder_tells(tmp_path: Path) -> None:
    facts = describe_folder(write_folder(tmp_path / "m"))
    assert (facts.format, facts.task, facts.architecture) == ("safetensors", "generate", "LlamaForCausalLM")
    assert (facts.parameters, facts.context, facts.licence) == (3200 + 1024 + 3200, 2048, "mit")
    assert facts.chat_template == TEMPLATE
    assert facts.header is not None
    assert facts.header.kv_heads == (2, 2) and facts.header.key_length == 8
    assert facts.header.layer_bytes == (4096, 0) and facts.header.output_bytes == 12800


def test_shards_must_be_complete(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "m", shards=3)
    assert describe_folder(root).parameters == 7424
    (root / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(ModelRefused, match=r"model-00002-of-00003\.safetensors' is missing"):
        describe_folder(root)
    (root / "model.safetensors.index.json").unlink()
    with pytest.raises(ModelRefused, match=r"model-00002-of-00003\.safetensors' is missing"):
        describe_folder(root)


def test_a_tensor_that_the_index_promises_must_be_there(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "m", shards=3)
    (root / "model-00001-of-00003.safetensors").write_bytes(safetensors_bytes({"other": (1,)}))
    with pytest.raises(ModelRefused, match=r"lacks the tensor 'model\.embed_tokens\.weight'"):
        describe_folder(root)


@pytest.mark.parametrize("content", [pickle.dumps([1, 2]), pickle.dumps({"a": 1}, protocol=0), torch_zip()])
@pytest.mark.parametrize("name", ["pytorch_model.bin", "notes.txt", "weights/extra.json", "optimizer.safetensors"])
def test_pickles_beside_the_model_are_named(tmp_path: Path, name: str, content: bytes) -> None:
    root = write_folder(tmp_path / "m")
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).write_bytes(content)
    with pytest.raises(ModelRefused, match=f"Remove {name} from the folder"):
        list_folder(root)


def test_what_belongs_to_the_model(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "m")
    (root / "modeling_x.py").write_text("print(1)")
    (root / ".git").mkdir()
    (root / ".git" / "HEAD").write_text("x")
    (root / "1_Pooling").mkdir()
    (root / "1_Pooling" / "config.json").write_text("{}")
    (root / "LICENSE").write_text("x")
    files = list_folder(root)
    assert "1_Pooling/config.json" in files.taken and "LICENSE" in files.taken
    assert files.left_out == ("modeling_x.py",)


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("config.json", "{}", "architecture"),
        ("config.json", "[]", "not a JSON object"),
        ("config.json", '{"architectures": ["../x"]}', "architecture"),
        ("config.json", '{"architectures": ["X"], "hidden_size": 1e9, "num_hidden_layers": 2}', "hidden_size"),
        (
            "config.json",
            '{"architectures": ["X"], "hidden_size": 8, "num_hidden_layers": 99999999}',
            "num_hidden_layers",
        ),
        ("tokenizer_config.json", "{" * 100_000, "JSON"),
        ("model.safetensors.index.json", '{"weight_map": [1]}', "weight_map"),
        ("model.safetensors.index.json", '{"weight_map": {"a": "../../etc/passwd"}}', "missing"),
    ],
)
def test_bad_json_is_refused(tmp_path: Path, name: str, text: str, why: str) -> None:
    root = write_folder(tmp_path / "m")
    (root / name).write_text(text)
    with pytest.raises(ModelRefused, match=why):
        describe_folder(root)


def test_licence_from_its_text(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "m")
    (root / "README.md").write_text("# No front matter")
    (root / "LICENSE").write_text("                    Apache License\n              Version 2.0, January 2004\n")
    assert describe_folder(root).licence == "apache-2.0"


def test_named_templates_take_the_default(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "m")
    named = [{"name": "tool_use", "template": "x"}, {"name": "default", "template": "y"}]
    (root / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    assert describe_folder(root).chat_template == "y"


def test_a_classic_folder(tmp_path: Path) -> None:
    root = tmp_path / "c"
    root.mkdir()
    (root / "classic.json").write_text(json.dumps({"format": "headgate-classic/1", "licence": "Apache-2.0"}))
    (root / "model.safetensors").write_bytes(safetensors_bytes({"coef_CF": (3, 10)}))
    facts = describe_folder(root)
    assert (facts.format, facts.task, facts.licence, facts.parameters) == ("classic", "classify", "Apache-2.0", 30)


def test_a_folder_without_tensors(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match="no safetensors file"):
        describe_folder(tmp_path)
