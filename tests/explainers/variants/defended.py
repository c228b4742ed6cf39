"""Battery variants of the defended family."""

from torch import nn

from robustlab import data
from tests.nets import seeded


def digits_net() -> nn.Module:
    """Takes mnist_5k's digits: the only shape whose neighbours ship with the project."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 5, stride=3),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(6 * 6 * 6, 5),
    )


NETS = {"digits": lambda: seeded(digits_net)}
IMAGES = {"digits": lambda: data.load("mnist_5k").batch(3).images.double()}
TWO = ["input_x_gradient", {"name": "smooth_grad", "samples": 2, "sigma": 0.1}]
EVERYWHERE = [
    ("aggregate", {"of": ["gradient", "input_x_gradient"]}),
    ("sparsified_smooth_grad", {"samples": 2}),
]
OPTIONS = [
    ("resnet", "aggregate", {"of": TWO, "combine": "variance", "c": 0.5}),
    ("resnet", "aggregate", {"of": ["grad_cam", "lrp", "guided_backprop"], "post": "minmax"}),
    (
        "resnet",
        "sparsified_smooth_grad",
        {"samples": 3, "sigma": 0.05, "gamma": 0.2, "tau": 0.5, "seed": 7, "score": "prob"},
    ),
    ("resnet", "sparsified_smooth_grad", {"samples": 2, "explained": "prediction"}),
    ("resnet", "sparsified_smooth_grad", {"samples": 2, "gamma": 0.1}),
    ("digits", "tangent_projected", {}),
    ("digits", "tangent_projected", {"base": "input_x_gradient", "score": "prob", "dims": 3}),
]
# grad_cam goes back to its layer only, and lrp states convolutions of its rules
CLAIMS = {"aggregate": {"exact_cost": False}}
REFUSED = [
    ("aggregate", {"of": "gradient"}, "aggregate.of", "tuple"),
    ("aggregate", {"of": ["gradient"]}, "aggregate.of", "at least two"),
    ("aggregate", {"of": ["gradient", {"samples": 2}]}, "aggregate.of", "names no explainer"),
    ("aggregate", {"of": ["gradient", "gradeint"]}, "aggregate.of.explainer", "did you mean"),
    (
        "aggregate",
        {"of": ["gradient", {"name": "smooth_grad", "samples": 0}]},
        "aggregate.of.smooth_grad.samples",
        "at least 1",
    ),
    (
        "aggregate",
        {"of": ["gradient", {"name": "smooth_grad", "sigma": float("nan")}]},
        "aggregate.of.smooth_grad.sigma",
        "nan",
    ),
    ("aggregate", {"of": ["gradient", "aggregate"]}, "aggregate.of", "name its members"),
    ("aggregate", {"c": 0}, "aggregate.c", "above 0"),
    ("aggregate", {"combine": "median"}, "aggregate.combine", "'mean'"),
    ("sparsified_smooth_grad", {"samples": 0}, "sparsified_smooth_grad.samples", "at least 1"),
    ("sparsified_smooth_grad", {"sigma": 0}, "sparsified_smooth_grad.sigma", "above 0"),
    ("sparsified_smooth_grad", {"tau": 1.1}, "sparsified_smooth_grad.tau", "at most 1"),
    ("sparsified_smooth_grad", {"gamma": 0.2}, "sparsified_smooth_grad.gamma", "at most tau"),
    ("tangent_projected", {"data": "mnist5k"}, "tangent_projected.data", "did you mean"),
    ("tangent_projected", {"neighbours": 1}, "tangent_projected.neighbours", "at least 2"),
    ("tangent_projected", {"dims": 32}, "tangent_projected.dims", "one dimension less"),
    ("tangent_projected", {"base": "lrp"}, "tangent_projected.base", "'gradient'"),
]
