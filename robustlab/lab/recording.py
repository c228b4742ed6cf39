"""What every training has in common, whether it is to fool or to defend."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from robustlab.core.threads import one_thread
from robustlab.lab.provenance import provenance
from robustlab.lab.reasons import reason
from robustlab.models import Classifier
from robustlab.records import Store, TrainingRecord


def recorded(
    base: TrainingRecord, store: Store, device: str, work: Callable[[], TrainingRecord]
) -> TrainingRecord:
    """Do the work on one thread and store its record, or ``base`` with the reason of a failure."""
    started, facts = time.perf_counter(), provenance(device)
    store.trainings.mkdir(parents=True, exist_ok=True)
    try:
        with one_thread():  # sums must not depend on the number of cores
            record = work()
    except Exception as error:  # a visible failure, never a missing row
        record = replace(base, outcome="crashed", error=reason(error))
    record = replace(record, seconds=time.perf_counter() - started, provenance=facts)
    store.write_training(record)
    return record


@contextmanager
def weights_and_state(store: Store, key: str) -> Iterator[tuple[Path, Path]]:
    """Where the weights go, and the state that a killed training goes on from.

    The state is some times the size of the weights; once they are written it is of no more use.
    """
    path = store.weights_path(key)
    state = path.with_suffix(".state.safetensors")
    yield path, state
    state.unlink(missing_ok=True)


def bare(model: nn.Module) -> nn.Module:
    """What a weights file holds: the network without the lab's normalisation around it."""
    return model.net if isinstance(model, Classifier) else model


def shown(options: dict[str, Any]) -> dict[str, Any]:
    """Options as a record holds them: paths become text."""
    return {k: str(v) if isinstance(v, Path) else v for k, v in options.items()}
