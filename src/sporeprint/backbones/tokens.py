"""From a text to what a text backbone takes: its own tokenizer's numbers, cut at its limit, padded on the right."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sporeprint.backbones.inputs import Inputs
from sporeprint.data import texts
from sporeprint.errors import BackboneError, SampleError
from sporeprint.recipe import canonical

_POSITIONS = ("position_embeddings", "position_embedding", "embed_positions", "wpe")
_NO_LIMIT = 10**6  # a tokenizer without a limit says 10**30
_TOKENIZING = threading.Lock()  # a tokenizer's settings for cutting are its own state, which threads would share
_PROBES = ("A probe of some ten short words, to see what the network makes of it.", "Is this one shorter?", "Yes")
_SPELLINGS = ("The quick brown fox, 1234 jumps!", "Größe, naïve; 東京 и Москва", "don't re-tokenise   THIS\tline\n")


class Tokens(Inputs):
    """Texts to token numbers.

    tokenizer: a Hugging Face one. max_length: tokens a text is cut to, special ones counted; default the tokenizer's
    own limit. prompt: put before every text; include_prompt=False leaves its tokens out of mean pooling. lower: prompt
    and text are lower-cased first.
    """

    modality = "text"
    sample = "text"
    budget = 8192  # tokens

    def __init__(
        self,
        tokenizer: Any,
        max_length: int | None = None,
        prompt: str = "",
        include_prompt: bool = True,
        lower: bool = False,
    ):
        if not is_tokenizer(tokenizer):
            raise BackboneError(f"tokenizer is a {type(tokenizer).__name__}; expected a Hugging Face tokenizer")
        if len(tokenizer.get_vocab()) < len(tokenizer.all_special_ids) + 2:  # one may stand for a space
            raise BackboneError(
                f"the tokenizer, a {type(tokenizer).__name__}, knows special tokens and no word: transformers makes "
                "such a one where the checkpoint has no tokenizer files; save the tokenizer beside the weights"
            )
        self.tokenizer = tokenizer
        limit = tokenizer.model_max_length if tokenizer.model_max_length < _NO_LIMIT else None
        self.max_length = limit if max_length is None else max_length
        self.prompt, self.include_prompt, self.lower = prompt, include_prompt, lower
        self.prompt_tokens = 0
        if prompt and not include_prompt:
            from sporeprint.backbones.sentence import prompt_length

            self.prompt_tokens = prompt_length(tokenizer, prompt.lower() if lower else prompt, self.max_length)

    def load(self, sample: object) -> str:
        """The text. Raises SampleError."""
        return texts.load_text(sample)

    def digest(self, loaded: str) -> str:
        """Of its UTF-8."""
        return texts.text_digest(loaded)

    def prepare(self, loaded: str) -> str:
        """The text itself. Raises SampleError where the tokenizer makes nothing of it."""
        if not self(loaded)["input_ids"]:
            raise SampleError(f"the tokenizer makes no token of this text, {loaded[:20]!r}; mend or remove it")
        return loaded

    def truncates(self, ready: str) -> bool:
        """Whether it has more tokens than `max_length`."""
        if self.max_length is None or len((self.prompt + ready).encode()) + 8 < self.max_length:
            return False  # no token is shorter than a byte; special ones are few
        return len(self._encode(ready, None)["input_ids"]) > self.max_length

    def bulk(self, ready: str) -> int:
        """Four bytes a character at most."""
        return 4 * len(ready)

    def length(self, ready: str) -> int:
        """About its number of tokens: texts are sorted by it, so that little is padded."""
        tokens = (len(self.prompt) + len(ready)) // 4 + 2
        return tokens if self.max_length is None else min(tokens, self.max_length)

    def __call__(self, ready: str) -> dict[str, list[int]]:
        """{"input_ids": [T], ...}, with the special tokens."""
        return self._encode(ready, self.max_length)

    def _encode(self, text: str, most: int | None) -> dict[str, list[int]]:
        text = self.prompt + text
        text = text.lower() if self.lower else text
        with _TOKENIZING:
            found = self.tokenizer(
                text, truncation=most is not None, max_length=most, return_attention_mask=False, verbose=False
            )
        return {name: list(found[name]) for name in ("input_ids", "token_type_ids") if name in found}

    def collate(self, views: Sequence[Mapping[str, Sequence[int]]]) -> dict[str, Tensor]:
        """views: as made above. Returns tensors [N, T], T the longest: "attention_mask" says which tokens are real."""
        longest = max(len(view["input_ids"]) for view in views)
        padding = {"input_ids": self.tokenizer.pad_token_id or 0, "labels": -100}
        batch = {}
        for name in views[0]:
            rows = [[*view[name], *[padding.get(name, 0)] * (longest - len(view[name]))] for view in views]
            batch[name] = torch.tensor(rows, dtype=torch.int64)
        lengths = torch.tensor([len(view["input_ids"]) for view in views])
        batch["attention_mask"] = (torch.arange(longest) < lengths[:, None]).long()
        if self.prompt_tokens:
            batch["pooled"] = batch["attention_mask"] * (torch.arange(longest) >= self.prompt_tokens)
        return batch

    def probes(self) -> list[dict[str, list[int]]]:
        """Sentences, the longest first."""
        return [self(text) for text in _PROBES]

    def starts_special(self) -> bool:
        """Whether the tokenizer puts a token of its own (CLS, BOS) before the text."""
        first = self(_PROBES[0])["input_ids"][0]
        return first in self.tokenizer.all_special_ids

    def describe(self) -> dict[str, Any]:
        """Vocabulary and spelling as a digest, and the settings."""
        vocabulary = sorted(self.tokenizer.get_vocab().items())
        spelt = [self.tokenizer(text, truncation=False, verbose=False)["input_ids"] for text in _SPELLINGS]
        digest = hashlib.blake2b(canonical([vocabulary, spelt]), digest_size=8).hexdigest()
        settings = ("max_length", "prompt", "include_prompt", "lower")
        return {"tokenizer": digest, **{name: getattr(self, name) for name in settings}}

    def limits(self) -> dict[str, Any]:
        return {"max_tokens": self.max_length}


def is_tokenizer(value: Any) -> bool:
    """Whether it is a Hugging Face tokenizer, which is recognised, never imported."""
    return all(hasattr(value, name) for name in ("convert_tokens_to_ids", "model_max_length", "get_vocab"))


def position_limit(module: nn.Module) -> int | None:
    """Tokens that a network has positions for; None where they are relative, or not said."""
    for name, part in module.named_modules():
        if isinstance(part, nn.Embedding) and name.rsplit(".", 1)[-1] in _POSITIONS:
            first = 0 if part.padding_idx is None else part.padding_idx + 1  # RoBERTa counts from behind its padding
            return part.num_embeddings - first
    return getattr(getattr(module, "config", None), "max_position_embeddings", None)


def fitting_length(tokenizer: Any, module: nn.Module, wanted: int | None = None) -> int | None:
    """The smallest of the limit that is asked for, the tokenizer's and the network's."""
    limits = [wanted, tokenizer.model_max_length, position_limit(module)]
    known = [limit for limit in limits if limit is not None and 0 < limit < _NO_LIMIT]
    return min(known, default=None)
