"""The arithmetic of the scripts in benchmarks/ that measure speed; nothing is timed here."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import contestants
import machine
import scaling
import speed


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
def test_growth_finds_the_exponent_of_a_power(exponent: float) -> None:
    sizes = [10, 100, 1000]
    assert machine.growth(sizes, [3 * size**exponent for size in sizes]) == pytest.approx(exponent, abs=1e-9)


def test_a_ratio_is_taken_within_each_round_so_a_slow_round_does_not_move_it() -> None:
    assert machine.ratio([2, 20, 2], [1, 10, 1]) == 2
    assert machine.ratio([2, 20, 9], [1, 10, 1]) == 2


def test_calls_take_turns_and_every_other_round_goes_backwards(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr(machine, "_LEAST", 1e-12)  # seconds of repeated calls
    seconds = machine.side_by_side({name: lambda name=name: order.append(name) for name in "abc"}, 2, "cpu")
    assert order[-6:] == ["a", "b", "c", "c", "b", "a"]
    assert {name: len(times) for name, times in seconds.items()} == {"a": 2, "b": 2, "c": 2}


def test_a_contestant_that_fails_is_printed_and_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    def fails() -> None:
        raise RuntimeError("out of memory\nmore")

    assert list(machine.side_by_side({"one": fails, "two": int}, 1, "cpu")) == ["two"]
    assert capsys.readouterr().err == "one failed: out of memory\n"


def test_rows_have_the_speed_against_the_rival_and_the_multiples_of_both_floors() -> None:
    times = {"fungivision": [1.0, 2.0], "sporeprint": [0.25, 0.5], "floor A": [0.2, 0.4], "floor B": [0.01, 0.02]}
    rows = {row[0]: row[1:] for row in speed.timing_rows(times)}
    assert rows["sporeprint"] == ["375.0", "250.0 to 500.0", "4.00", "1.25", "25.0"]
    assert rows["fungivision"][2:] == ["1.00", "5.00", "100.0"]


def test_rows_without_a_rival_leave_its_column_empty() -> None:
    (row,) = speed.timing_rows({"sporeprint": [0.5]})
    assert row == ["sporeprint", "500.0", "500.0 to 500.0", "", "", ""]


def test_linear_growth_is_described_as_such() -> None:
    results = [{"seconds": 2.0 * n, "peak": 100.0 + n} for n in (10, 100)]
    assert scaling.fitted([10, 100], results) == (
        "time grows as n ** 1.00; n 10.0 times as great takes 10.0 times as long, and 1.82 times the memory"
    )


def test_passes_are_views_and_those_of_the_first_call_do_not_count() -> None:
    network = nn.Sequential(nn.Conv2d(3, 1, 2))
    sizes = iter([9, 5])
    assert contestants.passes(network, lambda: network(torch.zeros(next(sizes), 3, 2, 2))) == 5
    assert not network[0]._forward_pre_hooks


def test_the_most_that_was_resident_is_no_less_than_what_is() -> None:
    now, most = machine.memory("VmRSS"), machine.memory("VmHWM")
    assert (now, most) == (-1, -1) or 0 < now <= most


def test_a_table_sets_numbers_to_the_right() -> None:
    assert machine.table(["a", "b", "c"], [["1", "2", "3"]]) == "| a | b | c |\n| --- | --- | ---: |\n| 1 | 2 | 3 |"


def test_what_other_processes_took_is_all_that_was_busy_less_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter([(0.0, 100.0, 1.0), (10.0, 119.0, 5.0)])
    monkeypatch.setattr(machine.Others, "_now", lambda self: next(readings))
    monkeypatch.setattr(machine, "_STAT", Path(__file__))
    assert str(machine.Others()) == "other processes took 1.5 cores meanwhile"
