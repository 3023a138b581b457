import numpy as np
import pytest

from sporeprint.data.limits import Limits
from sporeprint.errors import RecipeError, SampleError


@pytest.mark.parametrize(
    ("width", "height", "kind", "limits", "message"),
    [
        (
            100,
            101,
            None,
            {"max_pixels": 10_000},
            "100 x 101 is over 10,000 pixels, .* raise max_pixels \\(--max-pixels",
        ),
        (80, 80, "WEBP", {"max_pixels": 10_000}, "over 5,000 pixels of WEBP"),
        (80, 80, "AVIF", {"max_pixels": 10_000}, "over 5,000 pixels of AVIF"),
        (80, 80, "JPEG2000", {"max_pixels": 10_000}, "over 5,000 pixels of JPEG2000"),
        (1_048_577, 1, "PNG", {}, "has a side over 1,048,576 pixels"),
        (1, 65_536, "PNG", {"max_pixels": 70_000}, "has a side over 65,535 pixels"),
        (8193, 8192, "JPEG", {}, "over 67,108,864 pixels"),
        (0, 5, None, {}, "without a pixel"),
    ],
)
def test_an_image_beyond_the_limit_is_refused_with_the_flag_that_raises_it(width, height, kind, limits, message):
    with pytest.raises(SampleError, match=message):
        Limits(**limits).check_image(width, height, "a.png", kind)


@pytest.mark.parametrize(
    ("width", "height", "kind", "most"),
    [(8192, 8192, "PNG", 2**26), (100, 100, "JPEG", 10_000), (50, 100, "WEBP", 10_000), (9504, 6336, "JPEG", 2**26)],
)
def test_an_image_at_the_limit_is_taken(width, height, kind, most):
    Limits(most).check_image(width, height, "a.png", kind)


@pytest.mark.parametrize(
    ("frames", "channels", "rate_hz", "message"),
    [
        (1001, 1, 100, "10 s of sound, over 10; .* raise max_seconds \\(--max-seconds"),
        (480_001, 1, 96_000, "over 480,000 values"),
        (80_000, 7, 8000, "80,000 frames of 7 channels, over 480,000 values"),
        (480_001, 1, None, "over 480,000 values"),
    ],
)
def test_sound_beyond_the_limit_is_refused_with_the_flag_that_raises_it(frames, channels, rate_hz, message):
    limits = Limits(max_seconds=10)
    with pytest.raises(SampleError, match=message):
        limits.check_sound(frames, channels, rate_hz, "a.wav")
    limits.check_sound(1000, 1, 100, "a.wav")


@pytest.mark.parametrize(
    "words", [{"max_pixels": 0}, {"max_pixels": 1e6}, {"max_pixels": True}, {"max_seconds": 0}, {"max_seconds": "9"}]
)
def test_a_limit_is_a_number_above_zero(words):
    with pytest.raises(RecipeError, match=next(iter(words))):
        Limits(**words)


def test_a_limit_may_be_a_number_of_numpy():
    limits = Limits(np.int64(100), np.float32(2))
    limits.check_image(10, 10, "a.png")
    with pytest.raises(SampleError, match="over 100 pixels"):
        limits.check_image(101, 1, "a.png")
    with pytest.raises(SampleError, match="over 50 pixels of WEBP"):
        limits.check_image(10, 10, "a.webp", "WEBP")
