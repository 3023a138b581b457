"""Small text networks with seeded random weights, and small tokenizers of the three kinds that they come with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

tf = pytest.importorskip("transformers")
tk = pytest.importorskip("tokenizers")

WORDS = [
    "a",
    "the",
    "cat",
    "dog",
    "sat",
    "ran",
    "on",
    "under",
    "mat",
    "tree",
    "quick",
    "brown",
    "fox",
    "jump",
    "##s",
    "##ing",
    "query",
    "passage",
    ":",
    ".",
    ",",
    "!",
    "?",
    "is",
    "this",
    "one",
    "it",
    "of",
    "some",
    "ten",
    "short",
    "word",
    "##r",
    "yes",
    "probe",
    "what",
    "see",
    "to",
    "network",
    "make",
]
LETTERS = [chr(number) for number in range(ord("a"), ord("z") + 1)]
TEXTS = [
    "the quick brown fox jumps on the dog under the tree",
    "a cat sat on the mat, the dog ran under it. Is this one of ten short words? Yes! The fox sees some.",
    "dog tree",
    "this cat runs to the brown tree of the quick network.",
    "what is it?",
]
BERT_TOKENS = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
ROBERTA_TOKENS = {"cls": "<s>", "pad": "<pad>", "sep": "</s>", "unk": "<unk>", "mask": "<mask>"}


def wordpiece(limit: int = 60, special: dict[str, str] = BERT_TOKENS, words: list[str] = WORDS) -> Any:
    """BERT's kind: lower-cased, special tokens on both sides, letters for words that it does not know.

    special: the first tokens of the vocabulary, in their order.
    """
    spelt = [*special.values(), *words, *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(spelt))}
    inner = tk.Tokenizer(tk.models.WordPiece(vocabulary, unk_token=special["unk"]))
    inner.normalizer = tk.normalizers.BertNormalizer()
    inner.pre_tokenizer = tk.pre_tokenizers.BertPreTokenizer()
    first, last = special["cls"], special["sep"]
    inner.post_processor = tk.processors.TemplateProcessing(
        single=f"{first} $A {last}", special_tokens=[(token, vocabulary[token]) for token in (first, last)]
    )
    options = {f"{sort}_token": token for sort, token in special.items()}
    options |= {"model_max_length": limit, "model_input_names": ["input_ids", "token_type_ids", "attention_mask"]}
    return tf.PreTrainedTokenizerFast(tokenizer_object=inner, **options)


def byte_level(start: bool = False) -> Any:
    """GPT's kind: bytes and three merged pairs, no token for padding, no limit. start: a token before every text."""
    alphabet = sorted(tk.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: at for at, token in enumerate([*alphabet, "<end>", "th", "the", "Ġthe", "<start>"])}
    inner = tk.Tokenizer(tk.models.BPE(vocabulary, [("t", "h"), ("th", "e"), ("Ġ", "the")]))
    inner.pre_tokenizer = tk.pre_tokenizers.ByteLevel(add_prefix_space=False)
    if start:
        inner.post_processor = tk.processors.TemplateProcessing(
            single="<start> $A", special_tokens=[("<start>", vocabulary["<start>"])]
        )
    return tf.PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<start>" if start else None, eos_token="<end>")


def unigram(limit: int = 512) -> Any:
    """T5's kind: pieces with scores, longer ones likelier, and an end after the text."""
    pieces = dict.fromkeys(["<pad>", "</s>", "<unk>", *(f"▁{word}" for word in WORDS), "▁", *LETTERS, *".,?!"])
    inner = tk.Tokenizer(tk.models.Unigram([(piece, -1.0 / len(piece)) for piece in pieces], unk_id=2))
    inner.pre_tokenizer = tk.pre_tokenizers.Metaspace()
    inner.post_processor = tk.processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return tf.PreTrainedTokenizerFast(tokenizer_object=inner, model_max_length=limit, **special)


SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
BERT = SIZES | {"vocab_size": 130, "max_position_embeddings": 64, "type_vocab_size": 2, "pad_token_id": 0}
ROBERTA = BERT | {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
DEBERTA = BERT | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False}
DISTIL = {"vocab_size": 130, "dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 48, "max_position_embeddings": 64}
MODERN = BERT | {"num_hidden_layers": 4, "local_attention": 8, "global_attn_every_n_layers": 2} | {
    "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3,
}  # fmt: skip
CAUSAL = SIZES | {"vocab_size": 261, "max_position_embeddings": 512, "bos_token_id": 260, "eos_token_id": 256}
LLAMA = CAUSAL | {"num_key_value_heads": 1, "head_dim": 16}
GEMMA3 = LLAMA | {"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]}
GPT = {"vocab_size": 261, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 256}
GPT |= {"bos_token_id": 256, "eos_token_id": 256}
T5 = {"vocab_size": 80, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 2}
CLIP_TEXT = BERT | {"bos_token_id": 2, "eos_token_id": 3}
CLIP = {"text_config": CLIP_TEXT, "vision_config": SIZES | {"image_size": 32, "patch_size": 8, "num_hidden_layers": 3}}


@dataclass(frozen=True)
class Family:
    """network: its name in transformers, whose configuration is `config` with `options`.

    target: path in the part that is read, which lies at `part` of the whole network.
    """

    network: str
    config: str
    options: dict[str, Any]
    tokenizer: Callable[[], Any]
    pooling: str
    target: str
    part: str = ""

    @property
    def modality(self) -> str:
        return "text" if self.network == "CLIPModel" else "auto"

    def build(self, dtype: torch.dtype = torch.float32) -> nn.Module:
        """Seeded, in evaluation mode, with every parameter stirred: fresh models have zeros for biases."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            module = getattr(tf, self.network)(getattr(tf, self.config + "Config")(**self.options))
            with torch.no_grad():
                for parameter in module.parameters():
                    parameter.add_(0.1 * torch.randn_like(parameter))
        return module.to(dtype).eval()


SELF_OUTPUT, O_PROJ = "encoder.layer.1.attention.output.dense", "layers.1.self_attn.o_proj"
OUT_LIN, MPNET, NEOX = "transformer.layer.1.attention.out_lin", "encoder.layer.1.attention.attn.o", "attention.dense"
T5_O, CLIP_O = "block.1.layer.0.SelfAttention.o", "encoder.layers.1.self_attn.out_proj"
roberta, started = partial(wordpiece, 10**30, ROBERTA_TOKENS), partial(byte_level, start=True)

# One of each architecture, as its authors load it for features.
ENCODERS = [
    Family("BertModel", "Bert", BERT, wordpiece, "cls", SELF_OUTPUT),
    Family("RobertaModel", "Roberta", ROBERTA, roberta, "cls", SELF_OUTPUT),
    Family("XLMRobertaModel", "XLMRoberta", ROBERTA, roberta, "cls", SELF_OUTPUT),
    Family("DistilBertModel", "DistilBert", DISTIL, wordpiece, "cls", OUT_LIN),
    Family("MPNetModel", "MPNet", ROBERTA, roberta, "cls", MPNET),
    Family("DebertaModel", "Deberta", DEBERTA, wordpiece, "cls", SELF_OUTPUT),
    Family("DebertaV2Model", "DebertaV2", DEBERTA, wordpiece, "cls", SELF_OUTPUT),
    Family("ElectraModel", "Electra", BERT, wordpiece, "cls", SELF_OUTPUT),
    Family("ModernBertModel", "ModernBert", MODERN, wordpiece, "cls", "layers.3.attn.Wo"),
    Family("T5EncoderModel", "T5", T5, unigram, "mean", f"encoder.{T5_O}"),
    Family("CLIPTextModel", "CLIPText", CLIP_TEXT, wordpiece, "own", CLIP_O),
    Family("GPT2Model", "GPT2", GPT, byte_level, "last", "h.1.attn.c_proj"),
    Family("LlamaModel", "Llama", LLAMA, started, "last", O_PROJ),
    Family("MistralModel", "Mistral", LLAMA | {"sliding_window": 16}, started, "last", O_PROJ),
    Family("Qwen2Model", "Qwen2", LLAMA, byte_level, "last", O_PROJ),
    Family("Qwen3Model", "Qwen3", LLAMA, byte_level, "last", O_PROJ),
    Family("GemmaModel", "Gemma", LLAMA, started, "last", O_PROJ),
    Family("Gemma3TextModel", "Gemma3Text", GEMMA3, started, "last", O_PROJ),
    Family("GPTNeoXModel", "GPTNeoX", CAUSAL, byte_level, "last", f"layers.1.{NEOX}"),
]
# Whole networks, of which a part is read.
WHOLE = [
    Family("BertForMaskedLM", "Bert", BERT, wordpiece, "cls", SELF_OUTPUT, "bert"),
    Family("BertForSequenceClassification", "Bert", BERT, wordpiece, "cls", SELF_OUTPUT, "bert"),
    Family("RobertaForMaskedLM", "Roberta", ROBERTA, roberta, "cls", SELF_OUTPUT, "roberta"),
    Family("DistilBertForMaskedLM", "DistilBert", DISTIL, wordpiece, "cls", OUT_LIN, "distilbert"),
    Family("DebertaV2ForMaskedLM", "DebertaV2", DEBERTA, wordpiece, "cls", SELF_OUTPUT, "deberta"),
    Family("ElectraForPreTraining", "Electra", BERT, wordpiece, "cls", SELF_OUTPUT, "electra"),
    Family("ModernBertForMaskedLM", "ModernBert", MODERN, wordpiece, "cls", "layers.3.attn.Wo", "model"),
    Family("T5Model", "T5", T5, unigram, "mean", T5_O, "encoder"),
    Family("T5ForConditionalGeneration", "T5", T5, unigram, "mean", T5_O, "encoder"),
    Family("CLIPTextModelWithProjection", "CLIPText", CLIP_TEXT, wordpiece, "own", CLIP_O, "text_model"),
    Family("CLIPModel", "CLIP", CLIP, wordpiece, "own", CLIP_O, "text_model"),
    Family("GPT2LMHeadModel", "GPT2", GPT, byte_level, "last", "h.1.attn.c_proj", "transformer"),
    Family("LlamaForCausalLM", "Llama", LLAMA, started, "last", O_PROJ, "model"),
    Family("Qwen2ForSequenceClassification", "Qwen2", LLAMA, byte_level, "last", O_PROJ, "model"),
]
FAMILIES = {family.network: family for family in (*ENCODERS, *WHOLE)}


def stirred(network: str, config: str, options: dict, dtype: torch.dtype = torch.float64) -> nn.Module:
    """A network of transformers whose weights are all random, norms and biases too."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = getattr(tf, network)(getattr(tf, config)(**options))
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return module.to(dtype).eval()
