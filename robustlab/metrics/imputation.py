"""Pixels that were removed, made up again from those that are left: nothing to see in the gap."""

from functools import lru_cache
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import splu
from torch import Tensor

from robustlab.core.errors import InvalidInput

# (rows down, columns to the right, weight): half of the eight neighbours, the rest by symmetry
NEIGHBOURS: Final = ((0, 1, 1 / 6), (1, 0, 1 / 6), (1, 1, 1 / 12), (1, -1, 1 / 12))

Array = NDArray[np.float64]


def imputed(images: Tensor, gone: Tensor) -> Tensor:
    """Images ``[B,C,H,W]`` whose pixels ``gone`` (bool ``[B,H,W]``) follow from the others.

    Each of them is the weighted mean of its eight neighbours, 1/6 for those beside it and 1/12
    for the diagonal ones, over the sum of the weights that lie inside the picture: one linear
    equation per removed pixel, in which the neighbours may be removed ones too. The system
    is symmetric and positive definite as long as one pixel is left, so it is solved exactly,
    by a sparse LU factorisation without pivoting that all channels share, in float64 on the
    CPU, image by image. No value leaves the range of those that are left.

    Source: Rong et al. 2022, ROAD (their *noisy linear imputation*, without its noise).

    Raises:
        InvalidInput: an image of which nothing is left.
    """
    found = images.detach().clone()
    for image, holes in zip(found, gone, strict=True):
        mask = holes.flatten().cpu().numpy()
        if mask.all():
            raise InvalidInput("gone", "of an image no pixel is left")
        if mask.any():
            values = image.flatten(1).T.cpu().double().numpy()
            filled = torch.from_numpy(_filled(values, mask, *holes.shape))
            image[:, holes] = filled.T.to(image)
    return found


def _filled(values: Array, gone: NDArray[np.bool_], height: int, width: int) -> Array:
    """What the removed of the pixels ``[n,C]`` show, ``[removed,C]``."""
    equations = _pull(height, width)[gone]
    known = equations[:, ~gone] @ values[~gone]
    # without pivots any order of elimination is stable here, so the one for symmetric systems
    # may be taken: of large gaps it needs two thirds of the time of SuperLU's own choice
    solver = splu(
        sparse.csc_array(equations[:, gone]),
        permc_spec="MMD_AT_PLUS_A",
        diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    )
    solved: Array = solver.solve(np.ascontiguousarray(-known))
    return solved


@lru_cache(maxsize=4)
def _pull(height: int, width: int) -> Any:
    """Σ_j w_ij (v_i − v_j) over the neighbours j of each pixel, as a matrix ``[n,n]``."""
    number = np.arange(height * width).reshape(height, width)
    ones, others, weights = [], [], []
    for down, right, weight in NEIGHBOURS:
        one = number[: height - down, max(0, -right) : width - max(0, right)].ravel()
        other = number[down:, max(0, right) : width + min(0, right)].ravel()
        ones += [one, other]
        others += [other, one]
        weights += 2 * [np.full(one.size, weight)]
    places = np.concatenate(ones), np.concatenate(others)
    joined = sparse.csr_array((np.concatenate(weights), places), shape=(number.size, number.size))
    return sparse.csr_array(sparse.diags_array(joined.sum(axis=1)) - joined)
