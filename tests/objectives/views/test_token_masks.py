from __future__ import annotations

import numpy as np
import pytest

from small_text import TEXTS, byte_level, wordpiece
from sporeprint.backbones.inputs.tokens import Tokens
from sporeprint.errors import BackboneError, RecipeError
from sporeprint.features.contracts import check_views
from sporeprint.objectives.views.token_masks import IGNORED, Masks
from sporeprint.values import from_json, to_json


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def test_masked_tokens_are_labelled_and_all_others_stay():
    inputs = Tokens(wordpiece())
    plain, mask = inputs(TEXTS[0])["input_ids"], inputs.tokenizer.mask_token_id
    for view in Masks(views=20)(TEXTS[0], inputs, rng()):
        hidden = [at for at, label in enumerate(view["labels"]) if label != IGNORED]
        assert hidden
        assert 0 not in hidden  # CLS
        assert len(plain) - 1 not in hidden  # SEP
        for at, token in enumerate(plain):
            assert view["input_ids"][at] == (mask if at in hidden else token)
            assert view["labels"][at] == (token if at in hidden else IGNORED)


def test_each_token_is_masked_with_the_probability_given():
    inputs = Tokens(wordpiece())
    views = Masks(views=4000, probability=0.3)(TEXTS[0], inputs, rng())
    labels = np.array([view["labels"] for view in views])[:, 1:-1]
    assert np.abs((labels != IGNORED).mean(axis=0) - 0.3).max() < 4 * (0.3 * 0.7 / 4000) ** 0.5 + 0.01


def test_text_of_one_word_has_that_word_masked():
    inputs = Tokens(wordpiece())
    (view,) = Masks(views=1, probability=0.001)("dog", inputs, rng())
    assert view["labels"] == [IGNORED, inputs("dog")["input_ids"][1], IGNORED]


def test_of_unknown_words_alone_the_words_are_masked_and_not_what_stands_around_them():
    inputs = Tokens(wordpiece())
    for view in Masks(views=20)("東 京", inputs, rng()):
        assert set(view["labels"][1:-1]) <= {inputs.tokenizer.unk_token_id, IGNORED}
        assert view["labels"][0] == view["labels"][-1] == IGNORED
        assert set(view["labels"]) != {IGNORED}


def test_the_first_views_are_those_of_fewer():
    inputs = Tokens(wordpiece())
    assert Masks(views=6)(TEXTS[1], inputs, rng())[:2] == Masks(views=2)(TEXTS[1], inputs, rng())
    assert Masks(views=6)(TEXTS[1], inputs, rng()) != Masks(views=6)(TEXTS[1], inputs, rng(1))


def test_contract_and_json():
    check_views(Masks(3), TEXTS[0], Tokens(wordpiece()))
    assert from_json(to_json(Masks(3, 0.2))) == Masks(3, 0.2)


def test_a_tokenizer_without_a_mask_token_is_refused():
    with pytest.raises(BackboneError, match="no mask token"):
        Masks()(TEXTS[0], Tokens(byte_level()), rng())


@pytest.mark.parametrize(
    ("views", "probability"), [(0, 0.1), (True, 0.1), (2.0, 0.1), (2, 0.0), (2, 1.0), (2, "a"), (2, None)]
)
def test_values_that_make_no_sense_are_refused(views, probability):
    with pytest.raises(RecipeError, match="expected"):
        Masks(views, probability)
