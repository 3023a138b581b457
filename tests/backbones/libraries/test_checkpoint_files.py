"""Checkpoint folders that try to run code, and folders that people have which are not what they should be."""

from __future__ import annotations

import builtins
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from small import VISION
from small_sentence import save_bert
from sporeprint.backbones.libraries.checkpoint_files import check_code
from sporeprint.backbones.libraries.huggingface import find_modality
from sporeprint.backbones.load import load_backbone
from sporeprint.errors import BackboneError, MissingExtra, SporeprintError

tf = pytest.importorskip("transformers")

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 123\n"
CODE = "modeling_x.X"


def vit(folder: Path) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tf.ViTModel(tf.ViTConfig(**VISION)).save_pretrained(folder)
    size = {"height": 32, "width": 32}
    settings = {"image_processor_type": "ViTImageProcessor", "size": size}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


def edit(path: Path, drop: tuple[str, ...] = (), **changes: Any) -> None:
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({key: value for key, value in (content | changes).items() if key not in drop}))


@pytest.fixture
def asked(monkeypatch):
    """The questions that anyone asks; each is answered with yes."""
    questions: list[str] = []

    def answer(question: str = "") -> str:
        questions.append(question)
        return "y"

    monkeypatch.setattr(builtins, "input", answer)
    return questions


def unknown_network(folder: Path) -> None:
    edit(folder / "config.json", model_type="mine", auto_map={"AutoConfig": CODE, "AutoModel": CODE})


def nested_network(folder: Path) -> None:
    edit(folder / "config.json", vision_config={"model_type": "vit", "auto_map": {"AutoModel": CODE}})


def known_type_without_network(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "rag", "auto_map": {"AutoModel": CODE}}))


def image_processor(folder: Path) -> None:
    edit(folder / "preprocessor_config.json", image_processor_type="Mine", auto_map={"AutoImageProcessor": CODE})


def image_processor_without_a_name(folder: Path) -> None:
    edit(folder / "preprocessor_config.json", ("image_processor_type",), auto_map={"AutoImageProcessor": CODE})


def feature_extractor(folder: Path) -> None:
    changes = {"feature_extractor_type": "Mine", "auto_map": {"AutoFeatureExtractor": CODE}}
    edit(folder / "preprocessor_config.json", ("image_processor_type",), **changes)


def processor(folder: Path) -> None:
    inner = {"image_processor_type": "Mine", "auto_map": {"AutoImageProcessor": CODE}}
    edit(folder / "processor_config.json", image_processor=inner)


NAMES_CODE = {
    unknown_network: "config.json",
    nested_network: "config.json",
    known_type_without_network: "code of its own",
    image_processor: "preprocessor_config.json",
    image_processor_without_a_name: "preprocessor_config.json",
    feature_extractor: "preprocessor_config.json",
    processor: "processor_config.json",
}


@pytest.mark.parametrize("attack", NAMES_CODE)
def test_code_in_a_checkpoint_is_neither_run_nor_asked_for(attack, tmp_path, asked):
    canary = tmp_path / "canary"
    folder = vit(tmp_path / "model")
    (folder / "modeling_x.py").write_text(f"open({str(canary)!r}, 'w').write('ran')\nclass X: pass\n")
    attack(folder)
    with pytest.raises(BackboneError, match=f"(?s)model.*{NAMES_CODE[attack]}.*--trust-remote-code") as caught:
        load_backbone(str(folder), device="cpu")
    assert "\n" not in str(caught.value)
    assert not asked
    assert not canary.exists()


@pytest.mark.parametrize("named", [["modeling_x.X", None], {"AutoTokenizer": [CODE, CODE]}])
def test_code_of_a_tokenizer_is_neither_run_nor_asked_for(named, tmp_path, asked):
    canary = tmp_path / "canary"
    folder = save_bert(tmp_path / "model")
    (folder / "modeling_x.py").write_text(f"open({str(canary)!r}, 'w').write('ran')\nclass X: pass\n")
    edit(folder / "tokenizer_config.json", tokenizer_class="Mine", auto_map=named)
    with pytest.raises(BackboneError, match=r"model: tokenizer_config\.json names code to run .*--trust-remote-code"):
        load_backbone(str(folder), device="cpu")
    assert not asked
    assert not canary.exists()


def test_a_network_that_transformers_has_is_read_without_the_code_next_to_it(tmp_path, asked):
    folder = vit(tmp_path / "model")
    expected = load_backbone(str(folder), device="cpu").describe()
    edit(folder / "config.json", auto_map={"AutoConfig": CODE, "AutoModel": CODE})
    with pytest.warns(UserWarning, match=r"config\.json names code, which is not run: transformers' own class"):
        assert load_backbone(str(folder), device="cpu").describe() == expected
    assert not asked


def test_code_named_for_what_is_not_read_is_not_warned_of(tmp_path, recwarn):
    folder = vit(tmp_path / "model")
    edit(folder / "config.json", auto_map={"AutoImageProcessor": CODE, "AutoTokenizer": [CODE, None]})
    assert load_backbone(str(folder), device="cpu").width == 32
    assert not [warning for warning in recwarn if "names code" in str(warning.message)]


def test_nothing_is_asked_on_a_terminal_that_would_say_yes(tmp_path, run, monkeypatch):
    folder, canary = vit(tmp_path / "model"), tmp_path / "canary"
    (folder / "modeling_x.py").write_text(f"open({str(canary)!r}, 'w').write('ran')\n")
    unknown_network(folder)
    terminal = io.StringIO("y\ny\n")
    monkeypatch.setattr(sys, "stdin", terminal)
    status, out, err = run("backbones", folder)
    assert status == 1
    assert "names code to run" in err
    assert "Do you wish" not in out + err
    assert terminal.read() == "y\ny\n"
    assert not canary.exists()


SETTINGS = [
    ("attn_implementation", "someone/attention"),
    ("attn_implementation", "kernels-community/flash-attn2@main:forward"),
    ("_attn_implementation_internal", "someone/attention"),
    ("attn_implementation", {"": "sdpa", "vision_config": "someone/attention"}),
    ("experts_implementation", "someone/experts"),
    ("quantization_config", {"quant_method": "gptq", "bits": 4}),
    ("fusion_config", {"patch_embeddings": True}),
    ("backbone", "someone/resnet"),
    ("architecture", "local-dir:/tmp/evil"),
    ("model_args", {"checkpoint_path": "evil.pth"}),
    ("configuration_files", ["config.4.0.0.json"]),
    ("torch_dtype", "load"),
    ("tokenizer_class", "AutoModel"),
    ("image_processor_type", "RagRetriever"),
]


@pytest.mark.parametrize(("key", "value"), SETTINGS)
@pytest.mark.parametrize("nested", [False, True])
def test_settings_that_reach_code_or_other_checkpoints_are_refused_by_name(key, value, nested, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    content = {"text_config": {key: value}} if nested else {key: value}
    (folder / "config.json").write_text(json.dumps({"model_type": "vit", **VISION, **content}))
    for load in (load_backbone, find_modality):
        with pytest.raises(
            BackboneError, match=rf"model: config\.json sets [\w.]*{key}.* to .*: .*(remove|give|write|save)"
        ):
            load(str(folder))


@pytest.mark.parametrize("value", ["eager", "sdpa", "flash_attention_2", "flex_attention"])
def test_attention_of_transformers_own_is_taken_or_replaced_by_what_this_machine_has(value, tmp_path):
    folder = vit(tmp_path / "model")
    edit(folder / "config.json", attn_implementation=value)
    assert load_backbone(str(folder), device="cpu").module.config._attn_implementation in ("eager", "sdpa")


class Evil:
    def __init__(self, canary: Path):
        self.canary = canary

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, ...]]:
        return Path.touch, (self.canary,)  # type: ignore[return-value]


def test_a_pickle_is_never_run_whatever_the_environment_says(tmp_path, monkeypatch):
    folder, canary = vit(tmp_path / "model"), tmp_path / "canary"
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save({**weights, "evil": Evil(canary)}, folder / "pytorch_model.bin")
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    with pytest.raises(BackboneError, match=r"model: a \.bin file .*was not run.*model\.safetensors") as caught:
        load_backbone(str(folder), device="cpu")
    assert "weights_only" not in str(caught.value)
    assert not canary.exists()
    torch.save(weights, folder / "pytorch_model.bin")
    assert load_backbone(str(folder), device="cpu").width == 32


@pytest.mark.parametrize("name", ["timm:hf-hub:someone/vit", "timm:local-dir:/tmp/vit"])
def test_a_place_given_to_timm_is_refused(name):
    with pytest.raises(BackboneError, match=r"names a place, whose files could run code.*--trust-remote-code"):
        load_backbone(name)


MODELING = """
from transformers import ViTConfig, ViTModel

class MineConfig(ViTConfig):
    model_type = "mine"

class Mine(ViTModel):
    config_class = MineConfig
"""


def test_code_runs_where_it_is_asked_for_and_that_is_recorded(tmp_path, monkeypatch, asked):
    folder = vit(tmp_path / "model")
    (folder / "modeling_x.py").write_text(MODELING)
    weights = tf.ViTModel(tf.ViTConfig(**VISION)).state_dict()
    save_file(
        {name: weight.clone() for name, weight in weights.items()}, folder / "model.safetensors", {"format": "pt"}
    )
    classes = {"AutoConfig": "modeling_x.MineConfig", "AutoModel": "modeling_x.Mine"}
    edit(folder / "config.json", model_type="mine", auto_map=classes)
    monkeypatch.setattr(tf.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    backbone = load_backbone(str(folder), device="cpu", trust_remote_code=True)
    assert type(backbone.module).__name__ == "Mine"
    assert backbone.describe()["trust_remote_code"] is True
    assert find_modality(str(folder), trust_remote_code=True) == "image"
    assert not asked


# Folders that people have


def lora(folder: Path) -> None:
    edit(folder / "adapter_config.json", peft_type="LORA", base_model_name_or_path="google/vit-base")


def lora_alone(folder: Path) -> None:
    empty(folder)
    lora(folder)


def adapter_without_network(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")


def adapter_alone(folder: Path) -> None:
    adapter_without_network(folder)
    (folder / "config.json").unlink()


def weights_alone(folder: Path) -> None:
    (folder / "config.json").unlink()


def empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def pipeline(folder: Path) -> None:
    edit(folder / "model_index.json", _class_name="StableDiffusionPipeline")


def diffusion(folder: Path) -> None:
    (folder / "config.json").write_text('{"_class_name": "UNet2DConditionModel"}')


def pointer(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(POINTER) and None


def only(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        (folder / name).write_bytes(b"x")

    return change


def gguf(folder: Path) -> None:
    empty(folder)
    (folder / "vit.gguf").write_bytes(b"GGUF")


def cut_off(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def missing_shard(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    edit(folder / "model.safetensors.index.json", weight_map={"a": "model-00002-of-00002.safetensors"})


def shard_outside(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    edit(folder / "model.safetensors.index.json", weight_map={"a": "../other.safetensors"})


def not_a_number(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["embeddings.cls_token"][0, 0, 3] = float("nan")
    weights["embeddings.cls_token"][0, 0, 4] = float("inf")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def absurd(key: str, value: Any = 10**12) -> Callable[[Path], None]:
    return lambda folder: edit(folder / "config.json", **{key: value})


def no_heads(folder: Path) -> None:
    edit(folder / "config.json", num_attention_heads=0)


FOUND = [
    (lora, r"model holds an adapter \(LoRA, adapter_config.json\) for 'google/vit-base', .*merge it"),
    (lora_alone, r"model holds an adapter \(LoRA, adapter_config.json\) for 'google/vit-base', .*merge it"),
    (empty, r"model is empty; expected config\.json and model\.safetensors"),
    (pipeline, r"model holds a diffusers pipeline \(model_index\.json\)"),
    (diffusion, r"model/config\.json is of a diffusers 'UNet2DConditionModel'"),
    (pointer("model.safetensors"), r"model/model\.safetensors is a Git LFS pointer.*git lfs pull"),
    (pointer("config.json"), r"model/config\.json is a Git LFS pointer.*git lfs pull"),
    (pointer("preprocessor_config.json"), r"model/preprocessor_config\.json is a Git LFS pointer.*git lfs pull"),
    (pointer("vocab.txt"), r"model/vocab\.txt is a Git LFS pointer.*git lfs pull"),
    (pointer("modules.json"), r"model/modules\.json is a Git LFS pointer.*git lfs pull"),
    (only("model.onnx"), r"model has config\.json and no weights.*model\.onnx \(ONNX\).*save_pretrained"),
    (only("tf_model.h5"), r"model has config\.json and no weights.*tf_model\.h5 \(TensorFlow's\)"),
    (only("model.pt"), r"model has config\.json and no weights.*model\.pt \(a pickle"),
    (gguf, r"model has no config\.json; it holds vit\.gguf \(GGUF\)"),
    (cut_off, r"model/model\.safetensors \([\d,]+ bytes\) is cut off or damaged: .*; fetch or save it again"),
    (
        missing_shard,
        r"model/model-00002-of-00002\.safetensors is missing, and model\.safetensors\.index\.json names it",
    ),
    (shard_outside, r"model/model\.safetensors\.index\.json names '\.\./other\.safetensors', which leads out"),
    (not_a_number, r"model: 2 of the 32 numbers of its weight 'embeddings\.cls_token' are NaN or infinite"),
    (absurd("hidden_size", 10**7), r"model/config\.json sets hidden_size to 10000000, but its weights are"),
    (absurd("num_hidden_layers"), r"config\.json sets num_hidden_layers to 1000000000000: expected at most 1,000;"),
    (absurd("depths", [2, 3000]), r"config\.json sets depths to \[2, 3000\]: expected at most 1,000;"),
    (absurd("num_labels", 10**10), r"config\.json sets num_labels to 10000000000: expected at most 1,000,000;"),
    (absurd("image_size", 1400000), r"config\.json sets image_size to 1400000: expected at most 100,000;"),
    (absurd("image_size", [32, 10**6]), r"config\.json sets image_size to \[32, 1000000\]: expected at most"),
    (absurd("num_channels", 10**9), r"config\.json sets num_channels to 1000000000: expected at most 100,000;"),
    (absurd("max_position_embeddings", 10**10), r"sets max_position_embeddings to 10000000000: expected at most"),
    (absurd("text_config", {"num_labels": 10**10}), r"sets text_config\.num_labels to 10000000000: expected at most"),
    (
        absurd("image_size", 99_999),
        r"config\.json makes a network of [\d,]{14,} bytes, but its weights are [\d,]{5,7} ",
    ),
    (weights_alone, r"model has no config\.json; it holds weights \(model\.safetensors\) without it"),
    (adapter_alone, r"model holds an adapter \(LoRA, adapter_model\.safetensors\), .*merge it"),
    (adapter_without_network, r"model holds an adapter \(LoRA, adapter_model\.safetensors\), .*merge it"),
    (no_heads, r"transformers could not load .*model"),
]


@pytest.mark.parametrize(("change", "message"), FOUND)
def test_a_folder_that_cannot_be_read_says_what_is_wrong_with_it(change, message, tmp_path):
    folder = vit(tmp_path / "model")
    change(folder)
    with pytest.raises(BackboneError, match=message) as caught:
        load_backbone(str(folder), device="cpu")
    assert "\n" not in str(caught.value)


COUNTS = {
    "max_position_embeddings": 10_485_760, "n_positions": 131_072, "vocab_size": 1_000_000, "rope_theta": 10**12,
    "sampling_rate": 48_000, "max_source_positions": 1500, "encoder_layerdrop": 0.1, "seed": 10**12,
    "max_length": 10**30, "num_labels": 21_843, "image_size": [1024, 1024], "depths": [2, 2, 18, 2],
    "num_hidden_layers": 126,
}  # fmt: skip


def test_the_counts_of_large_networks_are_taken(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(COUNTS))
    assert check_code(str(tmp_path), ["config.json"]) == []


@pytest.mark.parametrize("config", ["BertConfig", "Wav2Vec2Config", "WhisperConfig", "CLIPConfig", "SwinConfig"])
def test_every_count_of_an_ordinary_configuration_is_taken(config, tmp_path):
    getattr(tf, config)().save_pretrained(tmp_path)
    assert check_code(str(tmp_path), ["config.json"]) == []


def test_weights_of_an_adapter_next_to_a_whole_network_are_not_read(tmp_path):
    folder = vit(tmp_path / "model")
    (folder / "adapter_model.safetensors").write_bytes(b"x")
    assert load_backbone(str(folder), device="cpu").width == 32


def test_a_pointer_that_is_not_read_does_no_harm(tmp_path):
    folder = vit(tmp_path / "model")
    pointer("pytorch_model.bin")(folder)
    (folder / "onnx").mkdir()
    pointer("onnx/model.onnx")(folder)
    assert load_backbone(str(folder), device="cpu").width == 32


def test_a_file_in_the_place_of_a_folder_is_refused(tmp_path):
    vit(tmp_path / "model")
    with pytest.raises(BackboneError, match=r"no folder .*config\.json.*expected a folder"):
        load_backbone(str(tmp_path / "model" / "config.json"), device="cpu")


LOADS = """
import sys
from sporeprint.backbones.load import load_backbone
from sporeprint.errors import MissingExtra
try:
    load_backbone(sys.argv[1], device="cpu")
except MissingExtra as error:
    print(error)
"""


def test_a_torchvision_that_does_not_fit_torch_is_named_as_the_cause(tmp_path):
    folder = vit(tmp_path / "model")
    package = tmp_path / "site" / "torchvision"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    (package / "io.py").write_text("")
    metadata = tmp_path / "site" / "torchvision-0.20.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: torchvision\nVersion: 0.20.0\n")
    path = [str(tmp_path / "site"), *sys.path]
    script = f"import sys; sys.path[:0] = {path!r}\n{LOADS}"
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder)], capture_output=True, text=True, timeout=300, check=False
    )
    assert "the installed torchvision does not fit torch" in done.stdout, done.stderr[-500:]
    assert "operator torchvision::nms does not exist" in done.stdout
    assert "pip uninstall torchvision" in done.stdout
    assert issubclass(MissingExtra, SporeprintError)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes have no names here")
def test_a_pipe_in_the_place_of_a_file_is_named_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(BackboneError, match=r"config\.json is no file"):
        load_backbone(str(tmp_path))
