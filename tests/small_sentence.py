"""Small sentence-transformers models with seeded random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from small_text import WORDS, tf, tk

TEXTS = [
    "the cat sat on the mat",
    "a quick brown Fox jumps",
    "dog",
    "the dogs ran under the tree and the cat sat on the mat while a fox jumps on the brown dog",
    "cats jumping",
    "",
]
PROMPT = "query : the "


def save_bert(folder: Path) -> Path:
    """Two random layers of width 16, 24 positions, and a word-piece tokenizer that keeps capitals."""
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(["[PAD]", "[UNK]", *WORDS, "Fox"]))}
    vocabulary |= {"[CLS]": len(vocabulary), "[SEP]": len(vocabulary) + 1}
    inner = tk.Tokenizer(tk.models.WordPiece(vocabulary, unk_token="[UNK]"))
    inner.pre_tokenizer = tk.pre_tokenizers.BertPreTokenizer()
    inner.post_processor = tk.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")]
    )
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    tf.PreTrainedTokenizerFast(tokenizer_object=inner, **special).save_pretrained(folder)
    config = tf.BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=24,
        initializer_range=0.5,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tf.BertModel(config).save_pretrained(folder)
    return folder


# What is put behind the transformer, and options: of the transformer, of its pooling, of the model.
BUILT: dict[str, tuple[list[Any], dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "cls": ([], {}, {"pooling_mode": "cls"}, {}),
    "mean": ([], {}, {"pooling_mode": "mean"}, {}),
    "last": ([], {}, {"pooling_mode": "lasttoken"}, {}),
    "normalised": (["Normalize"], {}, {"pooling_mode": "cls"}, {}),
    "dense": ([("Dense", 16, 8), "Normalize"], {}, {"pooling_mode": "mean"}, {}),
    "dense after": (["Normalize", ("Dense", 16, 24)], {}, {"pooling_mode": "mean"}, {}),
    "two denses": ([("Dense", 16, 8, True, "ReLU"), ("Dense", 8, 20, False, "Identity")], {}, {}, {}),
    "residual": ([("Dense", 16, 16, True, "GELU", True), ("Dense", 16, 6, True, "Sigmoid", True)], {}, {}, {}),
    "norm, dropout": (["LayerNorm", "Dropout"], {}, {"pooling_mode": "mean"}, {}),
    "short": ([], {"max_seq_length": 6}, {"pooling_mode": "mean"}, {}),
    "lower": ([], {"do_lower_case": True}, {"pooling_mode": "mean"}, {}),
    "prompt": ([], {}, {"pooling_mode": "mean"}, {"default_prompt_name": "mine"}),
    "prompt left out": (
        ["Normalize"],
        {"max_seq_length": 12},
        {"pooling_mode": "mean", "include_prompt": False},
        {"default_prompt_name": "mine"},
    ),
    "prompt and last": ([], {}, {"pooling_mode": "lasttoken"}, {"default_prompt_name": "mine"}),
    "prompt without default": ([], {}, {"pooling_mode": "mean", "include_prompt": False}, {}),
    "truncated": (["Normalize"], {}, {"pooling_mode": "mean"}, {"truncate_dim": 5}),
}


def build(bert: Path, name: str) -> Any:
    st = pytest.importorskip("sentence_transformers", minversion="6.0")
    kinds = pytest.importorskip("sentence_transformers.sentence_transformer.modules")
    finish, transformer, pool, model = BUILT[name]
    with torch.random.fork_rng():
        torch.manual_seed(1)
        parts = [kinds.Transformer(str(bert), **transformer), kinds.Pooling(16, **pool)]
        for module in finish:
            kind, *sizes = (module,) if isinstance(module, str) else module
            if kind == "Dense":
                width, out, bias, activation, residual = (*sizes, *(True, "Tanh", False)[len(sizes) - 2 :])
                options = {"activation_function": getattr(nn, activation)(), "use_residual": residual}
                parts.append(kinds.Dense(width, out, bias=bias, **options))
            else:
                parts.append(getattr(kinds, kind)(*{"LayerNorm": (16,), "Dropout": (0.5,)}.get(kind, ())))
        prompts = {"mine": PROMPT, "other": "passage : "}
        return st.SentenceTransformer(modules=parts, prompts=prompts, device="cpu", **model)
