"""Several pieces of work timed side by side."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Job:
    """Something to time, whose it is and what it is called there."""

    who: str
    what: str
    run: Callable[[], Any]


def timed(jobs: Sequence[Job], repeats: int) -> tuple[list[Any], list[float]]:
    """What each job finds, and its median processor time in seconds.

    Repeats are interleaved, so that a slow moment of the machine hits all jobs alike.
    """
    taken: list[list[float]] = [[] for _ in jobs]
    found = [job.run() for job in jobs]  # the first round warms up
    for _ in range(repeats):
        for job, times in zip(jobs, taken, strict=True):
            started = time.process_time()
            job.run()
            times.append(time.process_time() - started)
    return found, [statistics.median(times) for times in taken]
