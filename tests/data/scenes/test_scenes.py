import json
import os

import numpy as np
import pytest
from PIL import Image

from small_scenes import COLOURS, LABELS, encoded, fill, indexed, mask, painted, picture, struct, table
from sporeprint.data.limits import Limits
from sporeprint.data.scenes.scenes import Scene, find_classes, open_scenes, read_scene
from sporeprint.errors import SampleError, SourceError


def seen(scenes):
    """id -> the number that the picture and the mask were made with."""
    read = {scene.id: read_scene(scene) for scene in scenes}
    return {name: (image.getpixel((0, 0))[0], labels[0, 0]) for name, (image, labels) in read.items()}


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("a.png b.jpg sub/c.png", "a.png b.png sub/c.png"),
        ("a.png b.png sub/c.png", "a_mask.png b_label.png sub/c_labelIds.png"),
        ("a_leftImg8bit.png b_leftImg8bit.png sub/c_leftImg8bit.png", "a_gtFine_labelIds.png b.png sub/c.png"),
    ],
)
def test_images_and_masks_are_paired_by_their_path_without_suffix(tmp_path, images, masks):
    scenes = open_scenes(fill(tmp_path, images=images, masks=masks))
    assert [name.removesuffix("_leftImg8bit") for name in seen(scenes)] == ["a", "b", "sub/c"]
    assert list(seen(scenes).values()) == [(0, 0), (1, 1), (2, 2)]


@pytest.mark.parametrize("names", [("img", "labels"), ("imgs", "annotations"), ("Image", "Mask")])
def test_other_usual_names_of_the_two_folders_are_known(tmp_path, names):
    fill(tmp_path, images="a.png", masks="a.png")
    for old, new in zip(("images", "masks"), names, strict=True):
        (tmp_path / old).rename(tmp_path / new)
    assert seen(open_scenes(tmp_path)) == {"a": (0, 0)}


def test_a_split_is_a_folder_above_or_below(tmp_path):
    above = fill(tmp_path / "above", train__images="a.png", train__masks="a.png")
    fill(above, test__images="b.png c.png", test__masks="b.png c.png")
    below = fill(tmp_path / "below", images__training="a.png", annotations__training="a.png")
    fill(below, images__validation="b.png c.png", annotations__validation="b.png c.png")
    assert seen(open_scenes(above, split="test")) == {"b": (0, 0), "c": (1, 1)}
    assert seen(open_scenes(below, split="validation")) == {"b": (0, 0), "c": (1, 1)}
    for folder, names in ((above, "test, train"), (below, "training, validation")):
        for split in (None, "other"):
            with pytest.raises(SourceError, match=rf"there are {names}: choose one"):
                open_scenes(folder, split=split)
    assert len(open_scenes(fill(tmp_path / "one", train__images="a.png", train__masks="a.png"))) == 1


def test_vocs_lists_choose_the_images(tmp_path):
    fill(tmp_path, JPEGImages="a.jpg b.jpg c.jpg", SegmentationClass="a.png b.png")
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("b\na\n")
    assert seen(open_scenes(tmp_path)) == {"b": (1, 1), "a": (0, 0)}
    (lists / "val.txt").write_text("c\n")
    with pytest.raises(SourceError, match="there are train, val: choose one"):
        open_scenes(tmp_path)
    assert seen(open_scenes(lists / "train.txt")) == seen(open_scenes(tmp_path, split="train"))
    with pytest.raises(SampleError, match=r"mask: there is no file 'c.png'"):
        read_scene(open_scenes(tmp_path, split="val")[0])
    assert [scene.mask for scene in open_scenes(tmp_path, split="val", masks=False)] == [None]
    assert [scene.id for scene in open_scenes(tmp_path, masks=False)] == ["a", "b", "c"]


def test_a_list_names_pairs_relative_to_its_folder(tmp_path):
    fill(tmp_path, images="a.png b.png", masks="x.png y.png")
    listed = tmp_path / "lists" / "all.txt"
    listed.parent.mkdir()
    listed.write_text("../images/b.png ../masks/x.png\n\n../images/a.png\t../masks/y.png\n")
    assert seen(open_scenes(listed)) == {"images/b": (1, 0), "images/a": (0, 1)}
    assert [scene.mask for scene in open_scenes(listed, masks=False)] == [None, None]
    for text, message in {
        "a.png b.png c.png": "line 1: 'a.png b.png c.png'; expected an image and its mask",
        "b.png\n": "line 1: 'b.png'",
        "": "lists nothing",
        "a.png m.png\na.png n.png": "ids are unique",
    }.items():
        listed.write_text(text)
        with pytest.raises(SourceError, match=message):
            open_scenes(listed)


def test_images_alone_come_from_a_flat_folder_or_from_one_of_images(tmp_path):
    fill(tmp_path / "flat_images", **{".": "a.png a.jpg sub/b.png"})
    assert [scene.id for scene in open_scenes(tmp_path / "flat_images", masks=False)] == ["a.jpg", "a.png", "sub/b"]
    paired = fill(tmp_path / "pairs", images="a.png", masks="a.png")
    assert [(scene.id, scene.mask) for scene in open_scenes(paired, masks=False)] == [("a", None)]
    fill(tmp_path / "splits", train__cat_images="a.png", test__dog_images="b.png")
    assert [scene.id for scene in open_scenes(tmp_path / "splits", split="test", masks=False)] == ["dog_images/b"]
    with pytest.raises(SourceError, match=r"are splits: \['test', 'train'\]; choose one"):
        open_scenes(tmp_path / "splits", masks=False)
    with pytest.raises(SourceError, match=r"holds no image \(1 file: 1 .npy \(a PNG image\)\); expected"):
        open_scenes(fill(tmp_path / "none", other="a.npy"), masks=False)
    rows = open_scenes(table(tmp_path / "t.parquet", mask=None), masks=False)
    assert [(scene.id, scene.mask) for scene in rows] == [(str(row), None) for row in range(5)]


def test_an_image_without_mask_is_its_own_rows_error_and_a_mask_without_image_is_counted(tmp_path):
    scenes = open_scenes(fill(tmp_path, images="a.png b.png", masks="a.png c.png"))
    assert (scenes.describe()["without_mask"], scenes.describe()["masks_unused"]) == (1, 1)
    assert [scene.id for scene in open_scenes(tmp_path, limit=1)] == ["a"]
    assert read_scene(scenes[0])[1].shape == (2, 3)
    with pytest.raises(SampleError, match="mask: there is none: no file of the image's name"):
        read_scene(scenes[1])


def test_folders_that_cannot_be_paired_say_why(tmp_path):
    with pytest.raises(SourceError, match="there is no '"):
        open_scenes(tmp_path / "absent")
    with pytest.raises(SourceError, match="holds no pairs of image and mask; expected folders 'images' and 'masks'"):
        open_scenes(fill(tmp_path / "empty", other="a.png"))
    with pytest.raises(SourceError, match=r"no folder of masks; expected one of masks, .*here are: images, truth"):
        open_scenes(fill(tmp_path / "alone", images="a.png", truth="a.png"))
    with pytest.raises(SourceError, match=r"1 images, such as 'a', and 1 masks, such as 'b'; a mask has its image's"):
        open_scenes(fill(tmp_path / "apart", images="a.png", masks="b.png"))
    with pytest.raises(SourceError, match=r"'a.bmp' and 'a.png', one name"):
        open_scenes(fill(tmp_path / "twins", images="a.png", masks="a.png a.bmp"))
    with pytest.raises(SourceError, match="has files, not columns; leave out mask_column"):
        open_scenes(fill(tmp_path / "pairs", images="a.png", masks="a.png"), mask_column="mask")


@pytest.mark.parametrize("name", ["label", "annotation", "segmentation_mask"])
def test_the_columns_of_a_table_are_found_by_name_and_type(tmp_path, name):
    masks = [struct(mask(LABELS * 0 + row)) for row in range(5)]
    path = table(tmp_path / "t.parquet", mask=None, **{name: masks, "text": ["x"] * 5})
    assert open_scenes(path).describe()["columns"] == {"image": "image", "mask": name, "id": None}
    assert seen(open_scenes(path)) == {str(row): (row, row) for row in range(5)}


def test_masks_may_be_bytes_or_paths_beside_the_table(tmp_path):
    fill(tmp_path, files_images="a.png b.png", files="a.png b.png")
    plain = [mask(LABELS * 0 + row) for row in range(2)]
    table(tmp_path / "bytes.parquet", 2, mask=plain)
    table(tmp_path / "paths.parquet", 2, mask=["files/a.png", "files/b.png"], name=["one", "two"])
    (tmp_path / "paths.csv").write_text("image,mask\nfiles_images/a.png,files/a.png\nfiles_images/b.png,files/b.png\n")
    assert seen(open_scenes(tmp_path / "bytes.parquet")) == {"0": (0, 0), "1": (1, 1)}
    assert seen(open_scenes(tmp_path / "paths.parquet", id_column="name")) == {"one": (0, 0), "two": (1, 1)}
    assert seen(open_scenes(tmp_path / "paths.csv")) == {"0": (0, 0), "1": (1, 1)}


def test_columns_that_cannot_be_told_are_asked_for_with_a_list(tmp_path):
    path = table(tmp_path / "t.parquet", mask=None, label=[1, 2, 3, 4, 5])
    with pytest.raises(SourceError, match=r"clearly of masks.*label \(int64\); choose one \(mask_column, --"):
        open_scenes(path)
    with pytest.raises(SourceError, match="no column 'truth'; its columns: image"):
        open_scenes(path, mask_column="truth")
    with pytest.raises(SourceError, match=r"no column that is clearly of images.*choose one \(image_column, --"):
        open_scenes(table(tmp_path / "u.parquet", image=None, mask=None, label=[1, 2, 3, 4, 5]), masks=False)


def test_shards_of_a_split_are_one_source(tmp_path):
    table(tmp_path / "data" / "train-00000.parquet", 2)
    table(tmp_path / "data" / "train-00001.parquet", 3)
    table(tmp_path / "data" / "test-00000.parquet", 1)
    assert [len(open_scenes(tmp_path, split=split)) for split in ("train", "test")] == [5, 1]
    with pytest.raises(SourceError, match=r"no split 'val'.*there are: data, test-00000, train-00000, train-00001"):
        open_scenes(tmp_path, split="val")


def test_scenes_of_a_table_are_had_by_number_in_any_order(tmp_path):
    scenes = open_scenes(table(tmp_path / "t.parquet", 70, row_group_size=50))
    for number in (0, 1, 1, 40, 69, 3, 55, -1):
        assert seen([scenes[number]]) == {str(number % 70): (number % 70, number % 70)}
    with pytest.raises(IndexError):
        scenes[70]
    assert len(list(scenes)) == len(scenes) == 70
    limited = open_scenes(tmp_path / "t.parquet", limit=3)
    assert [scene.id for scene in limited] == ["0", "1", "2"]
    with pytest.raises(IndexError):
        limited[3]


def test_the_palette_of_the_first_mask_is_kept(tmp_path):
    folder = fill(tmp_path, images="a.png b.png", masks="a.png b.png")
    (folder / "masks" / "a.png").write_bytes(b"damaged")
    (folder / "masks" / "b.png").write_bytes(encoded(indexed(LABELS)))
    assert open_scenes(folder).palette()[:3] == [(9, 8, 7), (6, 5, 4), (3, 2, 1)]


def test_the_palette_of_a_mask_beyond_the_limits_is_passed_over_unless_they_are_raised(tmp_path):
    folder = fill(tmp_path, images="a.png", masks="a.png")
    (folder / "masks" / "a.png").write_bytes(encoded(indexed(LABELS)))
    pixels = LABELS.size
    assert open_scenes(folder).palette(Limits(max_pixels=pixels - 1)) is None
    assert open_scenes(folder).palette(Limits(max_pixels=pixels))[:1] == [(9, 8, 7)]


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_masks_in_colour_are_read_by_the_colours_that_are_told(tmp_path, mode):
    folder = fill(tmp_path, images="a.png", masks="a.png")
    (folder / "masks" / "a.png").write_bytes(painted(mode=mode))
    with pytest.raises(SampleError, match=rf"in colour \({mode}\).*classes.json"):
        read_scene(open_scenes(folder)[0])
    (folder / "classes.json").write_text(json.dumps(COLOURS))
    np.testing.assert_array_equal(read_scene(open_scenes(folder)[0], 3)[1], LABELS)
    (folder / "classes.json").write_text(json.dumps({"sky": COLOURS["sky"], "road": COLOURS["road"]}))
    with pytest.raises(SampleError, match=r"colour \[70, 80, 90\] \(2 pixels\) is not among the 2 in classes.json"):
        read_scene(open_scenes(folder)[0], 3)


def test_a_mask_fits_its_image_as_it_is_seen_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    turned = [struct(picture(7, size=(2, 3), exif=exif)), struct(picture(size=(3, 2), exif=exif)), struct(picture())]
    masks = [struct(mask()), struct(mask()), struct(mask(LABELS[:, :2]))]
    scenes = open_scenes(table(tmp_path / "t.parquet", image=turned, mask=masks))
    image, labels = read_scene(scenes[0])
    assert image.size == (3, 2)
    np.testing.assert_array_equal(labels, LABELS)
    with pytest.raises(SampleError, match="mask: 3 x 2; its image is 2 x 3, which an EXIF tag may have turned; expect"):
        read_scene(scenes[1])
    with pytest.raises(SampleError, match="mask: 2 x 2; its image is 3 x 2; expected the same size"):
        read_scene(scenes[2])


def test_which_of_the_two_cannot_be_read_is_said(tmp_path):
    both = table(tmp_path / "t.parquet", 2, image=[struct(b"x"), struct(picture())], mask=[struct(mask()), None])
    scenes = open_scenes(both)
    with pytest.raises(SampleError, match="image: these bytes: not an image"):
        read_scene(scenes[0])
    with pytest.raises(SampleError, match="mask: there is none"):
        read_scene(scenes[1])


def test_the_classes_are_counted_up_to_the_greatest_value_that_is_no_void(tmp_path):
    masks = [struct(mask([[0, 2], [255, 7]])), struct(b"damaged"), struct(mask([[4, 4], [255, 255]])), None]
    scenes = open_scenes(table(tmp_path / "t.parquet", 4, mask=masks))
    assert find_classes(scenes, [255]) == 8
    assert find_classes(scenes, [255, 7]) == 5
    with pytest.raises(SourceError, match=r"the values \[0, 2, 4, 7, 255\]; with \[2, 4, 7, 255\] left out"):
        find_classes(scenes, [255, 2, 4, 7])
    with pytest.raises(SourceError, match="no mask can be read; the first is '0': these bytes: not an image in a"):
        find_classes(open_scenes(table(tmp_path / "u.parquet", 1, mask=[struct(b"x")])), [])


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        ([0, 1, 50], 51),
        ([0, 40, 80, 120, 149], 150),  # few of many classes
        ([0, 1, 255], "the label 255, but only 3 different ones, 1 the next below it: that would make 256 classes"),
        ([0, 1, 65535], "the label 65535, .* would make 65,536 classes; if 65535 is void, .*--ignore 65535.*--classes"),
        ([0, *range(980, 1001, 20)], 1001),
        ([0, *range(981, 1002, 20)], "the label 1001, but only 3 different"),
        (range(1201), 1201),
    ],
)
def test_a_value_far_above_all_others_is_taken_for_void_that_nobody_named(values, classes):
    scenes = [Scene("a", None, np.array([values]))]
    if isinstance(classes, int):
        assert find_classes(scenes, []) == classes
        return
    with pytest.raises(SourceError, match=classes):
        find_classes(scenes, [])


@pytest.mark.parametrize(("masks", "what"), [(True, "with images and masks,"), (False, "with images,")])
def test_a_folder_that_is_missing_is_asked_for_with_what_is_needed(tmp_path, masks, what):
    with pytest.raises(SourceError, match=what):
        open_scenes(tmp_path / "none", masks=masks)


def test_the_digest_is_of_contents_classes_and_limit(tmp_path):
    folder = fill(tmp_path / "set", images="a.png b.png", masks="a.png b.png")
    digests = [open_scenes(folder).digest(), open_scenes(folder, limit=1).digest()]
    (folder / "classes.txt").write_text("sky\nroad")
    digests.append(open_scenes(folder).digest())
    (folder / "masks" / "b.png").write_bytes(mask(LABELS) + b"more")
    digests.append(open_scenes(folder).digest())
    path = table(tmp_path / "set.parquet", label=[struct(mask())] * 5)
    digests += [open_scenes(path).digest(), open_scenes(path, mask_column="label").digest()]
    assert len(set(digests)) == 6
    assert open_scenes(path).digest() == digests[4]


@pytest.mark.real
@pytest.mark.parametrize(("split", "rows"), [("train", 367), ("val", 101), ("test", 233)])
def test_camvid_has_eleven_classes_and_void(shared, split, rows):
    scenes = open_scenes(shared / "data" / "camvid" / f"{split}.parquet")
    assert (len(scenes), find_classes(scenes, [11])) == (rows, 11)
    assert (scenes.names[0], scenes.names[11]) == ("sky", "void")
    for scene in list(scenes)[::8]:
        image, labels = read_scene(scene, 11, [11])
        assert (*image.size, *labels.shape) == (320, 240, 240, 320)


def test_a_mask_replaced_by_one_of_the_same_size_and_time_is_another_source(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "images" / "a.png")
    mask = tmp_path / "masks" / "a.bmp"
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(mask)
    before, stamp = open_scenes(tmp_path).digest(), mask.stat()
    Image.fromarray(np.ones((4, 4), np.uint8)).save(mask)
    os.utime(mask, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert mask.stat().st_size == stamp.st_size
    assert open_scenes(tmp_path).digest() != before
