"""Threads, and results that do not depend on their number."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock
from typing import TypeVar

import torch

Item = TypeVar("Item")
Found = TypeVar("Found")

_ALONE = Lock()  # torch has one number of threads for the whole process


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread inside; as before on the way out."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def on_every_thread(work: Callable[[Item], Found], items: Sequence[Item]) -> list[Found]:
    """``[work(item) for item in items]`` on as many threads as torch may use.

    Each item is worked on by one thread alone, so that the results are the same for any
    number of them. For work that spends its time in torch and numpy.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        return [work(item) for item in items]
    with _ALONE, one_thread():
        if len(items) < 2:
            return [work(item) for item in items]
        with ThreadPoolExecutor(min(threads, len(items))) as pool:
            return list(pool.map(work, items))
