"""Banks that label: against a loop over patches, and on pictures that any network tells apart."""

import sys
import tracemalloc

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import jaccard_score

import sporeprint
from small import small_backbone
from small_streets import ROAD, SKY, VOID, street
from sporeprint import Combination, Copies, Dense, Fungi, Recipe
from sporeprint.errors import MissingExtra, NotFitted, RecipeError, SampleError, StoreError, TooManyFailures
from sporeprint.segment.augment import augmented, crop_box
from sporeprint.segment.bank import MemoryBank
from sporeprint.segment.labeller import GRID_NEIGHBOURS, GRID_TEMPERATURES, Chosen, Labeller, Voting
from sporeprint.segment.segmenter import Segmenter
from sporeprint.segment.training import Sampling, Truth, _pixels

C = 3


def plain_labeller(**settings):
    """On a block "embedding" of 4 numbers."""
    combiner = Combination(("embedding",)).fit({"embedding": np.eye(4, dtype=np.float32)})
    return Labeller(combiner, C, 1000, **settings)


def noise(seed, grid=(4, 5)):
    """Blocks and histograms of an image whose labels have something to do with its features."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, C, grid)
    features = rng.normal(size=(*grid, 4)) + 1.2 * np.eye(4)[labels]
    return {"embedding": features.astype(np.float32)}, np.eye(C, dtype=np.float32)[labels]


def filled(labeller, images=4):
    everything = np.arange(20)
    for number in range(images):
        maps, histograms = noise(number)
        half = everything[::2]
        judged = half, histograms.reshape(-1, C)[half].argmax(axis=1)
        labeller.add(maps, histograms, f"image {number}", everything, half, judged)
    labeller.close()
    return labeller


def said_slowly(images, k, temperature):
    """Truth and answers of every second patch, asked of the other images, patch by patch."""
    parts = [noise(number) for number in range(images)]
    features = [part["embedding"].reshape(20, 4).astype(float) for part, _ in parts]
    features = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in features]
    labels = [histograms.reshape(20, C).argmax(axis=1) for _, histograms in parts]
    truth, answers = [], []
    for own in range(images):
        others = np.concatenate([features[image] for image in range(images) if image != own])
        theirs = np.concatenate([labels[image] for image in range(images) if image != own])
        for patch in range(0, 20, 2):
            cosines = others @ features[own][patch]
            nearest = np.argsort(-cosines)[:k]
            votes = np.zeros(C)
            np.add.at(votes, theirs[nearest], np.exp(cosines[nearest] / temperature))
            truth.append(labels[own][patch])
            answers.append(votes.argmax())
    return truth, answers


@pytest.mark.parametrize("folder", [None, "bank"])
def test_auto_asks_each_training_image_of_the_others(tmp_path, folder):
    where = None if folder is None else tmp_path / folder
    chosen = filled(plain_labeller(voting=Voting("auto", "auto", dtype="float32"), folder=where)).chosen
    scores = {
        (k, temperature): jaccard_score(*said_slowly(4, k, temperature), average="macro")
        for k in GRID_NEIGHBOURS
        for temperature in GRID_TEMPERATURES
    }
    assert chosen.score == pytest.approx(max(scores.values()))
    assert scores[chosen.neighbours, chosen.temperature] == max(scores.values())
    assert chosen.pixels == 40


def test_auto_of_one_of_the_two_leaves_the_other():
    chosen = filled(plain_labeller(voting=Voting("auto", 0.3))).chosen
    scores = {k: jaccard_score(*said_slowly(4, k, 0.3), average="macro") for k in GRID_NEIGHBOURS}
    assert chosen.temperature == 0.3
    assert chosen.score == pytest.approx(max(scores.values()))


def test_kinds_are_judged_by_the_same_pixels_on_every_grid():
    labels = np.array([[0, 0, 1, 255], [2, 2, 1, 1]], dtype=np.int32)
    fine, coarse = (_pixels(labels, grid, Truth(3, (255,)), np.random.default_rng(0)) for grid in ((2, 4), (1, 2)))
    assert sorted(fine[0].tolist()) == [0, 1, 2, 4, 5, 6, 7]  # the pixels themselves, but for the void one
    assert fine[1].tolist() == coarse[1].tolist() == labels.ravel()[fine[0]].tolist()
    assert coarse[0].tolist() == [at % 4 // 2 for at in fine[0]]


def test_one_training_image_has_no_others_to_ask():
    with pytest.warns(UserWarning, match="'auto' needs two training images"):
        assert filled(plain_labeller(voting=Voting("auto", "auto")), images=1).chosen == Chosen(30, 0.02)


def test_a_patch_is_labelled_by_its_nearest_in_the_bank():
    labeller = plain_labeller(voting=Voting(1, 0.02))
    maps = {"embedding": np.eye(4, dtype=np.float32)[None]}  # [1, 4, 4]
    labeller.add(maps, np.eye(C, dtype=np.float32)[[0, 1, 2, 1]][None], "a", np.array([0, 1, 2]))
    labeller.close()
    asked = {"embedding": np.eye(4, dtype=np.float32)[[2, 2, 0, 1]].reshape(2, 2, 4) * 7}
    assert labeller.labels(asked, (2, 2)).tolist() == [[2, 2], [0, 1]]


def test_a_bank_on_disk_knows_where_its_patches_are_from(tmp_path):
    filled(plain_labeller(folder=tmp_path / "bank"))
    bank = MemoryBank.open(tmp_path / "bank")
    table = bank.patches().to_pydict()
    assert len(bank) == 80
    assert (table["image"][23], table["row"][23], table["column"][23]) == ("image 1", 0, 3)


def test_a_bank_without_patches_is_refused():
    labeller = plain_labeller()
    maps, histograms = noise(0)
    labeller.add(maps, histograms, "a", np.array([], np.int64))
    with pytest.raises(SampleError, match="which values are void"):
        labeller.close()


@pytest.mark.parametrize(("images", "epochs", "patches"), [(3, 1, 10), (7, 4, 5), (4, 2, 1000)])
def test_the_shares_of_all_looks_are_the_bank(images, epochs, patches):
    sampling = Sampling(patches, epochs=epochs)
    shares = [sampling.share(number, images) for number in range(images * epochs)]
    assert sum(shares) == patches
    assert max(shares) - min(shares) <= 1


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"neighbours": 0}, "neighbours=0"),
        ({"neighbours": 2.5}, "neighbours=2.5"),
        ({"temperature": 0}, "temperature=0"),
        ({"temperature": "cold"}, "temperature='cold'"),
        ({"index": "quick"}, "no index is called 'quick'"),
    ],
)
def test_voting_that_cannot_be_is_refused(wrong, says):
    with pytest.raises(RecipeError, match=says):
        Voting(**wrong)


# Augmentation


def test_the_first_look_is_the_image_itself():
    image, labels = street(0)
    assert augmented(image, labels, 0, "a", 0) == (image, labels)


@pytest.mark.parametrize("epoch", range(1, 9))
def test_image_and_labels_are_cut_alike(epoch):
    labels = np.zeros((40, 60), np.int32)
    labels[10:25, 20:45], labels[30:, :10] = 1, 1
    image = Image.fromarray((labels * 200 + 20).astype(np.uint8)).convert("RGB")
    cut, cut_labels = augmented(image, labels, 3, "a", epoch)
    light = np.asarray(cut)[..., 0].astype(int)
    assert cut.size == (60, 40)
    assert cut_labels.shape == (40, 60)
    middle = (light.max() + light.min()) / 2
    assert ((light > middle) == (cut_labels == 1)).mean() > 0.96  # but for a pixel along the borders


def test_looks_are_seeded_by_seed_id_and_epoch():
    image, labels = street(0)

    def look(*seeded):
        return np.asarray(augmented(image, labels, *seeded)[0]).tobytes()

    assert look(0, "a", 1) == look(0, "a", 1)
    assert len({look(0, "a", 1), look(1, "a", 1), look(0, "b", 1), look(0, "a", 2)}) == 4


def test_crops_have_the_area_and_shape_that_they_should():
    rng = np.random.default_rng(0)
    for left, top, wide, high in (crop_box(400, 300, rng) for _ in range(200)):
        assert left + wide <= 400
        assert top + high <= 300
        assert 0.29 < wide * high / (400 * 300) <= 1
        assert 0.74 < (wide / 400) / (high / 300) < 1.35


# The library's way


@pytest.fixture(scope="module")
def pictures():
    pairs = [street(number) for number in range(6)]
    return [image for image, _ in pairs], [labels for _, labels in pairs]


def fungi(**dense):
    recipe = Recipe(objectives=(), dense=Dense(objectives=(), size=(32, 48), **dense))
    return Fungi(recipe, small_backbone())


def right(labels, truth):
    return (labels == truth)[truth != VOID].mean()


@pytest.mark.parametrize("settings", [{}, {"epochs": 3}, {"sampling": "uniform"}, {"folder": "bank"}])
def test_new_pictures_are_labelled(pictures, settings, tmp_path):
    if "folder" in settings:
        settings = {"folder": tmp_path / "bank"}
    segmenter = Segmenter(fungi(), ignore=(VOID,), neighbours=5, **settings).fit(*pictures)
    image, truth = street(20, size=(70, 50))
    (labels,) = segmenter.predict([image])
    assert labels.shape == truth.shape
    assert set(np.unique(labels)) == {SKY, ROAD}
    assert right(labels, truth) > 0.85


@pytest.mark.parametrize(("sampling", "low", "high"), [("balanced", 5, 6), ("uniform", 0, 3)])
def test_patches_of_a_rare_class_come_first_unless_all_are_alike(sampling, low, high):
    pairs = [street(number) for number in range(6)]
    for _, labels in pairs:
        labels[-8:, -8:] = 2  # one patch of 24
    segmenter = Segmenter(fungi(), ignore=(VOID,), bank=30, sampling=sampling)
    segmenter.fit([image for image, _ in pairs], [labels for _, labels in pairs])
    rare = (bank_of(segmenter).histograms[:, 2] > 0).sum()
    assert low <= rare <= high


@pytest.mark.parametrize(("epochs", "bank", "patches"), [(1, 1000, 144), (3, 1000, 432), (3, 100, 100)])
def test_every_look_adds_its_patches_until_the_bank_is_full(pictures, epochs, bank, patches):
    """Six images of 4 x 6 patches, none of them all void."""
    assert len(bank_of(Segmenter(fungi(), ignore=(VOID,), epochs=epochs, bank=bank).fit(*pictures))) == patches


def bank_of(segmenter):
    return segmenter._labeller().bank


def test_copies_and_gradients_are_asked_for_by_the_recipe(pictures):
    recipe = Recipe(
        objectives=(), dense=Dense(size=(32, 48), copies=Copies(flip=True), layers=(1,), support=100), size=8
    )
    segmenter = Segmenter(Fungi(recipe, small_backbone()), ignore=(VOID,), bank=60, neighbours=5).fit(*pictures)
    assert right(segmenter.predict([street(20)[0]])[0], street(20)[1]) > 0.8


def test_it_does_not_matter_how_images_come_together(pictures):
    images = [street(number)[0] for number in range(20, 24)]
    together = Segmenter(fungi(), ignore=(VOID,), bank=50).fit(*pictures).predict(images)
    single = fungi()
    single.batch_size = 1
    alone = Segmenter(single, ignore=(VOID,), bank=50).fit(*pictures)
    for image, labels in zip(images, together, strict=True):
        assert (alone.predict([image])[0] == labels).mean() > 0.999


def test_auto_is_told(pictures):
    segmenter = Segmenter(fungi(), ignore=(VOID,), neighbours="auto", temperature="auto").fit(*pictures)
    assert segmenter.chosen.neighbours in GRID_NEIGHBOURS
    assert segmenter.chosen.score > 0.7


def test_an_image_that_cannot_be_read_costs_its_own_row(pictures):
    segmenter = Segmenter(fungi(), ignore=(VOID,)).fit(*pictures)
    results = segmenter.predict([street(20)[0], b"no image", street(21)[0]])
    assert [labels is None for labels in results] == [False, True, False]
    assert [failure.id for failure in segmenter.failures] == ["1"]
    segmenter.fungi.max_failures = 0
    with pytest.raises(TooManyFailures):
        segmenter.predict([b"no image"])


def test_what_cannot_be_fitted_is_refused(pictures):
    images, masks = pictures
    with pytest.raises(NotFitted):
        Segmenter(fungi()).predict(images)
    with pytest.raises(SampleError, match="6 images, 5 masks"):
        Segmenter(fungi()).fit(images, masks[:5])
    with pytest.raises(TooManyFailures, match="label value 255"):
        Segmenter(fungi(), classes=2, ignore=()).fit(images, masks)
    with pytest.raises(RecipeError, match="expected Fungi"):
        Segmenter("facebook/dinov2-small")


def test_it_is_a_public_name():
    assert sporeprint.Segmenter is Segmenter


@pytest.mark.parametrize("capacity", [8000, 10**9])
def test_a_bank_in_ram_exists_once(capacity):
    names, width, count = ("embedding",), 128, 8000
    combiner = Combination(names).fit({"embedding": np.eye(width, dtype=np.float32)})
    labeller = Labeller(combiner, C, capacity)
    rng = np.random.default_rng(0)
    labels = np.eye(C, dtype=np.float32)[rng.integers(0, C, (10, 20))]
    parts = rng.normal(size=(count // 200, 10, 20, width)).astype(np.float32)
    tracemalloc.start()
    try:
        for number, part in enumerate(parts):
            labeller.add({"embedding": part}, labels, f"image {number}", np.arange(200))
        labeller.close()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    rows = parts.reshape(-1, width).astype(float)
    expected = rows / np.sqrt((rows**2).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(labeller.bank.features, expected, atol=1e-6)
    assert peak < 1.7 * parts.nbytes


def test_a_bank_in_ram_takes_no_more_than_its_capacity():
    labeller = plain_labeller()
    labeller.capacity = 30
    maps, histograms = noise(0)
    labeller.add(maps, histograms, "first", np.arange(20))
    with pytest.raises(SampleError, match="would make 40; the bank takes 30"):
        labeller.add(maps, histograms, "second", np.arange(20))
    labeller.close()
    assert len(labeller.bank) == 20
    with pytest.raises(StoreError, match="is finished"):
        labeller.add(maps, histograms, "third", np.arange(5))


def test_a_segmenter_keeps_the_features_that_it_was_fitted_with(pictures):
    recipe = Recipe(objectives=(), dense=Dense(size=(32, 48), support=100))
    shared = Fungi(recipe, small_backbone())
    segmenter = Segmenter(shared, ignore=(VOID,)).fit(*pictures)
    image = street(20)[0]
    (before,) = segmenter._group.maps([image], ["one"])
    others = [street(number) for number in range(30, 34)]
    Segmenter(shared, ignore=(VOID,)).fit([image for image, _ in others], [labels for _, labels in others])
    shared.fit_dense([image for image, _ in others])
    (after,) = segmenter._group.maps([image], ["one"])
    assert len(before) > 1
    for name, values in before.items():
        np.testing.assert_array_equal(after[name], values)


def test_a_fit_that_fails_leaves_its_folder_free(pictures, tmp_path):
    images, masks = pictures
    segmenter = Segmenter(fungi(), classes=2, ignore=(VOID,), folder=tmp_path / "bank")
    with pytest.raises(SampleError, match="the bank is empty") as kept:
        segmenter.fit(images, [np.full_like(mask, VOID) for mask in masks])
    segmenter.fit(images, masks)
    assert len(MemoryBank.open(tmp_path / "bank")) == 144
    assert kept.tb is not None


def test_a_second_fit_replaces_its_own_bank_and_no_other(pictures, tmp_path):
    images, masks = pictures
    segmenter = Segmenter(fungi(), ignore=(VOID,), folder=tmp_path / "bank").fit(images, masks)
    segmenter.fit(images[:3], masks[:3])
    assert len(MemoryBank.open(tmp_path / "bank")) == 72
    assert segmenter.predict(images[:1])[0] is not None
    other = Segmenter(fungi(), ignore=(VOID,), folder=tmp_path / "bank")
    with pytest.raises(StoreError, match="holds a finished bank"):
        other.fit(images, [b"no mask"] * 6)
    assert len(MemoryBank.open(tmp_path / "bank")) == 72


def test_faiss_is_missed_before_any_work(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingExtra, match="pip install"):
        Voting(index="ivf")
    Voting(index="exact")
