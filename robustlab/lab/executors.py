"""Where cells run: in this process, in several, or on a Ray cluster. The numbers are the same.

Every worker computes with one thread: results then do not depend on how many workers share
the machine, and two processes of one thread are faster than one of two.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import chain
from typing import Any, Literal

import torch

from robustlab.core.errors import MissingDependency, RobustlabError
from robustlab.core.memory import keep_memory
from robustlab.core.threads import one_thread
from robustlab.lab.cell import run_cell
from robustlab.lab.fine_tuning import run_fine_tuning
from robustlab.lab.training import run_training
from robustlab.lab.units import FineTuned, Trained, Unit, Visual
from robustlab.lab.visual import run_visual
from robustlab.records import RunRecord, TrainingRecord, VisualRecord

Executor = Literal["local", "ray"]
Record = RunRecord | VisualRecord | TrainingRecord


def default_workers(cells: int, device: str) -> int:
    """One per core on a CPU; one on an accelerator, which cells would only fight over."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return 1 if device != "cpu" else max(1, min(cores or 1, cells))


def execute(
    waves: Sequence[Sequence[Unit]], folder: str, *, workers: int, executor: Executor = "local"
) -> Iterator[tuple[Unit, Record]]:
    """Run units of work and yield each with its record as it is done, in any order in its wave.

    A wave begins when all before it are done: it looks at what they have trained.

    Raises:
        RobustlabError: a worker process died (killed, or out of memory); what was finished
            is stored and a second run goes on from there.
    """
    if executor == "ray":
        yield from _on_ray(waves, folder, workers)
    elif workers == 1:
        with one_thread():
            for unit in chain.from_iterable(waves):
                yield unit, run(unit, folder)
    else:
        yield from _in_processes(waves, folder, workers)


def run(unit: Unit, folder: str) -> Record:
    """Do one unit of work and store its record."""
    if isinstance(unit, Trained):
        return run_training(unit, folder)
    if isinstance(unit, FineTuned):
        return run_fine_tuning(unit, folder)
    return run_visual(unit, folder) if isinstance(unit, Visual) else run_cell(unit, folder)


def _in_processes(
    waves: Sequence[Sequence[Unit]], folder: str, workers: int
) -> Iterator[tuple[Unit, Record]]:
    context = multiprocessing.get_context("spawn")  # a forked torch can hang on its locks
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    try:
        for units in waves:
            # dearest first, so that no worker starts a long cell when the others are done
            with _held_back():  # a worker interrupted in its imports would print a traceback
                waiting = {
                    pool.submit(run, unit, folder): unit
                    for unit in sorted(units, key=lambda u: -u.cost)
                }
            for future in as_completed(waiting):
                yield waiting[future], future.result()
    except KeyboardInterrupt:
        for child in multiprocessing.active_children():
            child.kill()  # at once: a half-started worker would complain of a lost parent
        raise
    except BrokenProcessPool:
        raise RobustlabError(
            "a worker process died, perhaps for lack of memory; finished cells are stored: "
            "run the same command again to go on, with fewer --workers or a smaller chunk"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _held_back() -> Iterator[None]:
    """Ctrl-C waits, here and in the processes started meanwhile, where the system can do that."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker() -> None:
    keep_memory()
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C does not wait for the cell at hand
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A killed run leaves no process behind: a worker alone would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _on_ray(
    waves: Sequence[Sequence[Unit]], folder: str, workers: int
) -> Iterator[tuple[Unit, Record]]:
    """On the Ray cluster of this environment, or a local one; the folder must be shared."""
    try:
        import ray
    except ImportError:
        raise MissingDependency("--executor ray needs Ray: pip install 'robustlab[ray]'") from None
    ray.init(ignore_reinit_error=True, log_to_driver=False, num_cpus=_ray_cpus(workers))

    def work(unit: Unit) -> Record:
        keep_memory()
        torch.set_num_threads(1)
        return run(unit, folder)

    remote = ray.remote(num_cpus=1)(work)
    for units in waves:
        waiting: dict[Any, Unit] = {remote.remote(unit): unit for unit in units}
        while waiting:
            done, _ = ray.wait(list(waiting), num_returns=1)
            yield waiting.pop(done[0]), ray.get(done[0])


def _ray_cpus(workers: int) -> int | None:
    return None if os.environ.get("RAY_ADDRESS") else workers
