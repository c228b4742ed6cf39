"""Ask quantus, and write down what it says: fixtures.json, which test_quantus.py reads.

Run it from the repository's root in an environment of its own (its opencv gets in the way of
others), which needs nothing of ours:

    python -m venv quantus-env
    quantus-env/bin/pip install quantus==0.6.0 torch captum "numpy<2"
    quantus-env/bin/python -m tests.metrics.quantus.make_fixtures

Every input is a whole number over a power of two, all options are spelled out, and the
network computes in float64.
"""

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import quantus
import torch

from tests.metrics.quantus.net import LAYERS, PIXEL, UNIT, Net, slope

FILE = Path(__file__).parent / "fixtures.json"
COMMAND = "python -m tests.metrics.quantus.make_fixtures"
SIDE, CLASSES, IMAGES, STEPS, HIDDEN = 16, 4, 3, 4, 6
RAW = {"abs": False, "normalise": False, "disable_warnings": True}
NOTE = "integers: pixels, steps and maps in 1/32, weights in 1/64"


def main() -> None:
    torch.set_default_dtype(torch.float64)  # quantus calls torch.Tensor(x), which obeys this
    r = np.random.default_rng(20240607)
    versions = {name: version(name) for name in ("quantus", "torch", "numpy", "scipy")}
    versions["scikit-image"] = version("scikit-image")
    found = {"command": COMMAND, "versions": versions, "note": NOTE}
    found |= {"pairs": pairs(r), "single": single(r), "regions": regions(r), "model": model(r)}
    FILE.write_text(json.dumps(plain(found), separators=(",", ":")) + "\n", encoding="utf-8")


def pairs(r: np.random.Generator) -> dict:
    """Two maps at a time: plain, tied, sparse, opposed, one constant, both constant."""
    shape = (16, 18)
    plain, near = r.integers(-900, 900, (2, *shape))
    near = plain + near // 2
    tied, tied_too = r.integers(-2, 3, (2, *shape)) * 32
    sparse, sparse_too = np.maximum(r.integers(-400, 100, (2, *shape)), 0)
    flat = np.full(shape, 8)
    clean = np.stack([plain, tied, sparse, plain, flat, flat])
    other = np.stack([near, tied_too, sparse_too, -plain, near, 2 * flat])
    both = [(a / PIXEL, b / PIXEL) for a, b in zip(clean, other, strict=True)]
    lines = [(a.ravel(), b.ravel()) for a, b in both]
    return {
        "clean": clean,
        "other": other,
        "spearman": [quantus.correlation_spearman(a, b) for a, b in lines],
        "kendall": [quantus.correlation_kendall_tau(a, b) for a, b in lines],
        "pearson": [quantus.correlation_pearson(a, b) for a, b in lines],
        "cosine_distance": [quantus.similarity_func.cosine(a, b) for a, b in lines],
        "mse": [quantus.mse(a, b, batched=True) for a, b in lines],
        "ssim": [quantus.ssim(a, b) for a, b in both],
        "ssim_of_flattened": [quantus.ssim(a[None], b[None], batched=True)[0] for a, b in lines],
    }


def single(r: np.random.Generator) -> dict:
    """One map: plain, tied, one pixel, constant."""
    one = np.zeros((SIDE, SIDE), dtype=int)
    one[3, 4] = 50
    plain = r.integers(-900, 900, (SIDE, SIDE))
    maps = np.stack([plain, r.integers(-2, 3, (SIDE, SIDE)) * 32, one, np.full_like(one, 8)])
    options = {"abs": True, "normalise": False, "disable_warnings": True}
    return {
        "maps": maps,
        "sparseness": ask(quantus.Sparseness(**options), maps / PIXEL),
        "complexity": ask(quantus.Complexity(**options), maps / PIXEL),
    }


def regions(r: np.random.Generator) -> dict:
    """One map and a region: without ties, signed and not, tied, constant, an empty region."""
    plain = r.permutation(SIDE * SIDE).reshape(SIDE, SIDE) - 60  # every value once
    tied = r.integers(0, 3, (SIDE, SIDE)) * 32
    flat = np.full_like(tied, 8)
    maps = np.stack([plain, np.maximum(plain, 0), np.abs(plain), tied, flat, np.abs(plain)])
    inside = r.random(maps.shape) < 0.3
    inside[0, plain == plain.max()], inside[1, plain == plain.max()] = True, False
    inside[5] = False
    given = {"a": maps / PIXEL, "s_batch": inside[:, None]}
    return {
        "maps": maps,
        "inside": inside.astype(int),
        "order": np.argsort(-(maps / PIXEL).reshape(len(maps), -1), axis=-1),
        "pointing_game": ask(quantus.PointingGame(**RAW), **given),
        "relevance_mass_accuracy": ask(quantus.RelevanceMassAccuracy(**RAW), **given),
        "relevance_rank_accuracy": ask(quantus.RelevanceRankAccuracy(**RAW), **given),
    }


def model(r: np.random.Generator) -> dict:
    """What needs a network: removal, infidelity, stability, randomisation."""
    numbers = weights(r)
    images = r.integers(3, PIXEL - 2, (IMAGES, 1, SIDE, SIDE))
    images[0, 0, :2] = 0  # black pixels: a relative change of them is a change of nothing
    x = images / PIXEL
    lead = Net(numbers)(torch.tensor(x)).mean(0).detach().numpy()
    numbers["last"]["bias"] -= np.round(UNIT * lead).astype(int)  # close calls, several classes
    net = Net(numbers).eval()
    y = net(torch.tensor(x)).argmax(1).numpy()
    a = explain(net, x, y)
    asked = {"model": net, "x_batch": x, "y_batch": y, "a_batch": a, "explain_func": explain}
    steps = r.integers(-1, 2, (STEPS, IMAGES, 1, SIDE, SIDE))
    steps[STEPS - 1] *= 6  # large enough to change a prediction
    return {
        "weights": numbers,
        "images": images,
        "targets": y,
        "maps": a,
        "steps": steps,
        "removal": removal(net, x, y, a),
        "stability": stability(asked, steps / PIXEL),
        "randomisation": randomisation(asked),
    }


def weights(r: np.random.Generator) -> dict:
    """Small enough that no tanh saturates; the spare ones are what a layer is reset to."""
    sizes = [SIDE * SIDE, HIDDEN, HIDDEN - 1, CLASSES]
    scales = [0.12, 0.9, 1.5]

    def part(name: str) -> dict:
        i = LAYERS.index(name)
        shape, scale = (sizes[i + 1], sizes[i]), scales[i]
        draws = (scale * r.normal(size=s) for s in (shape, shape[:1], shape, shape[:1]))
        kinds = ("weight", "bias", "spare", "spare_bias")
        return {k: np.round(UNIT * d).astype(int) for k, d in zip(kinds, draws, strict=True)}

    return {name: part(name) for name in LAYERS}


def removal(net: Net, x: np.ndarray, y: np.ndarray, a: np.ndarray) -> dict:
    """Pixels, squares and whole grids of squares go; black is 0, not the image's minimum."""
    asked = {"model": net, "x_batch": x, "y_batch": y, "a_batch": a}
    black = {"perturb_baseline": 0.0}
    percentages = [5, 10, 20, 30, 50, 70, 90]
    road = [
        quantus.ROAD(percentages=percentages, noise=0.0, **RAW)(
            net, x[i : i + 1], y[i : i + 1], a[i : i + 1], channel_first=True
        )
        for i in range(len(x))
    ]
    gone = [np.argsort(-m.ravel())[: int(0.3 * m.size)] for m in a]
    filled = [
        quantus.noisy_linear_imputation(arr=image, indices=where, noise=0.0)
        for image, where in zip(x, gone, strict=True)
    ]
    flipped, areas = (
        call(quantus.PixelFlipping(features_in_step=32, **kind, **black, **RAW), **asked,
             softmax=True)
        for kind in ({}, {"return_auc_per_sample": True})
    )  # fmt: skip
    squares = quantus.RegionPerturbation(patch_size=4, regions_evaluation=16, **black, **RAW)
    grids = quantus.Infidelity(
        loss_func="mse", perturb_patch_sizes=[4], n_perturb_samples=1, **black, **RAW
    )
    return {
        "pixel_flipping": {"features_in_step": 32, "curve": flipped, "area": areas},
        "region_perturbation": {"side": 4, "curve": call(squares, **asked, softmax=True)},
        "infidelity": {"side": 4, "value": call(grids, **asked, softmax=False)},
        "road": {"percentages": percentages, "hits": [list(each.values()) for each in road]},
        "imputation": {"gone": np.stack(gone), "images": np.stack(filled)},
    }


def stability(asked: dict, steps: np.ndarray) -> dict:
    """All six with the same stored steps, with and without the rule for changed predictions."""
    sampled = {
        "max_sensitivity": quantus.MaxSensitivity,
        "avg_sensitivity": quantus.AvgSensitivity,
        "local_lipschitz": quantus.LocalLipschitzEstimate,
        "relative_input": quantus.RelativeInputStability,
        "relative_output": quantus.RelativeOutputStability,
        "relative_representation": quantus.RelativeRepresentationStability,
    }

    def value(cls: type, *, strict: bool, **more: object) -> list:
        taken = iter(steps.reshape(STEPS, IMAGES, -1))
        metric = cls(
            nr_samples=STEPS,
            perturb_func=lambda arr, **_: arr + next(taken),
            return_nan_when_prediction_changes=strict,
            **more,
            **RAW,
        )
        return call(metric, **asked)

    found = {}
    for name, cls in sampled.items():
        more = {"layer_names": ["second"]} if name == "relative_representation" else {}
        found[name] = value(cls, strict=False, **more)
        found[f"{name}_strict"] = value(cls, strict=True, **more)
    return found


def randomisation(asked: dict) -> dict:
    """Layers get their spare weights; another class is explained, which is noted down."""
    net, x, y = asked["model"], asked["x_batch"], asked["y_batch"]
    similar = {"similarity_func": quantus.correlation_spearman}
    found: dict = {}
    for order in ("top_down", "bottom_up", "independent"):
        test = quantus.MPRT(layer_order=order, **similar, **RAW)
        mean = quantus.MPRT(layer_order=order, return_average_correlation=True, **similar, **RAW)
        found[order] = {"layers": call(test, **asked), "average": call(mean, **asked)}
    classes: list = []

    def noting(model: Net, inputs: np.ndarray, targets: np.ndarray, **_: object) -> np.ndarray:
        classes.append(np.array(targets))
        return explain(model, inputs, targets)

    logit = quantus.RandomLogit(num_classes=CLASSES, **similar, **RAW)
    value = call(logit, **(asked | {"explain_func": noting}))
    assert net(torch.tensor(x)).shape[1] == CLASSES and (classes[-1] != y).all()
    return found | {"random_logit": {"classes": classes[-1], "value": value}}


def explain(model: Net, inputs: np.ndarray, targets: np.ndarray, **_: object) -> np.ndarray:
    return slope(model, torch.tensor(inputs), torch.tensor(targets)).numpy()


def ask(metric: quantus.Metric, a: np.ndarray, **more: object) -> list:
    """Of maps alone: the model is not called, and the images only lend their shape."""
    x = np.zeros((len(a), 1, SIDE, SIDE))
    y = np.zeros(len(a), dtype=int)
    return call(metric, model=None, x_batch=x, y_batch=y, a_batch=a[:, None].copy(), **more)


def call(metric: quantus.Metric, **asked: object) -> list:
    copied = {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in asked.items()}
    return metric(**copied, channel_first=True)


def plain(value: object) -> object:
    """Lists, numbers and None in the place of NaN."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, float):
        return None if np.isnan(value) else value
    return value


if __name__ == "__main__":
    main()
