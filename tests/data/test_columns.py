import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from sporeprint.data.columns import Item, as_list
from sporeprint.errors import SampleError

TEXTS = ["one cat", "two dogs", "a fox"]


class Items(Dataset):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, number):
        return self.items[number]


class Stream(IterableDataset):
    def __init__(self, items):
        self.items = items

    def __iter__(self):
        return iter(self.items)


class ByNumber:
    def __len__(self):
        return 3

    def __getitem__(self, number):
        return TEXTS[number]


def listed(values, what="samples", modality="text"):
    return [item.read(modality) if isinstance(item, Item) else item for item in as_list(values, what, modality)]


@pytest.mark.parametrize(
    "values",
    [
        tuple(TEXTS),
        iter(TEXTS),
        (text for text in TEXTS),
        dict.fromkeys(TEXTS).keys(),
        np.array(TEXTS),
        np.array(TEXTS, dtype=object),
        np.array(TEXTS)[:, None],
        np.array(TEXTS, dtype=object)[:, None],
        np.array([(text,) for text in TEXTS], dtype=[("text", "U9")]),
        pa.array(TEXTS),
        pa.array(TEXTS).dictionary_encode(),
        pa.chunked_array([TEXTS[:1], TEXTS[1:]]),
        pa.table({"text": TEXTS}),
        pa.record_batch({"text": TEXTS}),
        Items(TEXTS),
        Items([(text, number) for number, text in enumerate(TEXTS)]),
        Items([(text, torch.tensor(1)) for text in TEXTS]),
        Items([(text,) for text in TEXTS]),
        Subset(Items(TEXTS[::-1]), [2, 1, 0]),
        ConcatDataset([Items(TEXTS[:1]), Items(TEXTS[1:])]),
        Stream(TEXTS),
        Stream([(text, 1) for text in TEXTS]),
        ByNumber(),
    ],
)
def test_a_column_of_texts_is_their_list(values):
    assert listed(values) == TEXTS


@pytest.mark.parametrize(
    "values", [pa.array(["a", None]), np.ma.array(["a", "b"], mask=[False, True]), ["a", float("nan")]]
)
def test_a_missing_value_is_none(values):
    assert listed(values) == ["a", None]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("hello", r"samples is a str; expected a list of samples \(for one, give \[sample\]\)"),
        (b"hello", "samples is a bytes"),
        (None, "samples is a NoneType"),
        ({"text": TEXTS}, r"samples is a dict.*such as samples\['text'\]"),
        (set(TEXTS), "a set has no order"),
        (np.array("a"), "samples is one value"),
        (np.array([TEXTS, TEXTS]), r"array of shape \[2, 3\]; expected \[N\] or \[N, 1\]"),
        (np.array([(1, "a")], dtype=[("n", int), ("text", "U1")]), r"2 columns \('n', 'text'\)"),
        (pa.table({"text": TEXTS, "n": [1, 2, 3]}), r"a Table with 2 columns \('text', 'n'\).*table\['text'\]"),
        (DataLoader(Items(TEXTS)), "gives batches, perhaps shuffled; give its dataset: loader.dataset"),
    ],
)
def test_what_is_no_column_is_refused_and_says_what_to_give(values, message):
    with pytest.raises(SampleError, match=message):
        as_list(values)


def test_a_folder_given_as_samples_is_pointed_to_open_source(tmp_path):
    with pytest.raises(SampleError, match=r"open_source\(folder\)"):
        as_list(str(tmp_path))


@pytest.mark.parametrize("values", [np.array([[1], [2]]), torch.tensor([[1], [2]]), np.array([1, 2]), pa.array([1, 2])])
def test_one_column_of_labels_is_one_label_a_row(values):
    assert as_list(values, "labels") == [1, 2]


def test_a_dataset_reads_an_item_when_it_is_asked_for():
    read = []

    class Noted(Items):
        def __getitem__(self, number):
            read.append(number)
            return super().__getitem__(number)

    rows = as_list(Noted(TEXTS))
    assert read == []
    assert rows[1].read() == TEXTS[1]
    assert read == [1]


def test_an_item_that_a_dataset_cannot_give_is_a_sample_error():
    class Broken(Items):
        def __getitem__(self, number):
            raise OSError("truncated file")

    rows = as_list(Broken(TEXTS))
    with pytest.raises(SampleError, match="cannot give item 2: truncated file"):
        rows[2].read("image")


@pytest.mark.parametrize(
    ("item", "modality"),
    [(("a", "b"), "text"), (("a", 1, 2), "text"), ((np.zeros((2, 2, 3)), np.zeros((2, 2))), "image")],
)
def test_tuples_that_are_no_pair_of_sample_and_label_are_refused(item, modality):
    (row,) = as_list(Items([item]))
    with pytest.raises(SampleError, match=r"expected a sample, or a pair of a sample and its label"):
        row.read(modality)


def test_an_image_may_come_with_a_label_of_text():
    assert as_list(Items([(b"png", "cat")]))[0].read("image") == b"png"


def test_sound_keeps_the_rate_that_its_dataset_gives_and_leaves_labels():
    wave = torch.zeros(1, 8)
    for item, expected in (((wave, 16_000), 2), ((wave, 16_000, "yes", "speaker"), 2), ((wave, 7), 8)):
        read = as_list(Items([item]))[0].read("audio")
        assert (len(read) if isinstance(read, tuple) else read.shape[-1]) == expected


@pytest.mark.parametrize(
    "array",
    [np.zeros((8, 9, 3), np.uint8), np.zeros((8, 9, 1)), np.zeros((8, 9)), torch.zeros(3, 8, 9), torch.zeros(8, 9, 4)],
)
def test_one_image_is_not_taken_for_a_list_of_its_rows(array):
    with pytest.raises(SampleError, match=r"which is one image.*for one, give \[image\]"):
        as_list(array, modality="image")


def test_one_waveform_is_not_taken_for_a_list_of_numbers():
    with pytest.raises(SampleError, match=r"one waveform: give \[waveform\]"):
        as_list(np.zeros(99), modality="audio")


@pytest.mark.parametrize("shape", [(2, 8, 9, 3), (2, 3, 8, 9), (2, 8, 9), (1, 8, 9)])
@pytest.mark.parametrize("array", [np.zeros, torch.zeros, lambda shape: TensorDataset(torch.zeros(shape))])
def test_arrays_of_images_are_their_rows(array, shape):
    assert [tuple(image.shape) for image in listed(array(shape), modality="image")] == [shape[1:]] * shape[0]


class TestPandas:
    pd = None

    @pytest.fixture(autouse=True)
    def _pandas(self):
        self.pd = pytest.importorskip("pandas")

    def test_a_frame_of_one_column_is_that_column(self):
        frame = self.pd.DataFrame({"text": TEXTS}, index=[7, 7, 3])
        for values in (frame, frame["text"], self.pd.Index(TEXTS), frame["text"].astype("category"), frame.values):
            assert listed(values) == TEXTS

    def test_a_frame_of_several_columns_names_them(self):
        frame = self.pd.DataFrame({"text": TEXTS, "label": [1, 2, 3]})
        with pytest.raises(SampleError, match=r"a DataFrame with 2 columns \('text', 'label'\).*such as df\['text'\]"):
            as_list(frame)
        with pytest.raises(SampleError, match="labels is a DataFrame with 2 columns"):
            as_list(frame, "labels")
        with pytest.raises(SampleError, match="without columns"):
            as_list(frame[[]])

    @pytest.mark.parametrize("dtype", [object, "string", "category", "arrow"])
    def test_missing_values_of_every_dtype_are_none(self, dtype):
        dtype = self.pd.ArrowDtype(pa.string()) if dtype == "arrow" else dtype
        series = self.pd.Series(["a", None], dtype=dtype)
        assert listed(series) == ["a", None]
        assert listed(series.array) == ["a", None]
        assert as_list(self.pd.Series([1, None], dtype="Int64"), "labels") == [1, None]


class TestPolars:
    def test_a_column_is_its_list(self):
        pl = pytest.importorskip("polars")
        for values in (pl.Series(TEXTS), pl.DataFrame({"text": TEXTS}), pl.Series(TEXTS, dtype=pl.Categorical)):
            assert listed(values) == TEXTS
        assert listed(pl.Series(["a", None])) == ["a", None]

    def test_several_columns_and_a_lazy_frame_are_refused(self):
        pl = pytest.importorskip("polars")
        frame = pl.DataFrame({"text": TEXTS, "n": [1, 2, 3]})
        with pytest.raises(SampleError, match=r"2 columns \('text', 'n'\)"):
            as_list(frame)
        with pytest.raises(SampleError, match=r"lazy\.collect\(\)"):
            as_list(frame.lazy())


class TestHuggingFace:
    ds = None

    @pytest.fixture(autouse=True)
    def _datasets(self):
        self.ds = pytest.importorskip("datasets")

    def test_a_column_of_texts_is_its_list(self):
        rows = self.ds.Dataset.from_dict({"text": TEXTS, "label": [0, 1, 2]})
        stream = rows.to_iterable_dataset()
        for values in (rows["text"], rows, rows.with_format("torch")["text"], stream, stream["text"], rows["text"][:3]):
            assert listed(values) == TEXTS
        assert as_list(rows["label"], "labels") == [0, 1, 2]
        upper = rows.with_transform(lambda batch: {"text": [text.upper() for text in batch["text"]]})
        assert listed(upper["text"]) == [text.upper() for text in TEXTS]

    def test_a_dataset_has_the_column_of_the_backbones_modality(self):
        picture = np.zeros((4, 5, 3), np.uint8)
        rows = self.ds.Dataset.from_dict({"photo": [picture] * 2, "caption": ["a", "b"]}).cast_column(
            "photo", self.ds.Image()
        )
        assert listed(rows) == ["a", "b"]
        assert set(listed(rows, modality="image")[0]) == {"bytes", "path"}
        with pytest.raises(SampleError, match=r"2 columns \('photo', 'caption'\).*dataset\['photo'\]"):
            as_list(rows)

    def test_datasets_that_leave_a_choice_are_refused(self):
        rows = self.ds.Dataset.from_dict({"title": TEXTS, "text": TEXTS})
        with pytest.raises(SampleError, match=r"a Dataset with 2 columns \('title', 'text'\)"):
            as_list(rows, modality="text")
        with pytest.raises(SampleError, match=r"a column of one split: give dataset\['train'\]"):
            as_list(self.ds.DatasetDict(train=rows))

    def test_sound_is_given_as_its_file_which_needs_no_other_decoder(self):
        file = {"path": None, "bytes": b"RIFF"}
        rows = self.ds.Dataset.from_dict({"audio": [file]}).cast_column("audio", self.ds.Audio())
        assert listed(rows, modality="audio") == listed(rows["audio"], modality="audio") == [file]
