import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from sporeprint.data.prefetch import ahead


@pytest.mark.parametrize("workers", [0, 1, 3, 20])
def test_results_keep_their_order_whoever_is_done_first(workers):
    def slow_at_first(number):
        time.sleep(0.02 if number < 2 else 0)
        return number * number

    assert list(ahead(slow_at_first, range(12), workers)) == [number * number for number in range(12)]
    assert list(ahead(slow_at_first, [], workers)) == []


@pytest.mark.parametrize("workers", [1, 3])
def test_only_a_few_items_are_taken_before_they_are_asked_for(workers):
    taken = []

    def items():
        for number in range(100):
            taken.append(number)
            yield number

    results = ahead(str, items(), workers)
    assert taken == []
    for asked in range(1, 20):
        next(results)
        assert len(taken) <= asked + workers + 1
    results.close()
    assert len(taken) < 30


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_comes_where_its_item_would(workers):
    def third_fails(number):
        if number == 2:
            raise KeyError("third")
        return number

    results = ahead(third_fails, range(10), workers)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(KeyError, match="third"):
        next(results)


def test_threads_are_gone_when_the_work_is_left():
    before = threading.active_count()
    results = ahead(str, range(50), 4)
    next(results)
    results.close()
    assert threading.active_count() == before


def test_torch_computes_with_one_thread_in_each_and_as_before_elsewhere():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert set(ahead(lambda _: torch.get_num_threads(), range(6), 2)) == {1}
        with ThreadPoolExecutor(1) as later:
            assert (torch.get_num_threads(), later.submit(torch.get_num_threads).result()) == (3, 3)
    finally:
        torch.set_num_threads(before)
