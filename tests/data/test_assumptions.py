import io
import warnings

import numpy as np
import pytest
from PIL import Image

from sporeprint import Fungi, Limits, Recipe, Store
from sporeprint.data.assumptions import Assumptions
from sporeprint.data.images import load_image
from sporeprint.data.rows import ListSource
from sporeprint.data.sources import open_source
from sporeprint.errors import SporeprintWarning
from sporeprint.run.extract import Settings, extract

TINY = Recipe(backbone="tiny", objectives=[], layers=0)


def deep(greatest, seed=0):
    values = np.random.default_rng(seed).integers(0, greatest, (40, 40), dtype=np.uint16)
    values[0, 0] = greatest
    return values


def png(values):
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    return buffer.getvalue()


def said(samples):
    assumptions = Assumptions()
    for sample in samples:
        assumptions.add(load_image(sample))
    return assumptions.sentences()


def test_sixteen_bits_that_never_pass_twelve_are_said_once_and_a_brighter_image_ends_it():
    (sentence,) = said([deep(4095), png(deep(1000))])
    assert "none of those read now passes 4095" in sentence
    assert said([deep(4095).astype(">u2")]) == said([deep(4095).astype("<u2")]) == [sentence]
    assert said([deep(4095), deep(4096)]) == []
    assert said([png(deep(4095)), png(deep(65535))]) == []
    assert said([Image.new("RGB", (9, 9))]) == said([]) == []


def test_an_array_of_four_bands_is_said_to_be_read_as_rgba():
    (sentence,) = said([np.zeros((9, 9, 4), np.uint8), np.zeros((9, 9, 4), np.uint8)])
    assert "four bands were read as RGBA" in sentence
    assert said([Image.new("RGBA", (9, 9)), np.zeros((9, 9, 3), np.uint8)]) == []


def test_a_fungi_and_an_extraction_say_it_once_each(tmp_path):
    (tmp_path / "pictures").mkdir()
    for number in range(6):
        (tmp_path / "pictures" / f"{number}.png").write_bytes(png(deep(4000, number)))
    with pytest.warns(UserWarning, match="none of those read now passes 4000") as caught:
        Fungi(TINY).blocks([deep(4000, number) for number in range(6)])
    assert len(caught) == 1
    with pytest.warns(UserWarning, match="none of those read now passes 4000") as caught:
        extract(open_source(tmp_path / "pictures"), tmp_path / "store", TINY, settings=Settings(shard_rows=2))
    assert len(caught) == 1


def test_a_limit_costs_the_rows_beyond_it_only(tmp_path):
    small = [np.random.default_rng(seed).integers(0, 256, (30, 30, 3), dtype=np.uint8) for seed in range(3)]
    samples = [small[0], np.zeros((60, 60, 3), np.uint8), *small[1:]]
    expected = Fungi(TINY).blocks(samples)["embedding"]
    fungi = Fungi(TINY, limits=Limits(max_pixels=1000), max_failures=1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        blocks = fungi.blocks(samples)["embedding"]
    assert [failure.id for failure in fungi.failures] == ["row 1"]
    assert "--max-pixels" in fungi.failures[0].reason
    np.testing.assert_allclose(blocks[[0, 2, 3]], expected[[0, 2, 3]], atol=1e-6)  # batches differ


def test_what_was_assumed_is_said_once_the_store_is_whole(tmp_path):
    dark = [np.full((8, 8), at, np.uint16) for at in (9, 99)]
    with warnings.catch_warnings():
        warnings.simplefilter("error", SporeprintWarning)
        with pytest.raises(SporeprintWarning, match="none of those read now passes 99"):
            extract(ListSource(dark), tmp_path / "s", Recipe(backbone="tiny", objectives=[], layers=0))
    assert len(Store.open(tmp_path / "s")) == 2
