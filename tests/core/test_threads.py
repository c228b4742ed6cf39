"""Work on several threads gives what one thread gives, and torch is left as it was."""

from threading import Barrier, Thread, get_ident

import pytest
import torch

from robustlab.core.threads import on_every_thread, one_thread
from robustlab.metrics import build


@pytest.fixture(autouse=True)
def threads():
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def test_items_are_worked_on_at_once_and_come_in_order():
    meeting = Barrier(2, timeout=20)  # one thread alone would wait for the other in vain

    def work(item):
        meeting.wait()
        return item, get_ident(), torch.get_num_threads()

    found = on_every_thread(work, [3, 1])
    assert [item for item, _, _ in found] == [3, 1]
    assert len({thread for _, thread, _ in found}) == 2
    assert {inside for _, _, inside in found} == {1}
    assert torch.get_num_threads() == 2


def test_one_thread_starts_no_other():
    with one_thread():
        assert on_every_thread(lambda _: get_ident(), [1, 2, 3]) == [get_ident()] * 3
    assert on_every_thread(lambda _: torch.get_num_threads(), [1]) == [1]
    assert on_every_thread(lambda item: item, []) == []
    assert torch.get_num_threads() == 2


def test_an_error_comes_out_and_leaves_torch_as_it_was():
    def work(item):
        if item:
            raise ValueError(item)

    with pytest.raises(ValueError, match="7"):
        on_every_thread(work, [0, 7, 0])
    assert torch.get_num_threads() == 2


def test_several_callers_at_once_leave_torch_as_it_was():
    def call():
        for _ in range(20):
            on_every_thread(lambda item: item, [1, 2])

    callers = [Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("name", ["spearman", "kendall", "pearson", "ssim", "top_k_intersection"])
def test_a_metric_has_the_same_bits_on_any_number_of_threads(name):
    a, b = torch.randn(2, 5, 224, 224, generator=torch.Generator().manual_seed(0))
    several = build(name)(a, b)
    alone = torch.cat([build(name)(a[i : i + 1], b[i : i + 1]) for i in range(5)])
    with one_thread():
        assert torch.equal(build(name)(a, b), several)
    assert torch.equal(alone, several)
