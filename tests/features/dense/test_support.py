from __future__ import annotations

import numpy as np
import pytest
import torch

from small import noise_pictures, small_backbone
from sporeprint import Dense, Fungi, Recipe, TokenKL, TokenSimCLR
from sporeprint.data.images import content_digest
from sporeprint.errors import NotFitted, RecipeError
from sporeprint.features.dense.support import Support, least, owner_of

BANK = torch.tensor([[2.0, 0.0], [0.0, 3.0], [5.0, 5.0], [-1.0, 0.0]])
OWNERS = torch.tensor([owner_of(image) for image in ("a", "b", "b", "c")])
TOKENS = torch.tensor([[1.0, 0.1], [0.2, 9.0], [1.0, 0.9]])


class Never:
    """A generator whose numbers keep everything."""

    def random(self, count: int) -> np.ndarray:
        return np.zeros(count)


def negatives(tokens: torch.Tensor = TOKENS, image: str = "d") -> list[list[float]]:
    return Support(BANK, OWNERS).negatives(TokenSimCLR(), tokens, owner_of(image), Never()).tolist()  # type: ignore[arg-type]


def test_the_nearest_by_cosine_come_first_and_keep_their_length() -> None:
    assert Support(BANK, OWNERS).nearest(TOKENS, 2).tolist() == [[0, 2], [1, 2], [2, 0]]
    assert negatives() == [[2, 0], [5, 5], [0, 3], [5, 5], [5, 5], [2, 0]]


def test_an_image_does_not_find_itself() -> None:
    assert Support(BANK, OWNERS).nearest(TOKENS, 2, owner_of("b")).tolist() == [[0, 3], [0, 3], [0, 3]]
    assert negatives(TOKENS[1:2], "b") == [[2, 0], [-1, 0]]


def test_an_image_does_not_find_itself_under_another_id_either() -> None:
    pictures = noise_pictures(4)
    dense = Dense(size=32)
    fungi = Fungi(Recipe(dtype="float32", dense=dense), backbone=small_backbone()).fit_dense(pictures, list("abcd"))
    engine = fungi.patches.engine
    support = engine.support
    assert support is not None
    tokens = engine.plain([("another", pictures[2])])[0]
    nearest = support.nearest(tokens, 2, engine.owner_of(pictures[2]))
    assert not (support.owners[nearest] == owner_of(content_digest(pictures[2]))).any()
    assert (support.owners[support.nearest(tokens, 1)] == owner_of(content_digest(pictures[2]))).all()


def test_a_support_of_one_image_alone_gives_no_negatives() -> None:
    pictures = noise_pictures(2)
    fungi = Fungi(Recipe(dtype="float32", dense=Dense(size=32)), backbone=small_backbone())
    with pytest.warns(UserWarning, match="fitted on one image alone"):
        fungi.fit_dense(pictures[:1])
    without = Dense(objectives=(TokenSimCLR(neighbours=0),), size=32)
    other = Fungi(Recipe(dtype="float32", dense=without), backbone=small_backbone()).fit_dense(pictures)
    np.testing.assert_allclose(fungi.dense(pictures), other.dense(pictures), atol=1e-5)


def test_fewer_neighbours_where_there_are_fewer_tokens_of_others() -> None:
    assert Support(BANK[:2], OWNERS[:2]).nearest(TOKENS, 5, owner_of("a")).tolist() == [[1], [1], [1]]


def test_what_is_kept_is_drawn_by_the_given_generator() -> None:
    objective = TokenSimCLR(kept=0.5)
    rng = np.random.default_rng(0)
    kept = np.random.default_rng(0).random(6) < 0.5
    drawn = Support(BANK, OWNERS).negatives(objective, TOKENS, owner_of("d"), rng)
    assert drawn.tolist() == [row for row, keep in zip(negatives(), kept, strict=True) if keep]


def test_the_draw_of_images_does_not_depend_on_their_order() -> None:
    ids = [f"image {at}" for at in range(50)]
    assert least(0, ids, 7) == least(0, ids[::-1], 7)
    assert least(0, ids, 7) != least(1, ids, 7)
    assert least(0, ids[:3], 7) == least(0, ids[:3], 3)


def test_the_support_is_of_the_fitting_images_plain_tokens() -> None:
    pictures = noise_pictures(3)
    fungi = Fungi(Recipe(dtype="float32", dense=Dense(size=32, support=21)), backbone=small_backbone())
    fungi.fit_dense(pictures, ["a", "b", "c"])
    support = fungi.patches.engine.support
    assert support is not None
    digests = [content_digest(picture) for picture in pictures]
    assert sorted(support.owners.tolist()) == sorted(7 * list(map(owner_of, digests)))
    images = torch.stack([fungi.network.preprocess.at(picture, 32, 32) for picture in pictures])
    tokens = fungi.network.module(images)[:, 1:].detach().flatten(0, 1)
    distances = (support.tokens.unsqueeze(1) - tokens).norm(dim=2).amin(dim=1)
    assert float(distances.max()) < 1e-5


def test_negatives_need_a_fit_and_kl_does_not() -> None:
    pictures = noise_pictures(2)
    with pytest.raises(NotFitted, match="fit_dense"):
        Fungi(Recipe(dense=Dense(size=32)), backbone=small_backbone()).dense(pictures)
    alone = Fungi(Recipe(dense=Dense(objectives=(TokenKL(),), size=32)), backbone=small_backbone())
    assert alone.dense(pictures).shape == (2, 4, 4, 32)


@pytest.mark.parametrize(
    "settings",
    [
        {"objectives": "simclr"}, {"objectives": (TokenSimCLR,)}, {"objectives": (TokenKL(), TokenKL())},
        {"layers": (0,)}, {"layers": 3}, {"copies": 2}, {"size": (32,)}, {"size": "32x32"}, {"size": 0},
        {"combination": "no such"}, {"support": 0}, {"fit_images": True},
        {"objectives": (TokenKL(name="patches-1"),)}, {"objectives": (TokenKL(name="a@b"),)},
    ],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused(settings: dict) -> None:
    with pytest.raises(RecipeError):
        Dense(**settings)


def test_settings_survive_json_and_leave_other_recipes_as_they_were() -> None:
    from sporeprint import Copies

    dense = Dense(objectives=(TokenSimCLR(kept=0.25), TokenKL()), layers=(6, -1), size=512, copies=Copies(2, True))
    recipe = Recipe(backbone="tiny", dense=dense)
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert "dense" not in Recipe(backbone="tiny").to_json()
    assert recipe.blocks_json() == Recipe(backbone="tiny").blocks_json()
