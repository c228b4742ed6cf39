"""Battery variants of the gradient family."""

EVERYWHERE = [
    ("gradient", {}),
    ("input_x_gradient", {}),
    ("guided_backprop", {}),
    ("smooth_grad", {"samples": 2}),
    ("integrated_gradients", {"steps": 2}),
]
# on the net with batch-norm, residual additions and in-place operations
OPTIONS = [
    ("resnet", "gradient", {"score": "prob"}),
    ("resnet", "gradient", {"score": "margin"}),
    ("resnet", "gradient", {"score": "neg_ce", "post": "max_abs"}),
    ("resnet", "gradient", {"beta": 3.0}),
    ("resnet", "input_x_gradient", {"score": "logprob"}),
    ("resnet", "guided_backprop", {"score": "prob"}),
    ("resnet", "smooth_grad", {"samples": 3, "sigma": 0.05, "seed": 7, "score": "prob"}),
    ("resnet", "integrated_gradients", {"steps": 3, "rule": "left", "baseline": 0.5}),
    ("resnet", "integrated_gradients", {"steps": 2, "rule": "middle", "score": "prob"}),
    ("resnet", "integrated_gradients", {"steps": 3, "rule": "trapezoid"}),
]
REFUSED = [
    ("gradient", {"score": "logits"}, "gradient.score", "'logit'"),
    ("gradient", {"post": "abs"}, "gradient.post", "'abs_sum'"),
    ("gradient", {"beta": 0}, "gradient.beta", "above 0"),
    ("smooth_grad", {"samples": 0}, "smooth_grad.samples", "at least 1"),
    ("smooth_grad", {"samples": True}, "smooth_grad.samples", "expected a number"),
    ("smooth_grad", {"sigma": -0.1}, "smooth_grad.sigma", "at least 0"),
    ("smooth_grad", {"sigma": float("nan")}, "smooth_grad.sigma", "nan"),
    ("integrated_gradients", {"steps": 0}, "integrated_gradients.steps", "too few"),
    (
        "integrated_gradients",
        {"steps": 1, "rule": "trapezoid"},
        "integrated_gradients.steps",
        "too few for the trapezoid",
    ),
    ("integrated_gradients", {"rule": "simpson"}, "integrated_gradients.rule", "'right'"),
]
