import pytest

from sporeprint.run.estimate import Estimate, duration


def said(total, *steps, what=""):
    """What is said over steps of (seconds, rows done)."""
    times, lines = iter([seconds for seconds, _ in steps]), []
    estimate = Estimate("images", total, lines.append, what, clock=lambda: next(times))
    for _, done in steps:
        estimate(done)
        if estimate.said:
            break
    return lines


def test_the_first_batch_is_left_out_where_it_is_short():
    assert said(1000, (0, 0), (3, 10), (3.5, 20), (4, 30), (9, 90), what=", 6 passes") == [
        "1,000 images, 6 passes: about 50 s"
    ]


def test_a_first_batch_of_seconds_is_enough():
    assert said(1780, (0, 0), (10, 32)) == ["1,780 images: about 9 min"]


def test_a_run_that_goes_on_estimates_what_is_left():
    assert said(1000, (0, 400), (1, 410), (2, 420)) == ["600 of 1,000 images: about 60 s"]


def test_short_work_is_not_announced():
    assert said(90, (0, 0), (1, 10), (2, 20)) == []
    assert said(100, (0, 0), (1, 10), (2, 20)) == ["100 images: about 10 s"]


def test_work_without_rows_says_nothing():
    assert said(100, (0, 0), (50, 0), (99, 0)) == []


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (12, "10 s"),
        (96, "100 s"),
        (100, "2 min"),
        (540, "9 min"),
        (7800, "2 h 10 min"),
        (7200, "2 h"),
        (5970, "1 h 40 min"),
    ],
)
def test_durations_are_rounded(seconds, words):
    assert duration(seconds) == words
