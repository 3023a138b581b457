"""Turn a text into what a text backbone takes: its own tokenizer's numbers, cut at its limit, padded on the right."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from sporeprint.backbones.inputs.inputs import Inputs
from sporeprint.backbones.libraries.sentence_model import prompt_length
from sporeprint.data import texts
from sporeprint.data.limits import Limits
from sporeprint.data.locks import process_lock
from sporeprint.errors import BackboneError, SampleError
from sporeprint.values import canonical, is_count

_POSITIONS = ("position_embeddings", "position_embedding", "embed_positions", "wpe")
_NO_LIMIT = 10**6  # a tokenizer without a limit says 10**30
_TOKENIZING = process_lock()  # how a tokenizer cuts is its own state, which threads would share
_PROBES = ("A probe of some ten short words, to see what the network makes of it.", "Is this one shorter?", "Yes")
_EXAMPLES = ("The quick brown fox, 1234 jumps!", "Größe, naïve; 東京 и Москва", "don't re-tokenise   THIS\tline\n")


class Tokens(Inputs):
    """Turns texts into token numbers.

    tokenizer: a Hugging Face tokenizer. max_length: tokens a text is cut to, special ones counted; default the
    tokenizer's own limit. prompt: put before every text; include_prompt=False leaves its tokens out of mean pooling.
    lower: prompt and text are lower-cased first. Raises BackboneError.

    Examples
    --------
    >>> from tokenizers import Tokenizer, models, pre_tokenizers
    >>> from transformers import PreTrainedTokenizerFast
    >>> from sporeprint import Tokens
    >>> words = Tokenizer(models.WordLevel({"[UNK]": 0, "who": 1, "wrote": 2, "faust": 3}, unk_token="[UNK]"))
    >>> words.pre_tokenizer = pre_tokenizers.Whitespace()
    >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]")  # or from_pretrained(...)
    >>> Tokens(tokenizer, lower=True)("Who wrote Hamlet")["input_ids"]
    [1, 2, 0]
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
        if len(tokenizer.get_vocab()) < len(tokenizer.all_special_ids) + 2:  # one token may stand for a space
            raise BackboneError(
                f"the tokenizer, a {type(tokenizer).__name__}, knows special tokens and no word: transformers makes "
                "one like it where the checkpoint has no tokenizer files; save the tokenizer next to the weights"
            )
        self.tokenizer = tokenizer
        self.max_length: int | None = None
        self.prompt, self.include_prompt, self.lower = prompt, include_prompt, lower
        self.around = self._encode("", None)["input_ids"]  # tokens of every text: special ones and the prompt
        limit = tokenizer.model_max_length if tokenizer.model_max_length < _NO_LIMIT else None
        self.max_length = limit if max_length is None else max_length
        self._check_length()
        self.prompt_tokens = 0
        if prompt and not include_prompt:
            with _TOKENIZING, _keep_settings(tokenizer):
                self.prompt_tokens = prompt_length(tokenizer, prompt.lower() if lower else prompt, self.max_length)

    def _check_length(self) -> None:
        length, least = self.max_length, max(2, len(self.around) + 1)
        if length is not None and not is_count(length, least):
            raise BackboneError(
                f"max_length={length!r}; expected a number of tokens, at least {least}: {len(self.around)} are "
                f"special tokens{' and the prompt' if self.prompt else ''}"
            )

    def load(self, sample: object, limits: Limits = Limits()) -> str:
        """Decode the text. Raises SampleError."""
        return texts.load_text(sample)

    def digest(self, loaded: str) -> str:
        """Return a digest of its UTF-8."""
        return texts.text_digest(loaded)

    def prepare(self, loaded: str) -> str:
        """Return the text itself. Raises SampleError where the tokenizer makes no token of it."""
        if self._encode(loaded, self.max_length)["input_ids"] == self.around:
            raise SampleError(f"the tokenizer makes no token of this text, {loaded[:20]!r}; fix or remove it")
        return loaded

    def truncates(self, ready: str) -> bool:
        """Return whether it has more tokens than `max_length`."""
        return self.max_length is not None and len(self._encode(ready, None)["input_ids"]) > self.max_length

    def bulk(self, ready: str) -> int:
        """Return four bytes for each character, the most that UTF-8 takes."""
        return 4 * len(ready)

    def length(self, ready: str) -> int:
        """Return about its number of tokens, one for four bytes: texts are sorted by it, so that little is padded."""
        tokens = len((self.prompt + ready).encode()) // 4 + 2
        return tokens if self.max_length is None else min(tokens, self.max_length)

    def __call__(self, ready: str) -> dict[str, list[int]]:
        """Return {"input_ids": [T], ...}, with the special tokens."""
        encoded = self._encode(ready, self.max_length)
        if not encoded["input_ids"]:  # a view may have lost every word that the tokenizer knows
            unknown = self.tokenizer.unk_token_id or self.tokenizer.eos_token_id or 0
            return {name: [unknown if name == "input_ids" else 0] for name in encoded}
        return encoded

    def _encode(self, text: str, most: int | None) -> dict[str, list[int]]:
        text = self.prompt + text
        text = text.lower() if self.lower else text
        encoded = _tokenize(self.tokenizer, self._beginning(text), most)
        return {name: list(encoded[name]) for name in ("input_ids", "token_type_ids") if name in encoded}

    def _beginning(self, text: str) -> str:
        """Return the part that decides the tokens kept: a book's first pages, as each whole view would take seconds."""
        if self.max_length is None or len(text) <= (ample := 64 * self.max_length):
            return text
        tokens = _tokenize(self.tokenizer, text[:ample], None)["input_ids"]
        enough = len(tokens) >= 2 * self.max_length and self.tokenizer.truncation_side == "right"
        return text[:ample] if enough else text

    def collate(self, views: Sequence[Mapping[str, Sequence[int]]]) -> dict[str, Tensor]:
        """Return tensors [N, T] of N views as made above, T the longest: "attention_mask" marks the real tokens."""
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
        """Return three sentences, the longest first."""
        return [self(text) for text in _PROBES]

    def starts_special(self) -> bool:
        """Return whether the tokenizer puts a token of its own (CLS, BOS) before the text."""
        first = self(_PROBES[0])["input_ids"][0]
        return first in self.tokenizer.all_special_ids and first != self.tokenizer.unk_token_id

    def describe(self) -> dict[str, Any]:
        """Return a digest of vocabulary and examples, and the settings."""
        vocabulary = sorted(self.tokenizer.get_vocab().items())
        encoded = [_tokenize(self.tokenizer, text, None)["input_ids"] for text in _EXAMPLES]
        digest = hashlib.blake2b(canonical([vocabulary, encoded]), digest_size=8).hexdigest()
        settings = {name: getattr(self, name) for name in ("max_length", "prompt", "include_prompt", "lower")}
        return {"tokenizer": digest, "cut": self.tokenizer.truncation_side, **settings}

    def limits(self) -> dict[str, Any]:
        return {"max_tokens": self.max_length}


def _tokenize(tokenizer: Any, text: str, most: int | None) -> Any:
    """Tokenize a text, cut to `most` tokens. One thread at a time; the tokenizer's own settings stay."""
    with _TOKENIZING, _keep_settings(tokenizer):
        return tokenizer(text, truncation=most is not None, max_length=most, return_attention_mask=False, verbose=False)


@contextmanager
def _keep_settings(tokenizer: Any) -> Iterator[None]:
    """Restore the owner's cutting and padding afterwards: a fast tokenizer keeps the last call's."""
    inner = getattr(tokenizer, "backend_tokenizer", None)
    if inner is None:
        yield
        return
    cutting, padding = inner.truncation, inner.padding
    try:
        yield
    finally:
        if inner.truncation != cutting:
            inner.no_truncation() if cutting is None else inner.enable_truncation(**cutting)
        if inner.padding != padding:
            inner.no_padding() if padding is None else inner.enable_padding(**padding)


def is_tokenizer(value: Any) -> bool:
    """Return whether it is a Hugging Face tokenizer, which is recognised, never imported."""
    return all(hasattr(value, name) for name in ("convert_tokens_to_ids", "model_max_length", "get_vocab"))


def position_limit(module: nn.Module) -> int | None:
    """Return how many tokens a network has positions for; None where they are relative, or unknown."""
    declared = getattr(getattr(module, "config", None), "max_position_embeddings", None)
    for name, part in module.named_modules():
        if isinstance(part, nn.Embedding) and name.rsplit(".", 1)[-1] in _POSITIONS:
            first = 0 if part.padding_idx is None else part.padding_idx + 1  # RoBERTa counts from after its padding
            positions = part.num_embeddings - first
            return positions if declared is None else min(positions, declared)  # OPT and BART skip two more
    return declared


def fitting_length(tokenizer: Any, module: nn.Module, wanted: int | None = None) -> int | None:
    """Return the smallest of the limit asked for, the tokenizer's and the network's."""
    limits = [wanted, tokenizer.model_max_length, position_limit(module)]
    known = [limit for limit in limits if limit is not None and 0 < limit < _NO_LIMIT]
    return min(known, default=None)
