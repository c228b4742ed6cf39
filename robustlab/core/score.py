"""What is explained: one number per image, by name."""

from typing import Literal

import torch
from torch import Tensor

from robustlab.core.errors import InvalidInput

Score = Literal["logit", "prob", "logprob", "neg_ce", "margin"]


def score_of(logits: Tensor, targets: Tensor, score: Score = "logit") -> Tensor:
    """The explained number ``[B]`` for target class t of each image.

    logit: f_t. prob: softmax(f)_t. logprob: log softmax(f)_t. neg_ce: minus the cross
    entropy, which is the same number as logprob under the name that papers use.
    margin: f_t − max_{j≠t} f_j. Maps made from different scores are not comparable: the
    softmax is blind to a shift that all logits share, the logit is not.
    """
    check_targets(targets, logits)
    index = targets.unsqueeze(1)
    if score == "logit":
        return logits.gather(1, index).squeeze(1)
    if score in ("logprob", "neg_ce"):
        return torch.log_softmax(logits, 1).gather(1, index).squeeze(1)
    if score == "prob":
        return torch.softmax(logits, 1).gather(1, index).squeeze(1)
    if score == "margin":
        others = logits.scatter(1, index, float("-inf"))
        return logits.gather(1, index).squeeze(1) - others.amax(1)
    raise InvalidInput(
        "score", f"unknown score {score!r}", "known: logit, prob, logprob, neg_ce, margin"
    )


def check_targets(targets: Tensor, logits: Tensor) -> None:
    """Refuse class indices that the model does not have."""
    if logits.ndim != 2:
        raise InvalidInput(
            "model", f"expected logits [B, classes], got shape {tuple(logits.shape)}"
        )
    if targets.shape != logits.shape[:1]:
        raise InvalidInput(
            "targets", f"expected shape ({len(logits)},), got {tuple(targets.shape)}"
        )
    low, high = int(targets.min()), int(targets.max())
    if low < 0 or high >= logits.shape[1]:
        worst = low if low < 0 else high
        raise InvalidInput(
            "targets",
            f"class {worst} is out of range",
            f"the model has classes 0..{logits.shape[1] - 1}",
        )
