"""Scores against formulas by hand, on logits log(1), log(2), log(5)."""

import math
from typing import get_args

import pytest
import torch

from robustlab.core.errors import InvalidInput
from robustlab.core.score import Score, score_of

LOGITS = torch.tensor([[1.0, 2.0, 5.0], [5.0, 1.0, 2.0]], dtype=torch.float64).log()
TARGETS = torch.tensor([1, 0])
BY_HAND = {
    "logit": [math.log(2), math.log(5)],
    "prob": [2 / 8, 5 / 8],
    "logprob": [math.log(2 / 8), math.log(5 / 8)],
    "neg_ce": [math.log(2 / 8), math.log(5 / 8)],
    "margin": [math.log(2 / 5), math.log(5 / 2)],
}


def test_every_score_has_an_example():
    assert set(BY_HAND) == set(get_args(Score))


@pytest.mark.parametrize("score", BY_HAND)
def test_by_hand(score):
    expected = torch.tensor(BY_HAND[score], dtype=torch.float64)
    torch.testing.assert_close(score_of(LOGITS, TARGETS, score), expected, rtol=1e-14, atol=1e-14)


def test_neg_ce_is_minus_torchs_cross_entropy():
    loss = torch.nn.functional.cross_entropy(LOGITS, TARGETS, reduction="none")
    torch.testing.assert_close(score_of(LOGITS, TARGETS, "neg_ce"), -loss)


@pytest.mark.parametrize("score", BY_HAND)
def test_only_the_logit_sees_a_shift_that_all_logits_share(score):
    moved = score_of(LOGITS + 7, TARGETS, score) - score_of(LOGITS, TARGETS, score)
    expected = 7.0 if score == "logit" else 0.0
    torch.testing.assert_close(moved, torch.full_like(moved, expected))


@pytest.mark.parametrize("score", BY_HAND)
def test_scores_have_the_right_derivative(score):
    assert torch.autograd.gradcheck(
        lambda x: score_of(x, TARGETS, score), LOGITS.clone().requires_grad_()
    )


@pytest.mark.parametrize("score", ["logprob", "neg_ce", "prob"])
def test_extreme_logits_stay_finite(score):
    logits = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    value = score_of(logits, torch.tensor([1]), score)
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    assert torch.isfinite(value).all() and torch.isfinite(gradient).all()


@pytest.mark.parametrize(
    ("logits", "targets", "field", "words"),
    [
        (LOGITS, torch.tensor([1, 3]), "targets", "class 3 is out of range; .*0..2"),
        (LOGITS, torch.tensor([-1, 0]), "targets", "class -1 is out of range"),
        (LOGITS, torch.tensor([0]), "targets", r"expected shape \(2,\), got \(1,\)"),
        (LOGITS, torch.tensor([[0], [1]]), "targets", r"got \(2, 1\)"),
        (LOGITS[0], torch.tensor([0]), "model", "expected logits"),
        (LOGITS.view(2, 3, 1), TARGETS, "model", r"got shape \(2, 3, 1\)"),
    ],
)
def test_impossible_targets_are_refused(logits, targets, field, words):
    with pytest.raises(InvalidInput, match=words) as caught:
        score_of(logits, targets)
    assert caught.value.field == field


def test_an_unknown_score_is_refused():
    with pytest.raises(InvalidInput, match="known: logit, prob, logprob, neg_ce, margin"):
        score_of(LOGITS, TARGETS, "logits")
