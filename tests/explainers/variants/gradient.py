"""Battery variants of the gradient family."""

from tests.explainers.gradient_nets import Bent, Instance, Modern
from tests.nets import seeded

EVERYWHERE = [
    ("gradient", {}),
    ("input_x_gradient", {}),
    ("guided_backprop", {}),
    ("deconvnet", {}),
    ("rectified_gradient", {"q": 80}),  # on such small layers 98 leaves next to nothing
    ("smooth_grad", {"samples": 2}),
    ("var_grad", {"samples": 2}),
    ("integrated_gradients", {"steps": 2}),
    ("expected_gradients", {"samples": 2, "seed": 2}),
    ("full_grad", {}),
]
# on the net with batch-norm, residual additions and in-place operations
OPTIONS = [
    ("resnet", "gradient", {"score": "prob"}),
    ("resnet", "gradient", {"score": "margin"}),
    ("resnet", "gradient", {"score": "neg_ce", "post": "max_abs"}),
    ("resnet", "gradient", {"beta": 3.0}),
    ("resnet", "input_x_gradient", {"score": "logprob"}),
    ("resnet", "input_x_gradient", {"beta": 3.0}),
    ("resnet", "guided_backprop", {"score": "prob"}),
    ("resnet", "deconvnet", {"score": "prob"}),
    ("resnet", "rectified_gradient", {"tau": 0.0, "times_input": True, "score": "prob"}),
    ("resnet", "smooth_grad", {"samples": 3, "sigma": 0.05, "seed": 7, "score": "prob"}),
    ("resnet", "smooth_grad", {"samples": 2, "beta": 3.0}),
    ("resnet", "var_grad", {"samples": 3, "sigma": 0.05, "seed": 7, "score": "prob"}),
    ("resnet", "integrated_gradients", {"steps": 3, "rule": "left", "baseline": 0.5}),
    ("resnet", "integrated_gradients", {"steps": 2, "rule": "middle", "score": "prob"}),
    ("resnet", "integrated_gradients", {"steps": 3, "rule": "trapezoid"}),
    ("resnet", "integrated_gradients", {"steps": 2, "rule": "gauss_legendre", "beta": 3.0}),
    ("resnet", "integrated_gradients", {"steps": 2, "rule": "left", "baseline": "mean"}),
    ("resnet", "integrated_gradients", {"steps": 2, "baseline": "blur", "blur_sigma": 1.5}),
    ("resnet", "integrated_gradients", {"steps": 2, "baseline": "uniform", "seed": 5}),
    ("resnet", "expected_gradients", {"samples": 3, "seed": 7, "score": "prob"}),
    ("resnet", "expected_gradients", {"samples": 2, "background": "blur", "blur_sigma": 1.5}),
    ("resnet", "full_grad", {"score": "prob"}),
    ("bent", "full_grad", {}),
    ("instance", "full_grad", {}),
    ("modern", "full_grad", {}),
]
NETS = {
    "bent": lambda: seeded(Bent),
    "instance": lambda: seeded(Instance),
    "modern": lambda: seeded(Modern),
}
REFUSED = [
    ("gradient", {"score": "logits"}, "gradient.score", "'logit'"),
    ("gradient", {"post": "abs"}, "gradient.post", "'abs_sum'"),
    ("gradient", {"beta": 0}, "gradient.beta", "above 0"),
    ("input_x_gradient", {"beta": -1}, "input_x_gradient.beta", "above 0"),
    ("rectified_gradient", {"q": 100}, "rectified_gradient.q", "below 100"),
    ("rectified_gradient", {"q": -1}, "rectified_gradient.q", "at least 0"),
    ("smooth_grad", {"samples": 0}, "smooth_grad.samples", "at least 1"),
    ("smooth_grad", {"samples": True}, "smooth_grad.samples", "expected a number"),
    ("smooth_grad", {"sigma": -0.1}, "smooth_grad.sigma", "at least 0"),
    ("smooth_grad", {"sigma": float("nan")}, "smooth_grad.sigma", "nan"),
    ("smooth_grad", {"beta": 0}, "smooth_grad.beta", "above 0"),
    ("var_grad", {"samples": 1}, "var_grad.samples", "at least 2"),
    ("var_grad", {"sigma": 0}, "var_grad.sigma", "nothing varies"),
    ("integrated_gradients", {"steps": 0}, "integrated_gradients.steps", "too few"),
    (
        "integrated_gradients",
        {"steps": 1, "rule": "trapezoid"},
        "integrated_gradients.steps",
        "too few for the trapezoid",
    ),
    ("integrated_gradients", {"rule": "simpson"}, "integrated_gradients.rule", "'right'"),
    ("integrated_gradients", {"baseline": "grey"}, "integrated_gradients.baseline", "grey"),
    ("integrated_gradients", {"blur_sigma": 0}, "integrated_gradients.blur_sigma", "above 0"),
    ("integrated_gradients", {"beta": 0}, "integrated_gradients.beta", "above 0"),
    ("expected_gradients", {"samples": 0}, "expected_gradients.samples", "at least 1"),
    (
        "expected_gradients",
        {"background": "mnist5k"},
        "expected_gradients.background",
        "did you mean 'mnist_5k'",
    ),
    ("expected_gradients", {"blur_sigma": -1}, "expected_gradients.blur_sigma", "above 0"),
]
