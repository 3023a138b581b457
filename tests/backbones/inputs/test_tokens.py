"""From texts to token numbers: cutting, padding, what the tokenizer's owner sees of it, what identifies it."""

from __future__ import annotations

import copy
import json
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from small_text import FAMILIES, TEXTS, WORDS, byte_level, tf, tk, unigram, wordpiece
from sporeprint.backbones.backbone import Backbone
from sporeprint.backbones.inputs.tokens import Tokens, fitting_length, position_limit
from sporeprint.errors import BackboneError, SampleError
from sporeprint.features.contracts import check_backbone

TOKENIZERS = {"wordpiece": wordpiece, "bytes": byte_level, "bytes, start": lambda: byte_level(True), "unigram": unigram}
every = pytest.mark.parametrize("make", TOKENIZERS.values(), ids=TOKENIZERS)
STRANGE = {
    "emoji": "👩‍👩‍👧 🍄🍄",
    "scripts": "东京 Größe naïve Москва ไทย اَلْعَرَبِيَّةُ",
    "one long word": "x" * 30_000,
    "control": "the\x00 dog\x07 \x1b[31m sat",
    "joined": "a\u200bb\ufeff\u202e",
    "spelling of special tokens": "[CLS] [SEP] </s> <end> <start> [PAD]",
    "one letter": "a",
}


def test_numbers_of_a_text_by_hand() -> None:
    tokens = Tokens(wordpiece())
    # [PAD] [UNK] [CLS] [SEP] [MASK] are 0 to 4, then the words in their order: a 5, the 6, cat 7, dog 8, sat 9
    expected = {"input_ids": [2, 6, 8, 9, 3], "token_type_ids": [0, 0, 0, 0, 0]}
    assert tokens("The dog sat") == expected
    assert Tokens(wordpiece(), max_length=4)("The dog sat")["input_ids"] == [2, 6, 8, 3]
    assert Tokens(wordpiece(), prompt="a cat ")("The dog sat")["input_ids"] == [2, 5, 7, 6, 8, 9, 3]


def test_a_batch_is_padded_on_the_right_whatever_the_tokenizer_would_do() -> None:
    tokenizer = wordpiece()
    tokenizer.padding_side = "left"
    tokens = Tokens(tokenizer)
    batch = tokens.collate([tokens("dog"), tokens("the dog sat")])
    assert batch["input_ids"].tolist() == [[2, 8, 3, 0, 0], [2, 6, 8, 9, 3]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert batch["token_type_ids"].tolist() == [[0] * 5] * 2
    assert all(values.dtype == torch.int64 for values in batch.values())


def test_a_tokenizer_without_a_padding_token_can_make_a_batch() -> None:
    tokens = Tokens(byte_level())
    short, long = tokens("dog"), tokens("the dog")
    batch = tokens.collate([long, short])
    assert batch["input_ids"][1].tolist() == [*short["input_ids"], *[0] * (len(long["input_ids"]) - 3)]
    assert batch["attention_mask"].sum(dim=1).tolist() == [len(long["input_ids"]), 3]
    assert "token_type_ids" not in batch


def test_the_prompt_is_left_out_of_the_mean_and_nothing_else() -> None:
    tokens = Tokens(wordpiece(), prompt="query : ", include_prompt=False)
    batch = tokens.collate([tokens("the dog sat"), tokens("dog")])
    assert batch["attention_mask"].tolist() == [[1] * 7, [1, 1, 1, 1, 1, 0, 0]]
    assert batch["pooled"].tolist() == [[0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 1, 1, 0, 0]]


@pytest.mark.parametrize(
    ("text", "limit", "cut"),
    [
        ("the dog sat", 5, False),
        ("the dog sat on", 5, True),
        ("the dog sat on", 6, False),
        ("the dog sat on", None, False),
        ("the " * 58, 60, False),
        ("the " * 59, 60, True),
    ],
)
def test_a_text_is_cut_where_it_has_more_tokens_than_fit(text: str, limit: int | None, cut: bool) -> None:
    tokens = Tokens(wordpiece(10**30), max_length=limit)
    assert tokens.truncates(text) is cut
    whole = Tokens(wordpiece(10**30))(text)["input_ids"]
    assert tokens(text)["input_ids"] == ([*whole[: limit or 0][:-1], 3] if cut else whole)


def test_a_text_whose_characters_grow_into_many_tokens_is_counted_as_cut() -> None:
    tokenizer = unigram(30)
    tokenizer.backend_tokenizer.normalizer = tk.normalizers.NFKC()
    grown = "\u33af"  # RAD OVER S SQUARED, three bytes, which NFKC writes in six characters
    tokens = Tokens(tokenizer)
    assert len((grown * 5).encode()) + 8 < 30
    assert len(tokens(grown * 5)["input_ids"]) == 30
    assert tokens.truncates(grown * 5)


@every
@pytest.mark.parametrize("side", ["right", "left"])
def test_of_a_book_only_the_first_pages_are_spelt_and_the_numbers_are_the_same(make: Any, side: str) -> None:
    tokenizer = make()
    tokenizer.truncation_side = side
    tokens = Tokens(tokenizer, max_length=20)
    for text in (" ".join(TEXTS) * 100, "x " * 640 + "dog " * 5000, " " * 30_000 + "dog " * 9, "x" * 30_000):
        expected = tokenizer(text, truncation=True, max_length=20)["input_ids"]
        cut = len(tokenizer(text, verbose=False)["input_ids"]) > 20
        assert tokens(text)["input_ids"] == expected
        assert tokens.truncates(text) is cut
    book, lengths = " ".join(TEXTS) * 100, []

    class Spy:
        truncation_side = side

        def __call__(self, text: str, **options: Any) -> Any:
            lengths.append(len(text))
            return tokenizer(text, **options)

    tokens.tokenizer = Spy()
    tokens(book)
    assert max(lengths) == (64 * 20 if side == "right" else len(book))


@pytest.mark.parametrize("length", [0, -1, 1, 2, True, "9", 2.5])
def test_a_limit_that_leaves_no_room_for_text_is_refused(length: Any) -> None:
    with pytest.raises(BackboneError, match=r"max_length=.*expected a number of tokens, at least 3: 2 are special"):
        Tokens(wordpiece(), max_length=length)


def test_a_prompt_that_fills_the_limit_is_refused() -> None:
    with pytest.raises(BackboneError, match=r"max_length=5; .* at least 6: 5 are special tokens and the prompt"):
        Tokens(wordpiece(), max_length=5, prompt="query : the ")
    assert Tokens(wordpiece(), max_length=6, prompt="query : the ")("dog")["input_ids"][-2:] == [8, 3]


@every
@pytest.mark.parametrize("text", STRANGE.values(), ids=STRANGE)
def test_strange_texts_have_numbers_within_the_vocabulary_and_the_limit(make: Any, text: str) -> None:
    tokenizer = make()
    tokens = Tokens(tokenizer, max_length=50)
    ready = tokens.prepare(tokens.load(text))
    numbers = tokens(ready)["input_ids"]
    assert 1 <= len(numbers) <= 50
    assert 0 <= min(numbers) <= max(numbers) < len(tokenizer)
    assert tokens.truncates(ready) is (len(tokenizer(text, verbose=False)["input_ids"]) > 50)


@pytest.mark.parametrize("text", ["\x01\x02", "\u200b", "\ufeff\u200d"])
@pytest.mark.parametrize("prompt", ["", "query : "])
def test_a_text_of_which_nothing_is_left_is_an_error_of_its_row(text: str, prompt: str) -> None:
    tokens = Tokens(wordpiece(), prompt=prompt)
    with pytest.raises(SampleError, match=r"the tokenizer makes no token of this text, .*; fix or remove it"):
        tokens.prepare(tokens.load(text))


def test_a_view_that_lost_every_known_word_is_one_unknown_token() -> None:
    inner = wordpiece().backend_tokenizer
    inner.post_processor = tk.processors.TemplateProcessing(single="$A", special_tokens=[])
    tokens = Tokens(tf.PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]"))
    batch = tokens.collate([tokens("\x01")])
    assert batch["input_ids"].tolist() == [[1]]
    assert batch["attention_mask"].tolist() == [[1]]
    with pytest.raises(SampleError):
        tokens.prepare("\x01")


def test_length_counts_bytes_so_that_scripts_without_spaces_are_not_taken_for_short() -> None:
    tokens = Tokens(byte_level())
    assert tokens.length("東京" * 100) == 152
    assert tokens.length("to" * 100) == 52
    assert Tokens(wordpiece(), max_length=20).length("東京" * 100) == 20


# The tokenizer's owner


def settings_of(tokenizer: Any) -> list[Any]:
    inner = tokenizer.backend_tokenizer
    return [inner.truncation, inner.padding, tokenizer.padding_side, tokenizer.truncation_side, inner.to_str()]


@every
@pytest.mark.parametrize("used", [False, True])
def test_a_tokenizers_settings_are_its_owners(make: Any, used: bool) -> None:
    tokenizer = make()
    if used:
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        tokenizer(TEXTS, padding="max_length", truncation=True, max_length=7)
        tokenizer.padding_side = "left"
        assert tokenizer.backend_tokenizer.truncation["max_length"] == 7
    before = copy.deepcopy(settings_of(tokenizer))
    tokens = Tokens(tokenizer, max_length=12, prompt="query : ", include_prompt=False)
    for text in TEXTS:
        tokens.prepare(text)
        tokens.truncates(text)
        tokens.collate([tokens(text)])
        assert settings_of(tokenizer) == before
    tokens.describe()
    tokens.starts_special()
    assert settings_of(tokenizer) == before


def test_eight_threads_cut_one_tokenizers_texts_at_their_own_limits() -> None:
    tokenizer = wordpiece()
    kinds = [Tokens(tokenizer, max_length=limit) for limit in (4, 7, 12, None)]
    text = "the dog sat on the mat under the tree and ran to the fox"
    expected = [(kind(text), kind.truncates(text), kind.describe()) for kind in kinds]

    def work(number: int) -> bool:
        kind = number % 4
        result = kinds[kind](text), kinds[kind].truncates(text)
        return result == expected[kind][:2] and (number % 50 or kinds[kind].describe() == expected[kind][2])

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(2000)))


# What identifies it

CHANGED: dict[str, Any] = {
    "another word": lambda: Tokens(wordpiece(words=[*WORDS, "extra"])),
    "another order": lambda: Tokens(wordpiece(words=WORDS[::-1])),
    "capitals kept": lambda: Tokens(_with(wordpiece(), normalizer=tk.normalizers.NFC())),
    "no special tokens": lambda: Tokens(
        _with(wordpiece(), post_processor=tk.processors.TemplateProcessing(single="$A", special_tokens=[]))
    ),
    "limit": lambda: Tokens(wordpiece(40)),
    "prompt": lambda: Tokens(wordpiece(), prompt="query : "),
    "prompt left out": lambda: Tokens(wordpiece(), prompt="query : ", include_prompt=False),
    "lower case": lambda: Tokens(wordpiece(), lower=True),
    "cut at the left": lambda: Tokens(_cut_left(wordpiece())),
}


def _with(tokenizer: Any, **parts: Any) -> Any:
    for name, part in parts.items():
        setattr(tokenizer.backend_tokenizer, name, part)
    return tokenizer


def _cut_left(tokenizer: Any) -> Any:
    tokenizer.truncation_side = "left"
    return tokenizer


def test_descriptions_differ_for_what_gives_other_numbers() -> None:
    variants = [Tokens(wordpiece()), *(make() for make in CHANGED.values())]
    described = [json.dumps(tokens.describe(), sort_keys=True) for tokens in variants]
    assert len(set(described)) == len(described)


def test_a_description_is_the_same_for_a_copy_and_in_another_process() -> None:
    tokens = Tokens(wordpiece())
    expected = tokens.describe()
    tokens("the dog sat " * 30)
    assert tokens.describe() == Tokens(wordpiece()).describe() == pickle.loads(pickle.dumps(tokens)).describe()
    code = (
        "import json; from small_text import wordpiece; from sporeprint.backbones.inputs.tokens import Tokens; "
        "print(json.dumps(Tokens(wordpiece()).describe()))"
    )
    paths = os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONHASHSEED": "7"}
    printed = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert json.loads(printed.stdout.splitlines()[-1]) == expected


def test_a_tokenizer_written_in_python_alone_is_taken() -> None:
    tokenizer = tf.ByT5Tokenizer()  # bytes, offset by three special tokens, and an end, 1
    tokens = Tokens(tokenizer, max_length=6)
    assert not hasattr(tokenizer, "backend_tokenizer")
    assert tokens("abc") == {"input_ids": [100, 101, 102, 1]}
    assert tokens("é🍄")["input_ids"] == [0xC3 + 3, 0xA9 + 3, 0xF0 + 3, 0x9F + 3, 0x8D + 3, 1]
    assert [tokens.truncates(text) for text in ("abcde", "abcdef")] == [False, True]
    options = {"vocab_size": 384, "d_model": 16, "d_kv": 4, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    backbone = Backbone(tf.T5EncoderModel(tf.T5Config(**options)), preprocess=tokenizer)
    assert backbone.pooling == "mean"
    check_backbone(backbone)


@pytest.mark.parametrize(
    ("make", "special"), [(wordpiece, True), (byte_level, False), (lambda: byte_level(True), True), (unigram, False)]
)
def test_a_special_token_before_the_text_is_seen(make: Any, special: bool) -> None:
    assert Tokens(make()).starts_special() is special


def test_an_unknown_first_word_is_no_special_token() -> None:
    no_words = _with(
        wordpiece(words=["x"]), post_processor=tk.processors.TemplateProcessing(single="$A", special_tokens=[])
    )
    no_words.backend_tokenizer.pre_tokenizer = tk.pre_tokenizers.Split("probe", "isolated")
    tokens = Tokens(no_words)
    assert tokens(tokens.tokenizer.decode([1]) + "東京")["input_ids"][0] == 1
    assert not tokens.starts_special()


# Limits


def test_something_else_is_no_tokenizer() -> None:
    with pytest.raises(BackboneError, match="tokenizer is a str; expected a Hugging Face tokenizer"):
        Tokens("bert-base-uncased")


LIMITS = {"BertModel": 64, "RobertaModel": 62, "MPNetModel": 62, "DistilBertModel": 64, "GPT2Model": 256} | {
    "LlamaModel": 512, "T5EncoderModel": None, "CLIPTextModel": 64, "DebertaV2Model": 64,
}  # fmt: skip


@pytest.mark.parametrize("name", LIMITS)
def test_positions_of_a_network(name: str) -> None:
    family = FAMILIES[name]
    module = family.build()
    assert position_limit(module) == LIMITS[name]
    if (limit := LIMITS[name]) is not None:
        backbone = Backbone(module, preprocess=Tokens(family.tokenizer(), limit))
        (longest,) = [backbone.preprocess("the dog sat on " * 300)]
        assert len(longest["input_ids"]) == limit
        with backbone.run(backbone.preprocess.collate([longest])) as one_pass:
            assert one_pass.embedding.isfinite().all()


@pytest.mark.parametrize(("kind", "most"), [("OPT", 20), ("Bart", 20)])
def test_positions_that_are_skipped_are_not_counted(kind: str, most: int) -> None:
    sizes = {"hidden_size": 16, "ffn_dim": 16, "num_hidden_layers": 1, "word_embed_proj_dim": 16}
    if kind == "Bart":
        sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
        sizes |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    else:
        sizes["num_attention_heads"] = 2
    ends = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0, "max_position_embeddings": most}
    config = getattr(tf, f"{kind}Config")(vocab_size=130, **sizes, **ends)
    backbone = Backbone(getattr(tf, f"{kind}Model")(config), preprocess=wordpiece(10**30))
    assert backbone.preprocess.limits() == {"max_tokens": most}
    with backbone.run(backbone.preprocess.collate([backbone.preprocess("the dog " * 50)])) as one_pass:
        assert one_pass.embedding.isfinite().all()


@pytest.mark.parametrize(
    ("wanted", "own", "positions", "expected"),
    [
        (None, 512, 514, 512),
        (None, 10**30, 512, 512),
        (128, 512, 512, 128),
        (1024, 512, 2048, 512),
        (None, 10**30, None, None),
        (None, None, 40, 40),
        (None, 512, -1, 512),
    ],
)
def test_the_smallest_limit_counts(wanted: Any, own: Any, positions: Any, expected: Any) -> None:
    module = nn.Module()
    module.config = SimpleNamespace(max_position_embeddings=positions)  # type: ignore[assignment]
    assert fitting_length(SimpleNamespace(model_max_length=own), module, wanted) == expected
