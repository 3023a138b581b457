import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.utils.data import Dataset, TensorDataset

from small import noise_pictures, small_backbone
from small_text import ENCODERS, TEXTS, wordpiece
from sporeprint import KL, Dense, Fungi, Recipe
from sporeprint.backbones.backbone import Backbone
from sporeprint.backbones.inputs.tokens import Tokens
from sporeprint.data.rows import ListSource
from sporeprint.errors import SampleError, SourceError, SporeprintWarning, TooManyFailures
from sporeprint.features.batches import as_rows

RECIPE = Recipe(objectives=[KL(latent=8)], layers=1, dense=Dense(objectives=[], size=(32, 32)))


class Pairs(Dataset):
    def __init__(self, samples):
        self.samples = samples

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, number):
        return self.samples[number], number


@pytest.fixture(scope="module")
def of_texts():
    backbone = Backbone(ENCODERS[0].build(), preprocess=Tokens(wordpiece()))
    return Fungi(RECIPE, backbone=backbone, max_failures=0.5)


@pytest.fixture(scope="module")
def of_images():
    return Fungi(RECIPE, backbone=small_backbone(), max_failures=0.5)


@pytest.fixture(scope="module")
def pictures():
    return noise_pictures(5)


def text_columns():
    texts = TEXTS[:4]
    yield from (np.array(texts)[:, None], pa.array(texts), pa.table({"t": texts}), iter(texts), Pairs(texts))


def test_texts_of_every_library_have_the_features_of_their_list(of_texts):
    expected = of_texts.fit_transform(TEXTS[:4])
    blocks = of_texts.blocks(TEXTS[:4])
    for column in text_columns():
        np.testing.assert_array_equal(of_texts.fit_transform(column), expected)
    for column in text_columns():
        np.testing.assert_array_equal(of_texts.transform(column), expected)
    for column in text_columns():
        np.testing.assert_array_equal(of_texts.blocks(column)["kl"], blocks["kl"])


def test_images_of_every_kind_of_array_have_the_features_of_their_list(of_images, pictures):
    pictures = [picture.resize((32, 32)) for picture in pictures]
    expected = of_images.fit_transform(pictures)
    arrays = np.stack([np.asarray(picture) for picture in pictures])
    tensor = torch.from_numpy(arrays).permute(0, 3, 1, 2).contiguous()
    objects = np.empty((5, 1), dtype=object)
    objects[:, 0] = pictures
    labels = torch.arange(5)
    for samples in (arrays, tensor, objects, Pairs(pictures), TensorDataset(tensor), TensorDataset(tensor, labels)):
        np.testing.assert_array_equal(of_images.fit_transform(samples), expected)


def test_patches_take_what_images_are_taken_from(of_images, pictures):
    expected = of_images.fit_dense(pictures).dense(pictures)
    np.testing.assert_array_equal(of_images.fit_dense(Pairs(pictures)).dense(Pairs(pictures)), expected)
    with pytest.raises(SampleError, match="which is one image"):
        of_images.dense(np.asarray(pictures[0]))


def test_a_missing_value_costs_its_own_row_and_is_named(of_texts):
    features = of_texts.fit(TEXTS[:4])
    with pytest.warns(SporeprintWarning, match=r"1 of 3 rows are NaN: row 1: no text: got null \(an empty cell\)"):
        features = of_texts.transform(pa.array([TEXTS[0], None, TEXTS[1]]))
    assert np.isnan(features).all(axis=1).tolist() == [False, True, False]
    assert [failure.id for failure in of_texts.failures] == ["row 1"]


def test_an_item_that_a_dataset_cannot_read_costs_its_own_row(of_images, pictures):
    class Broken(Pairs):
        def __getitem__(self, number):
            if number == 2:
                raise OSError("image file is truncated")
            return super().__getitem__(number)

    with pytest.warns(SporeprintWarning, match="row 2: the dataset cannot give item 2: image file is truncated"):
        features = of_images.fit_transform(Broken(pictures))
    assert np.isnan(features).all(axis=1).tolist() == [False, False, True, False, False]


def test_pairs_of_texts_are_refused_not_read_as_the_first_of_them(of_texts):
    class Two(Pairs):
        def __getitem__(self, number):
            return self.samples[number], "another text"

    with pytest.raises(TooManyFailures, match=r"a tuple of 2 \(str, str\)"):
        of_texts.fit(Two(TEXTS[:4]))


def test_rows_that_open_source_opened_keep_their_ids(of_texts):
    source = ListSource(TEXTS[:3], ids=["a", "b", "c"])
    assert as_rows(source, None) == list(zip("abc", TEXTS[:3], strict=True))
    np.testing.assert_array_equal(of_texts.blocks(source)["kl"], of_texts.blocks(TEXTS[:3], ["a", "b", "c"])["kl"])


def test_ids_come_from_columns_too_and_none_may_be_missing():
    assert as_rows(["x", "y"], pa.array(["a", "b"])) == [("a", "x"), ("b", "y")]
    assert as_rows(["x", "y"], np.array([[1], [2]])) == [("1", "x"), ("2", "y")]
    with pytest.raises(SampleError, match="row 1 has no id"):
        as_rows(["x", "y"], pa.array(["a", None]))


def test_a_list_source_takes_columns_and_says_what_is_none():
    source = ListSource(pa.array(["x", "y"]), labels=np.array([[1], [2]]), ids=pa.array(["a", "b"]))
    assert [(row.id, row.sample, row.label) for row in source.rows()] == [("a", "x", 1), ("b", "y", 2)]
    assert source.digest() == ListSource(["x", "y"], labels=[1, 2], ids=["a", "b"]).digest()
    with pytest.raises(SourceError, match="samples is a dict"):
        ListSource({"text": ["x"]})


def test_a_list_source_of_a_dataset_has_the_digest_of_its_samples(of_texts):
    assert ListSource(Pairs(TEXTS[:3])).digest() == ListSource(TEXTS[:3]).digest()


def test_a_frame_of_pandas_has_the_features_of_its_column(of_texts):
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"text": TEXTS[:4]}, index=[3, 3, 1, 0])
    expected = of_texts.fit_transform(TEXTS[:4])
    np.testing.assert_array_equal(of_texts.fit_transform(frame), expected)
    np.testing.assert_array_equal(of_texts.transform(frame["text"]), expected)
    frame["label"] = 1
    with pytest.raises(SampleError, match=r"2 columns \('text', 'label'\)"):
        of_texts.transform(frame)


def test_a_hugging_face_dataset_has_the_features_of_its_images(of_images, pictures):
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_dict({"image": pictures, "caption": ["a"] * 5}).cast_column("image", datasets.Image())
    expected = of_images.fit_transform(pictures)
    for samples in (rows, rows["image"], rows["image"][:], rows.to_iterable_dataset()):
        np.testing.assert_array_equal(of_images.fit_transform(samples), expected)
