"""Clean facts of a cell: an explainer's problem on its images, computed once per process."""

from functools import lru_cache

from robustlab.core.judge import pose
from robustlab.core.types import Problem
from robustlab.lab.origins import Origin, data_of, load_batch, load_model, model_of
from robustlab.lab.plan import Cell
from robustlab.lab.waging import Measured


def pose_cell(cell: Cell, measured: Measured) -> Problem:
    """The measured explainer's problem on the cell's model and images."""
    return posed(model_of(cell), data_of(cell), cell.ids, measured, cell.device)


@lru_cache(maxsize=64)
def posed(
    model: Origin, source: Origin, ids: tuple[str, ...], measured: Measured, device: str
) -> Problem:
    """The same for any model and data."""
    batch = load_batch(source, ids, device)
    net = load_model(model, device)
    target = "prediction" if measured.target == "current" else measured.target
    return pose(net, measured.explainer, batch, target=target)
