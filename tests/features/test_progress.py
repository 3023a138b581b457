import io
import re
import sys
from contextlib import suppress

import pytest

from small import noise_pictures, small_backbone
from sporeprint import KL, Dense, Fungi, Recipe, SimCLR
from sporeprint.errors import TooManyFailures
from sporeprint.features import progress
from sporeprint.features.progress import ProgressLine, clock, shown
from sporeprint.objectives.views.image import Patches

RECIPE = Recipe(
    objectives=[KL(latent=8), SimCLR(latent=8, augmentation=Patches(2), negatives=4)],
    layers=1,
    dense=Dense(objectives=[], size=(32, 32)),
)


class Screen(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def now(monkeypatch):
    """A clock that goes on by half a second at every look."""
    at = iter(range(10**6))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(at) / 2)


def lines(stream):
    return [line for line in re.split(r"[\r\n]", stream.getvalue()) if line.strip()]


def of(progress_, pictures=12):
    return Fungi(RECIPE, backbone=small_backbone(), batch_size=2, progress=progress_), noise_pictures(pictures)


def test_a_terminal_shows_rows_rate_and_time_left(monkeypatch, now):
    monkeypatch.setattr(sys, "stderr", Screen())
    fungi, pictures = of(None)
    fungi.fit(pictures)
    texts = lines(sys.stderr)
    assert "4 of 12 rows, 4.0/s, 0:02 left" in [text.rstrip() for text in texts]
    assert texts[-1].rstrip() == "12 of 12 rows, 4.0/s, 0:00 left"
    assert sys.stderr.getvalue().endswith("\n")


@pytest.mark.parametrize(
    "call", ["fit_transform", "transform", "blocks", "fit_blocks", "draw_negatives", "fit_dense", "dense"]
)
def test_every_call_that_takes_long_shows_what_it_does(monkeypatch, now, call):
    fungi, pictures = of(True)
    fungi.fit(pictures).fit_dense(pictures)
    monkeypatch.setattr(sys, "stderr", Screen())
    samples = [(str(at), picture) for at, picture in enumerate(pictures)] if call == "draw_negatives" else pictures
    getattr(fungi, call)(samples)
    what = {"draw_negatives": "4 of 4 negatives", "fit_dense": "12 of 12 images", "dense": "12 of 12 images"}
    assert what.get(call, "12 of 12 rows") in sys.stderr.getvalue()


def test_a_pipe_and_a_test_get_nothing_unless_it_is_asked_for(monkeypatch, now):
    for asked, some in ((None, False), (False, False), (True, True)):
        monkeypatch.setattr(sys, "stderr", io.StringIO())
        fungi, pictures = of(asked)
        fungi.fit(pictures)
        assert bool(sys.stderr.getvalue()) is some
        assert "\r" not in sys.stderr.getvalue()


def test_what_takes_less_than_a_second_is_not_shown(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Screen())
    monkeypatch.setattr(progress.time, "monotonic", iter([0.0, 0.3, 0.6, 0.9]).__next__)
    with shown(None) as line:
        for done in range(4):
            line("rows", done, 3)
    assert sys.stderr.getvalue() == ""


def test_an_error_is_printed_on_a_line_of_its_own(monkeypatch, now):
    monkeypatch.setattr(sys, "stderr", Screen())
    with suppress(KeyboardInterrupt), ProgressLine() as line:
        line("rows", 0, 9)
        line("rows", 1, 9)
        raise KeyboardInterrupt
    assert sys.stderr.getvalue().endswith("1 of 9 rows, 2.0/s, 0:04 left\n")


def test_a_notebook_is_live_though_its_stderr_is_no_terminal(monkeypatch):
    class OutStream(io.StringIO):
        __module__ = "ipykernel.iostream"

    monkeypatch.setattr(sys, "stderr", OutStream())
    assert progress.is_live()
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert not progress.is_live()


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (65.4, "1:05"), (3605, "1:00:05")])
def test_time_left_is_minutes_and_seconds(seconds, text):
    assert clock(seconds) == text


def test_progress_is_a_parameter_that_scikit_learn_copies():
    assert Fungi(RECIPE, progress=False).get_params()["progress"] is False


def test_patches_are_silent_again_where_the_images_cannot_be_read(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    fungi, pictures = of(True)
    fungi.fit_dense(pictures)
    with pytest.raises(TooManyFailures):
        fungi.dense(["absent.png", "absent.jpg"])
    assert [row.id for row in fungi.failures] == ["row 0", "row 1"]
    before = sys.stderr.getvalue()
    list(fungi.patches.maps([("", picture) for picture in pictures]))
    assert sys.stderr.getvalue() == before
