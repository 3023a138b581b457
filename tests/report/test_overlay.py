import io
from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from sporeprint.errors import SampleError, StoreError
from sporeprint.report.overlay import BETTER, WORSE, differences, overlay
from sporeprint.report.palette import VOID, mask_png, palette, write_mask

LABELS = np.array([[0, 0, 2], [1, 1, 255]], np.int32)
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def flat(colour, size=(6, 4)):
    return Image.new("RGB", size, colour)


def lab(colour):
    """CIE 1976 L*a*b* of an sRGB colour, white point D65."""
    share = np.array(colour) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    x, y, z = np.cbrt(to_xyz @ linear / np.array([0.9505, 1, 1.089]))  # cube roots hold above 0.009, as all these are
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("classes", [1, 11, 20, 21, 256])
def test_colours_are_bytes_and_no_two_are_the_same_nor_void(classes):
    colours = palette(classes)
    assert len(colours) == classes
    assert len({*colours, VOID}) == classes + 1
    assert np.asarray(colours).shape == (classes, 3)
    assert np.asarray(colours).min() >= 0
    assert np.asarray(colours).max() <= 255


def test_few_colours_are_far_from_each_other_and_from_void():
    apart = {pair: np.linalg.norm(lab(pair[0]) - lab(pair[1])) for pair in combinations([*palette(20), VOID], 2)}
    closest = min(apart, key=lambda pair: apart[pair])
    assert apart[closest] > 20, closest  # about 2 is what an eye can just tell apart


def test_a_label_keeps_its_colour_when_others_are_added():
    assert palette(20)[:7] == palette(7)


def test_many_colours_are_those_of_pascal_voc():
    published = {1: (128, 0, 0), 2: (0, 128, 0), 7: (128, 128, 128), 15: (192, 128, 128), 20: (0, 64, 128)}
    colours = palette(21)
    assert colours[0] == (0, 0, 0)
    assert {label: colours[label] for label in published} == published
    assert palette(256)[255] == (224, 224, 192)  # VOC's void


@pytest.mark.parametrize("classes", [0, 257, 2.0, True])
def test_a_palette_holds_1_to_256_labels(classes):
    with pytest.raises(SampleError, match="expected an integer from 1 to 256"):
        palette(classes)


def test_the_indices_of_a_mask_are_its_labels_and_its_colours_those_of_the_palette():
    image = Image.open(io.BytesIO(mask_png(LABELS, [RED, GREEN, BLUE])))
    assert (image.format, image.mode, image.size) == ("PNG", "P", (3, 2))
    assert np.asarray(image).tolist() == LABELS.tolist()
    shown = np.asarray(image.convert("RGB")).tolist()
    assert shown == [[list(RED), list(RED), list(BLUE)], [list(GREEN), list(GREEN), list(VOID)]]


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64])
def test_masks_of_two_classes_of_any_kind_are_read_back(dtype):
    labels = np.array([[0, 1], [1, 1]], dtype)
    assert np.asarray(Image.open(io.BytesIO(mask_png(labels.T, palette(2))))).tolist() == [[0, 1], [1, 1]]


@pytest.mark.parametrize(
    ("labels", "complaint"),
    [
        (np.array([[-1, 3]]), "labels go from -1 to 3; expected 0 to 255.*give void"),
        (np.array([[0, 256]]), "labels go from 0 to 256"),
        (np.zeros((2, 2)), "float64; expected whole numbers"),
        (np.zeros(4, int), r"shape \(4,\)"),
        (np.zeros((0, 4), int), r"shape \(0, 4\)"),
    ],
)
def test_labels_that_no_mask_holds_are_named(labels, complaint):
    with pytest.raises(SampleError, match=complaint):
        mask_png(labels, palette(3))


def test_a_mask_is_written_or_the_place_is_named(tmp_path):
    write_mask(tmp_path / "one.png", LABELS, palette(3))
    assert np.asarray(Image.open(tmp_path / "one.png")).tolist() == LABELS.tolist()
    assert [path.name for path in tmp_path.iterdir()] == ["one.png"]
    with pytest.raises(StoreError, match=r"one\.png"):
        write_mask(tmp_path / "one.png" / "two.png", LABELS, palette(3))


def test_colours_are_mixed_with_the_image():
    drawn = overlay(flat((100, 0, 200)), np.full((4, 6), 1), [GREEN, RED], opacity=0.25)
    assert drawn.mode == "RGB"
    assert drawn.getcolors() == [(24, (round(0.75 * 100 + 0.25 * 255), 0, 150))]


def test_an_opacity_of_0_is_the_image_and_of_1_the_mask():
    image, labels = flat((10, 20, 30)), np.zeros((4, 6), int)
    assert overlay(image, labels, [RED], 0).getcolors() == [(24, (10, 20, 30))]
    assert overlay(image, labels, [RED], 1).getcolors() == [(24, RED)]
    with pytest.raises(SampleError, match="opacity=55"):
        overlay(image, labels, [RED], 55)


def test_void_and_labels_beyond_the_palette_are_greyed():
    image = flat((0, 0, 0))
    for labels, void in ((np.full((4, 6), 255), ()), (np.zeros((4, 6), int), (0, 255))):
        assert overlay(image, labels, [RED], 1, void).getcolors() == [(24, VOID)]


def test_a_line_stands_between_segments_and_nowhere_else():
    labels = np.repeat([[0, 0, 0, 1, 1, 1]], 4, axis=0)
    labels[3] = 1
    drawn = np.asarray(overlay(flat((0, 0, 0)), labels, [RED, BLUE], 1))
    plain = np.array([RED, BLUE], np.uint8)[labels]
    lined = np.zeros((4, 6), bool)
    lined[:3, 2] = lined[2, :2] = True  # the last pixels before the change, to the right and downwards
    assert (drawn != plain).any(axis=2).tolist() == lined.tolist()
    assert (drawn[lined] > 100).all()  # light


def test_labels_are_stretched_over_a_larger_image():
    drawn = np.asarray(overlay(flat((0, 0, 0), (6, 4)), [[0, 1]], [RED, BLUE], 1))
    assert drawn[0, 0].tolist() == list(RED)
    assert drawn[3, 5].tolist() == list(BLUE)
    assert (drawn[:, 3:] == BLUE).all()


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1"])
def test_images_of_every_mode_are_overlaid(mode):
    drawn = overlay(flat((255, 255, 255)).convert(mode), np.zeros((4, 6), int), [(0, 0, 0)], 0.6)
    assert drawn.getcolors() == [(24, (102, 102, 102))]


def test_the_image_and_the_labels_are_left_as_they_were():
    image, labels = flat((100, 50, 20)), np.arange(24).reshape(4, 6)
    before = image.tobytes(), labels.tobytes()
    overlay(image, labels, palette(20), void=(3,))
    differences(image, labels, labels, labels[::-1])
    assert (image.tobytes(), labels.tobytes()) == before


def test_differences_show_who_alone_is_right():
    truth, first, second = [[0, 0, 0, 0, 9]], [[0, 1, 0, 1, 0]], [[0, 0, 1, 2, 1]]
    image = flat((40, 90, 140), (5, 1))
    drawn = np.asarray(differences(image, truth, first, second, void=(9,), opacity=1))[0].tolist()
    assert drawn[1:3] == [list(BETTER), list(WORSE)]
    assert drawn[0] == drawn[3] == drawn[4]  # both right, both wrong, void
    assert len(set(drawn[0])) == 1  # grey
