"""How much of a smoothed map's top survives every L2 attack of a given radius."""

import math

import torch
from torch import Tensor

from robustlab.core.errors import InvalidInput


def certified_overlap(
    maps: Tensor,
    k: int,
    radius: float,
    *,
    sigma: float,
    samples: int,
    confidence: float = 0.95,
) -> Tensor:
    """How many of the k largest pixels stay among the k largest, at least; ``[B]`` int64.

    With g the map's d values in descending order, Φ the normal distribution function and
    err = √(ln(2d / (1 − confidence)) / 2n), the certified number is

        #{i ≤ k : Φ(Φ⁻¹(g_i − err) − 2ρ/σ) − err > g_(2k+1−i)}.

    It is a statement about every image x' with ‖x' − x‖₂ ≤ ρ, and with probability
    ``confidence`` over the noise at x. What it compares with is the *expected* map at x',
    the mean over infinitely many draws: an attacker gains nothing from knowing the model,
    but a map of x' from few samples strays from its expectation, the more so if x' was made
    for the very noise that the map is averaged over. Measure against fresh noise.

    Why: a mean of values in [0, 1] over Gaussian noise changes so slowly that Φ⁻¹ of it is
    1/σ-Lipschitz, so two pixels trade places only if they are closer than 2ρ/σ there. err
    bounds all d sampling errors at once (Hoeffding). If i stays above 2k + 1 − i, then i of
    the top k survive.

    Args:
        maps: smoothed maps in [0, 1], ``[B,1,H,W]`` or ``[B,H,W]``: sparsified SmoothGrad's
            raw attribution, before any post-processing that rescales it.
        k: how many pixels the top has.
        radius: ρ in pixel units, over all channels.
        sigma: σ of the explainer that made the maps.
        samples: its n.
        confidence: the probability that the statement is true.

    Raises:
        InvalidInput: maps outside [0, 1], k without k more pixels below it, or another number
            out of its range.

    Source: Levine, Singla & Feizi 2019.
    """
    if not maps.numel() or not bool(((maps >= 0) & (maps <= 1)).all()):
        raise InvalidInput("maps", "must have values in [0, 1]", "give the raw attribution")
    values = maps.detach().flatten(1).double().sort(1, descending=True).values
    pixels = values.shape[1]
    if not 1 <= k <= pixels // 2:
        raise InvalidInput("k", f"must lie in 1..{pixels // 2} for {pixels} pixels, got {k}")
    for field, value, fits in (
        ("radius", radius, 0 <= radius < math.inf),
        ("sigma", sigma, 0 < sigma < math.inf),
        ("samples", samples, samples >= 1),
        ("confidence", confidence, 0 < confidence < 1),
    ):
        if not fits:
            raise InvalidInput(field, f"out of range, got {value}")
    error = math.sqrt(math.log(2 * pixels / (1 - confidence)) / (2 * samples))
    inside, outside = values[:, :k], values[:, k : 2 * k].flip(1)
    quantile = torch.special.ndtri((inside - error).clamp(min=0))
    lowest = torch.special.ndtr(quantile - 2 * radius / sigma) - error
    return (lowest > outside).sum(1)
