"""Class prompts as a head: from an image's embedding to how well each class' name describes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from sporeprint.backbones.own_head import frozen_linear
from sporeprint.backbones.twin import Twin
from sporeprint.errors import BackboneError, RecipeError
from sporeprint.gradients.switches import own_settings
from sporeprint.values import check_list


@own_settings()
@torch.no_grad()
def prompt_head(
    model: Any, tokenizer: Any, classes: Sequence[str], templates: Sequence[str] = ("a photo of a {}.",)
) -> nn.Linear:
    """Return a frozen linear layer [C, E] from a CLIP image embedding [N, E], before its projection, to class logits.

    model: with both towers, such as CLIPModel. tokenizer: its own. classes: C names. templates: texts with {} for the
    name; a class is the mean of its normalised texts, normalised again. Row c of the weight is the class' text [P],
    times the visual projection [P, E], times the logit scale.

    There is no bias, so `head(embedding).argmax(dim=-1)` is CLIP's zero-shot answer for an embedding of any length. On
    a normalised one, as an objective's head has it, the logits are CLIP's own times the length of its projection.
    Raises BackboneError, RecipeError.

    Examples
    --------
    >>> from tokenizers import Tokenizer
    >>> from tokenizers.models import WordLevel
    >>> from tokenizers.pre_tokenizers import Whitespace
    >>> from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast
    >>> from sporeprint import KL, Backbone, Fungi, Preprocess, Recipe, prompt_head
    >>> small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    >>> words = {word: at for at, word in enumerate(["-", "end", "a", "photo", "of", "cat", "dog"])}
    >>> inner = Tokenizer(WordLevel(words, unk_token="-"))
    >>> inner.pre_tokenizer = Whitespace()
    >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="-", eos_token="end")
    >>> text = small | {"vocab_size": 7, "max_position_embeddings": 8, "eos_token_id": 1}
    >>> clip = CLIPModel(CLIPConfig(text_config=text, vision_config=small | {"image_size": 16, "patch_size": 8}))
    >>> fungi = Fungi(Recipe(objectives=[KL()]), backbone=Backbone(clip, preprocess=Preprocess(size=16)))
    >>> fungi.heads["kl"] = prompt_head(clip, tokenizer, ["cat", "dog"], ["a photo of a {} end"])
    >>> fungi.heads["kl"]
    Linear(in_features=8, out_features=2, bias=False)
    """
    projection: Any = getattr(model, "visual_projection", None)
    scale: Any = getattr(model, "logit_scale", None)
    plain = isinstance(projection, nn.Linear) and projection.bias is None and isinstance(scale, Tensor)
    if not plain or not hasattr(model, "get_text_features"):
        raise BackboneError(
            f"a {type(model).__name__} has no text tower and linear visual projection as CLIP does; give a CLIPModel "
            "with its text tower"
        )
    names = check_list("classes", classes, "['cat', 'dog']")
    texts = check_list("templates", templates, "['a photo of a {}.']")
    for what, values in (("classes", names), ("templates", texts)):
        if not values or not all(isinstance(value, str) for value in values):
            raise RecipeError(f"{what}={values!r}; expected at least one text")
    if without := [text for text in texts if "{}" not in text]:
        raise RecipeError(f"template {without[0]!r} has no {{}}; expected it where the class' name stands")
    with Twin([model]) as twin:
        towers = twin(model)
        described = [_describe(towers, tokenizer, [text.replace("{}", name) for text in texts]) for name in names]
    return frozen_linear(scale.exp() * torch.stack(described) @ projection.weight)


def _describe(model: Any, tokenizer: Any, texts: list[str]) -> Tensor:
    """Return [P], the mean direction of texts."""
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    tokens, most = batch["input_ids"].shape[1], model.config.text_config.max_position_embeddings
    if tokens > most:
        raise RecipeError(f"a prompt like {texts[0]!r} has {tokens} tokens; the text tower takes {most}: shorten it")
    device = model.logit_scale.device
    found = model.get_text_features(
        input_ids=batch["input_ids"].to(device), attention_mask=batch["attention_mask"].to(device)
    )
    features = getattr(found, "pooler_output", found)  # a tensor before transformers 5
    return normalize(normalize(features, dim=-1).mean(dim=0), dim=0)
