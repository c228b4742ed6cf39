"""Clean facts of a cell: an explainer's problem on its images, computed once per process."""

from dataclasses import replace
from functools import lru_cache

import torch

from robustlab.core.judge import pose
from robustlab.core.types import Problem
from robustlab.lab.origins import Origin, data_of, load_batch, load_model, model_of
from robustlab.lab.units import Cell
from robustlab.lab.waging import Measured


def pose_cell(cell: Cell, measured: Measured, model: Origin | None = None) -> Problem:
    """The measured explainer's problem on the cell's images, and its model unless told another.

    Where a map is to be imitated it is that of the next image of the experiment, whatever the
    chunks are; the last image takes the first one's.
    """
    origin, source = model or model_of(cell), data_of(cell)
    problem = posed(origin, source, cell.ids, measured, cell.device)
    if cell.follower is None:
        return problem
    following = posed(origin, source, (cell.follower,), measured, cell.device)
    return replace(problem, target_maps=torch.cat([problem.maps[1:], following.maps]))


@lru_cache(maxsize=64)
def posed(
    model: Origin, source: Origin, ids: tuple[str, ...], measured: Measured, device: str
) -> Problem:
    """The same for any model and data."""
    batch = load_batch(source, ids, device)
    net = load_model(model, device)
    target = "prediction" if measured.target == "current" else measured.target
    return pose(net, measured.explainer, batch, target=target)
