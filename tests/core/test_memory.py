"""Freed memory stays with the process: seen in page faults, which is what it costs."""

import sys

import pytest

from tests.cli.command import python

FAULTS = """
import resource, sys, torch
from robustlab.core.memory import keep_memory
torch.set_num_threads(1)
kept = keep_memory() if sys.argv[1] == "keep" else False
def work():
    for _ in range(3):
        graph = [torch.full((4_000_000,), 1.0) for _ in range(10)]  # 160 MB, 40,000 pages
def count():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    work()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
work()
counts = [count() for _ in range(5)]  # a machine short of memory takes pages away at times
print(kept, min(counts), max(counts))
"""


def faults(how):
    kept, least, most = python(FAULTS, how).stdout.split()
    return kept == "True", int(least), int(most)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc can be asked")
def test_a_process_keeps_what_it_has_had():
    kept, count, _ = faults("keep")
    if not kept:
        pytest.skip("not glibc")
    assert count < 1000
    assert faults("leave")[2] > 20 * count + 1000  # the canary: without it, page by page
