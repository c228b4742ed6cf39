"""Images nearby: against closed forms, loops over the same copies, captum, and what cannot be."""

import dataclasses
from dataclasses import dataclass, replace
from functools import cache
from itertools import product

import numpy as np
import pytest
import torch
from captum.metrics import sensitivity_max
from torch import Tensor, nn

from attacks.explanation.climbing import climb_to
from robustlab.core import streaming
from robustlab.core.errors import InvalidInput
from robustlab.core.maps import to_maps
from robustlab.core.randomness import uniform
from robustlab.core.streaming import logits_of
from robustlab.core.tables import options_of
from robustlab.core.types import ExplainerMetric, Passes, Problem
from robustlab.core.wrapping import Counted
from robustlab.explainers import build as explainer
from robustlab.explainers.gradient.plain import Gradient
from robustlab.metrics import METRICS, build
from robustlab.metrics.nearby import EXPLANATIONS_PER_STEP
from tests.attacks.problems import posed
from tests.nets import Quadratic, pictures, seeded

SEARCHED = ("max_sensitivity", "local_lipschitz", "ris", "ros", "rrs")
ALL = ("max_sensitivity", "avg_sensitivity", "local_lipschitz", "ris", "ros", "rrs")
RELATIVE = ("ris", "ros", "rrs")
SIZE = 2


def never(*_):
    raise AssertionError("nothing is to be searched")


def examined(name: str, problem: Problem, climb=never, **options) -> Tensor:
    value = build(name, **options).examine(problem, climb)
    assert value.shape == (len(problem.images),) and value.dtype == torch.float64
    assert torch.isfinite(value).all() and (value >= 0).all() and not value.requires_grad
    return value


@cache
def problem_of(net="plain", name="gradient", **options) -> Problem:
    return posed(net, explainer(name, **options))


@dataclass(frozen=True, kw_only=True)
class Scaled(Gradient):
    """c times the gradient, and without products: its slope goes through the graph."""

    factor: float = 1.0
    transpose_product = None

    def explain(self, *args, **kwargs) -> Tensor:
        return self.factor * super().explain(*args, **kwargs)


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3 * SIZE * SIZE, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.flatten(1))


@cache
def quadratic() -> tuple[Problem, Tensor]:
    """Φ(x) = A_t x + b_t without a norm of its own, and A_t for each image."""
    net = seeded(lambda: Quadratic(3 * SIZE * SIZE))
    problem = posed(net, explainer("gradient"), 0.3 + 0.4 * pictures(2, SIZE))
    return problem, net.a.detach()[problem.targets]


# --- closed forms --------------------------------------------------------------------------


@pytest.mark.parametrize("name", SEARCHED)
@pytest.mark.parametrize("search", ["none", "gradient", "evolution"])
def test_the_gradient_of_a_linear_model_cannot_move(name, search):
    problem = posed(seeded(Linear), "gradient", pictures(2, SIZE))
    value = examined(name, problem, climb_to, search=search, samples=4, steps=4)
    assert torch.equal(value, torch.zeros(2).double())


@pytest.mark.parametrize("way", ["products", "graph"])
def test_of_a_linear_explanation_the_lipschitz_constant_is_the_norm_of_its_matrix(way):
    problem, a = quadratic()
    if way == "graph":
        problem = replace(problem, explainer=Scaled())
    options = {"compare": "raw", "radius": 0.05, "samples": 10}
    most = torch.linalg.matrix_norm(a, 2)
    sampled = examined("local_lipschitz", problem, **options)
    found = examined("local_lipschitz", problem, climb_to, search="gradient", steps=60, **options)
    assert (found <= (1 + 1e-9) * most).all()
    assert (found >= 0.97 * most).all(), found / most
    assert (sampled < 0.9 * most).all(), "canary: random copies come near by themselves"


def test_of_a_linear_explanation_the_largest_change_is_at_a_corner():
    problem, a = quadratic()
    options = {"compare": "raw", "radius": 0.05, "samples": 10}
    corners = 0.05 * torch.tensor([*product((-1.0, 1.0), repeat=12)]).double()
    most = (corners @ a).norm(dim=2).amax(1) / problem.raw.flatten(1).norm(dim=1)
    found = examined("max_sensitivity", problem, climb_to, search="gradient", **options)
    blind = examined("max_sensitivity", problem, climb_to, search="evolution", **options)
    sampled = examined("max_sensitivity", problem, **options)
    assert (found <= (1 + 1e-9) * most).all() and (blind <= (1 + 1e-9) * most).all()
    assert (found >= 0.88 * most).all() and (blind >= 0.8 * most).all()  # one corner of many
    assert (sampled < 0.7 * most).all(), "canary"


def test_of_a_linear_explanation_sensitivity_grows_with_the_radius_and_lipschitz_does_not():
    problem, _ = quadratic()
    for name in ("max_sensitivity", "avg_sensitivity", "local_lipschitz"):
        small, large = (
            examined(name, problem, compare="raw", radius=r, samples=5) for r in (0.01, 0.03)
        )
        growth = 1 if name == "local_lipschitz" else 3
        torch.testing.assert_close(large, growth * small)
    for name in ("max_sensitivity", "local_lipschitz"):
        searched = [
            examined(name, problem, climb_to, search="gradient", radius=r, samples=5, steps=12)
            for r in (0.005, 0.01, 0.03)
        ]
        if name == "max_sensitivity":
            assert (searched[0] < searched[1]).all() and (searched[1] < searched[2]).all()


# --- loops over the same copies ------------------------------------------------------------


def copies_of(problem: Problem, i: int, radius: float, samples: int, *, clip: bool) -> list[Tensor]:
    """The copies of image ``i``, one by one."""
    image = problem.images[i]
    found = []
    for j in range(samples):
        noise = uniform(image.unsqueeze(0), [problem.ids[i]], 7, f"nearby/{j}")[0]
        near = image + radius * noise
        found.append(near.clamp(0, 1) if clip else near)
    return found


def explained(problem: Problem, i: int, image: Tensor, compare: str) -> np.ndarray:
    one = problem.targets[i : i + 1], [problem.ids[i]]
    raw = problem.explainer.explain(problem.model, image.unsqueeze(0), one[0], ids=one[1])
    raw = raw.detach()
    shown = raw if compare == "raw" else to_maps(raw, problem.explainer.post, (12, 12))
    return shown[0].double().numpy()


def inside(net: nn.Module, image: Tensor) -> np.ndarray:
    """What goes into the last dense layer of the networks of these tests."""
    last = [m for m in net.modules() if isinstance(m, nn.Linear)][-1]
    kept = []
    handle = last.register_forward_hook(lambda _, inputs, __: kept.append(inputs[0]))
    net(image.unsqueeze(0))
    handle.remove()
    return kept[0][0].detach().numpy()


def size(x) -> float:
    return float(sum(v * v for v in np.asarray(x).ravel()) ** 0.5)


def quotients(a, b) -> list[float]:
    pairs = zip(np.asarray(a).ravel(), np.asarray(b).ravel(), strict=True)
    return [(v - u) / u for u, v in pairs if u != 0]


def by_loops(name: str, problem: Problem, compare: str, radius: float, samples: int, *, clip: bool):
    net, said = problem.model, []
    for i, image in enumerate(problem.images):
        before, values = explained(problem, i, image, compare), []
        logits = net(image.unsqueeze(0))[0].detach().numpy()
        for near in copies_of(problem, i, radius, samples, clip=clip):
            after = explained(problem, i, near, compare)
            if name in ("max_sensitivity", "avg_sensitivity"):
                values.append(size(after - before) / size(before) if before.any() else after.any())
                continue
            if name == "local_lipschitz":
                values.append(size(after - before) / size(near - image))
                continue
            there = net(near.unsqueeze(0))[0].detach().numpy()
            if there.argmax() != logits.argmax():
                continue
            below = {
                "ris": lambda near=near: size(quotients(image, near)),  # noqa: B023
                "ros": lambda there=there: size(there - logits),  # noqa: B023
                "rrs": lambda near=near: size(quotients(inside(net, image), inside(net, near))),  # noqa: B023
            }[name]()
            values.append(size(quotients(before, after)) / below)
        whole = sum(values) / len(values) if name == "avg_sensitivity" else max(values, default=0)
        said.append(whole)
    return torch.tensor(said, dtype=torch.float64)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(
    ("net", "shows", "compare", "clip"),
    [
        ("plain", "gradient", "map", True),
        ("residual", "gradient", "raw", False),
        ("residual", "grad_cam", "raw", True),
    ],
)
def test_every_ratio_is_the_loop_over_the_same_copies(name, net, shows, compare, clip):
    problem = problem_of(net, shows)
    images = problem.images.clone()
    images[1, :, :4] = 0.0  # black pixels, to which nothing is relative
    problem = posed(net, problem.explainer, images)
    expected = by_loops(name, problem, compare, 0.05, 6, clip=clip)
    options = {"compare": compare, "radius": 0.05, "samples": 6, "seed": 7, "clip": clip}
    if name == "ros":  # the outputs of these networks hardly depend on the picture
        options["floor"] = 1e-6
    found = examined(name, problem, **options)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    assert (expected > 0).sum() >= 2, "canary: there is nothing to be told apart"
    other = examined(name, problem, **{**options, "seed": 8})
    assert not torch.allclose(found, other, rtol=1e-3)


def test_copies_that_are_predicted_otherwise_do_not_count():
    problem, radius = problem_of("plain"), 0.5
    net, kept = problem.model, []
    for i, image in enumerate(problem.images):
        near = torch.stack(copies_of(problem, i, radius, 12, clip=True))
        own = net(image.unsqueeze(0)).argmax(1)
        kept.append(int((net(near).argmax(1) == own).sum()))
    assert 0 < sum(kept) < 36, "canary: all copies are predicted alike"
    for name in RELATIVE:
        expected = by_loops(name, problem, "map", radius, 12, clip=True)
        found = examined(name, problem, radius=radius, samples=12, seed=7)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
        # Quantus: NaN for such a copy, and the maximum of the image with it
        spoilt = np.max([np.nan, *found.tolist()])
        assert np.isnan(spoilt) and torch.isfinite(found).all()


def test_an_image_whose_copies_all_change_sides_has_the_value_of_itself():
    class Touchy(nn.Module):
        """Class 1 for one image exactly, class 0 for all others."""

        def __init__(self, image: Tensor) -> None:
            super().__init__()
            self.fc = nn.Linear(image.numel(), 1).double()
            self.register_buffer("image", image)

        def forward(self, x: Tensor) -> Tensor:
            here = (x == self.image).flatten(1).all(1)
            score = self.fc(x.flatten(1)).square()
            return torch.cat([score, score + torch.where(here, 1.0, -1.0).unsqueeze(1)], 1)

    image = 0.2 + 0.5 * pictures(1, SIZE)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        problem = posed(Touchy(image[0]).eval(), "gradient", image)
    for name in RELATIVE:
        for search in ("none", "gradient", "evolution"):
            value = examined(name, problem, climb_to, search=search, samples=3, steps=3)
            assert torch.equal(value, torch.zeros(1).double())
    assert (examined("max_sensitivity", problem, samples=3) > 0).all()


def test_noise_goes_both_ways():
    seen = []

    @dataclass(frozen=True, kw_only=True)
    class Watching(Gradient):
        def explain(self, model, images, targets, *, ids=None, create_graph=False):
            seen.append(images)
            return super().explain(model, images, targets, ids=ids, create_graph=create_graph)

    problem = replace(problem_of("plain"), explainer=Watching())
    examined("ris", problem, radius=0.1, samples=40, clip=False)
    change = torch.cat([s - problem.images.repeat(len(s) // 3, 1, 1, 1) for s in seen])
    assert len(change) == 120 and float(change.abs().max()) <= 0.1 + 1e-12
    assert abs(float(change.mean())) < 0.002  # Quantus: 0.11 of [0.02, 0.2]
    assert float(change.square().mean().sqrt()) == pytest.approx(0.1 / 3**0.5, rel=0.02)
    seen.clear()
    examined("ris", problem, radius=0.1, samples=40)
    assert all(float(s.min()) >= 0 and float(s.max()) <= 1 for s in seen)


# --- another library -----------------------------------------------------------------------


@pytest.mark.parametrize("net", ["plain", "residual"])
def test_captum_agrees_on_the_same_copies(net):
    problem, radius, samples = problem_of(net), 0.05, 5

    def perturbed(images: Tensor) -> Tensor:
        """captum repeats every image ``samples`` times, one after the other."""
        images = images[0] if isinstance(images, tuple) else images
        copies = [
            copies_of(problem, i, radius, samples, clip=False) for i in range(len(problem.images))
        ]
        assert len(images) == len(copies) * samples
        return torch.stack([copy for own in copies for copy in own])

    def explain(images: Tensor | tuple[Tensor], target: Tensor) -> Tensor | tuple[Tensor]:
        """As captum's own methods: a tuple in, a tuple out."""
        if isinstance(images, tuple):
            return (explain(images[0], target),)
        return problem.explainer.explain(problem.model, images, target).detach().contiguous()

    theirs = sensitivity_max(
        explain, problem.images, perturb_func=perturbed, n_perturb_samples=samples,
        max_examples_per_batch=len(problem.images) * samples, target=problem.targets,
    )  # fmt: skip
    ours = examined(
        "max_sensitivity", problem, compare="raw", radius=radius, samples=samples, clip=False,
        seed=7,
    )  # fmt: skip
    torch.testing.assert_close(ours, theirs.double(), rtol=1e-6, atol=1e-9)


def test_it_is_the_largest_and_the_mean_of_the_metric_of_two_maps():
    problem = problem_of("residual", "integrated_gradients", steps=4)
    relative = build("relative_l2")
    found = []
    for j in range(5):
        near = torch.stack(
            [copies_of(problem, i, 0.05, 5, clip=True)[j] for i in range(len(problem.images))]
        )
        raw = problem.explainer.explain(problem.model, near, problem.targets, ids=problem.ids)
        found.append(relative(problem.maps, to_maps(raw, problem.explainer.post, (12, 12))))
    options = {"radius": 0.05, "samples": 5, "seed": 7}
    torch.testing.assert_close(
        examined("max_sensitivity", problem, **options), torch.stack(found).amax(0)
    )
    torch.testing.assert_close(
        examined("avg_sensitivity", problem, **options), torch.stack(found).mean(0)
    )


# --- what holds of all ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_scale(name):
    one, more = (replace(problem_of("plain"), explainer=Scaled(factor=f)) for f in (1.0, 1e-18))
    more = replace(more, maps=1e-18 * one.maps, raw=1e-18 * one.raw)
    values = [examined(name, p, samples=4, compare="raw") for p in (one, more)]
    factor = 1e-18 if name == "local_lipschitz" else 1.0
    torch.testing.assert_close(values[1], factor * values[0], rtol=1e-9, atol=0)


@pytest.mark.parametrize("name", SEARCHED)
def test_more_copies_never_find_less(name):
    problem = problem_of("plain")
    values = [examined(name, problem, samples=n) for n in (1, 3, 9)]
    assert (values[0] <= values[1]).all() and (values[1] <= values[2]).all()
    assert (values[0] < values[2]).any()
    mean = examined("avg_sensitivity", problem, samples=9)
    assert (mean < examined("max_sensitivity", problem, samples=9)).all()


@pytest.mark.parametrize("name", SEARCHED)
@pytest.mark.parametrize(
    ("search", "shows"),
    [
        ("gradient", "gradient"),
        ("gradient", "grad_cam"),
        ("gradient", "lrp"),
        ("evolution", "gradient"),
        ("evolution", "occlusion"),
    ],
)
def test_a_search_never_finds_less_on_any_image(name, search, shows):
    problem = problem_of("plain", shows)
    options = {"samples": 4, "radius": 0.05}
    sampled = examined(name, problem, **options)
    steps = 2 if shows == "occlusion" else 6
    searched = examined(name, problem, climb_to, search=search, steps=steps, **options)
    assert (searched >= sampled).all()
    assert (searched > sampled).any(), "the search finds nothing at all"


@pytest.mark.parametrize("name", ALL)
def test_neither_the_batch_nor_the_program_plays_a_part(name, monkeypatch):
    problem = posed("residual", "gradient", pictures(5))
    searching = {} if name == "avg_sensitivity" else {"search": "gradient", "steps": 3}
    options = {"samples": 3, **searching}
    whole = examined(name, problem, climb_to, **options)
    assert whole.std() > 0
    state = torch.get_rng_state()
    weights = [p.clone() for p in problem.model.parameters()]
    flags = [p.requires_grad for p in problem.model.parameters()]
    for side in (1, 3):
        monkeypatch.setattr(streaming, "PIXELS_PER_MICRO_BATCH", side * 144)
        parts = [
            examined(name, part_of(problem, slice(i, i + side)), climb_to, **options)
            for i in range(0, 5, side)
        ]
        torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(
            examined(name, problem, climb_to, **options), whole, rtol=1e-6, atol=1e-9
        )
    assert torch.equal(torch.get_rng_state(), state)
    assert [p.requires_grad for p in problem.model.parameters()] == flags
    for now, then in zip(problem.model.parameters(), weights, strict=True):
        assert torch.equal(now, then) and now.grad is None
    renamed = replace(problem, ids=(*problem.ids[:2], "another", *problem.ids[3:]))
    differs = examined(name, renamed, climb_to, **options) != whole
    assert differs.tolist() == [False, False, True, False, False]
    assert examined(name, part_of(problem, slice(0, 0)), never, samples=2).shape == (0,)


def part_of(problem: Problem, where: slice) -> Problem:
    cut = {k: v[where] for k, v in vars(problem).items() if isinstance(v, Tensor | tuple)}
    return replace(problem, **cut)


def test_a_stochastic_explainer_draws_the_same_numbers_for_a_copy():
    problem = posed("smooth", explainer("smooth_grad", samples=3, sigma=0.2))
    value = examined("max_sensitivity", problem, radius=1e-6, samples=3)
    assert (value < 1e-4).all()
    renamed = replace(problem, ids=("x", "y", "z"))  # canary: Φ(x) of other draws
    assert (examined("max_sensitivity", renamed, radius=1e-6, samples=3) > 1e-2).all()


@pytest.mark.parametrize("name", ALL)
def test_the_stated_cost_is_what_is_counted(name):
    counted = Counted(problem_of("plain").model)
    problem = replace(problem_of("plain"), model=counted)
    metric = build(name, samples=5)
    metric.examine(problem, never)
    stated = metric.cost(problem.explainer)
    assert (counted.forwards, counted.backwards) == (3 * stated.forward, 3 * stated.backward)


def test_the_cost_of_a_search_is_about_what_is_stated():
    for search, shows in (("gradient", "gradient"), ("evolution", "grad_cam")):
        counted = Counted(problem_of("plain").model)
        problem = replace(problem_of("plain", shows), model=counted)
        metric = build("max_sensitivity", samples=2, search=search, steps=20)
        metric.examine(problem, climb_to)
        assert counted.forwards == pytest.approx(
            3 * metric.cost(problem.explainer).forward, rel=0.3
        )


# --- zeros and worse -----------------------------------------------------------------------


def test_black_pixels_do_not_rule_the_relative_change_of_an_image():
    images = pictures(2)
    images[:, :, :9] = 0.0
    problem = posed("plain", "gradient", images)
    ours = examined("ris", problem, samples=4)
    theirs = examined("ris", problem, samples=4, eps_min=1e-6)
    assert (theirs < 1e-3 * ours).all(), "canary: x / 1e-6 of black pixels is all that counts"
    dark = examined("ris", posed("plain", "gradient", 0 * images), samples=2)
    assert torch.equal(dark, torch.zeros(2).double())


def test_eps_min_is_as_quantus_writes_it():
    problem, eps, radius = problem_of("residual", "grad_cam"), 1e-6, 0.1
    images = problem.images.clone()
    images[:, :, :3] = 0.0
    problem = posed("residual", problem.explainer, images)

    def change(before, after):  # quantus.metrics.robustness.relative_input_stability
        return size((before - after) / (before + (before == 0) * eps))

    expected = []
    for i, image in enumerate(images):
        before, values = explained(problem, i, image, "raw"), []
        own = logits_of(problem.model, image.unsqueeze(0)).argmax()
        for near in copies_of(problem, i, radius, 5, clip=False):
            if logits_of(problem.model, near.unsqueeze(0)).argmax() == own:
                far = change(before, explained(problem, i, near, "raw"))
                values.append(far / change(image.numpy(), near.numpy()))
        expected.append(max(values, default=0.0))
    found = examined(
        "ris", problem, compare="raw", radius=radius, samples=5, clip=False, seed=7, eps_min=eps
    )
    torch.testing.assert_close(
        found, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=0
    )


@dataclass(frozen=True, kw_only=True)
class Told(Gradient):
    """``here`` of the images of a problem, ``there`` of all others."""

    known: Tensor
    here: float
    there: float

    def explain(self, model, images, targets, *, ids=None, create_graph=False):
        same = torch.stack([(image == self.known).flatten(1).all(1).any() for image in images])
        value = torch.where(same, self.here, self.there).to(images)
        return value.view(-1, 1, 1, 1).expand(len(images), 1, 12, 12)


@pytest.mark.parametrize(
    ("here", "there", "expected"),
    [(0.0, 0.0, 0.0), (0.0, 3.0, 1.0), (2.0, 2.0, 0.0), (2.0, 0.0, 1.0)],
)
def test_constant_and_empty_maps_have_a_value(here, there, expected):
    base = problem_of("plain")
    problem = posed("plain", Told(known=base.images, here=here, there=there))
    for name in ("max_sensitivity", "avg_sensitivity"):
        value = examined(name, problem, samples=3)
        torch.testing.assert_close(value, torch.full((3,), expected).double())
    for name in SEARCHED:
        value = examined(name, problem, samples=3)
        assert bool((value > 0).all()) == (here != there and (here > 0 or name not in RELATIVE))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_an_attribution_that_is_no_number_is_refused(name, bad):
    base = problem_of("plain")
    for here, there in ((bad, 1.0), (1.0, bad)):
        problem = replace(base, explainer=Told(known=base.images, here=here, there=there))
        problem = replace(problem, raw=None)
        with pytest.raises(InvalidInput, match="explainer: its attribution contains NaN"):
            examined(name, problem, samples=2, compare="raw")


def test_a_floor_keeps_a_search_from_winning_next_to_the_image():
    problem = problem_of("plain")  # whose gradient jumps at every kink
    options = {"search": "gradient", "steps": 30, "samples": 4, "radius": 0.05}
    bounded = examined("local_lipschitz", problem, climb_to, **options, floor=0.1)
    free = examined("local_lipschitz", problem, climb_to, **options, floor=1e-9)
    sampled = [examined("local_lipschitz", problem, samples=4, floor=f) for f in (0.1, 1e-9)]
    assert torch.equal(*sampled), "a copy is never so near"
    assert (free >= sampled[0]).all() and (bounded >= sampled[0]).all()
    length = problem.images[0].numel() ** 0.5
    jump = examined("max_sensitivity", problem, climb_to, **options)
    most = 20 * jump * problem.maps.flatten(1).norm(dim=1)
    assert (bounded <= most / (0.1 * 0.05 * length)).all()


def test_next_to_a_jump_the_floor_is_what_counts():
    base = problem_of("plain")
    problem = posed("plain", Told(known=base.images, here=1.0, there=3.0))
    length, jump = 0.1 * problem.images[0].numel() ** 0.5, 2.0 * 12

    def next_door(search, posed_, change, start, budget, steps):
        return posed_.images + 1e-9

    for floor in (0.01, 0.2):
        value = examined(
            "local_lipschitz", problem, next_door, search="evolution", radius=0.1, samples=3,
            floor=floor, compare="raw",
        )  # fmt: skip
        torch.testing.assert_close(value, torch.full((3,), jump / (floor * length)).double())


@pytest.mark.parametrize("name", SEARCHED)
def test_a_search_is_not_believed(name):
    problem, asked = problem_of("plain"), []

    def lies(search, posed_, change, start, budget, steps):
        asked.append((search, posed_.seed, steps))
        raw = posed_.explainer.explain(posed_.model, start, posed_.targets, ids=posed_.ids)
        began = change.value(start, raw, slice(0, 3))
        torch.testing.assert_close(began, sampled)  # at the best copies
        return posed_.images.clone()  # where nothing has changed

    options = {"samples": 4, "seed": 5}
    sampled = examined(name, problem, **options)
    found = examined(name, problem, lies, search="evolution", steps=9, **options)
    assert torch.equal(found, sampled) and asked == [("evolution", 5, 9)]


@pytest.mark.parametrize("name", RELATIVE)
def test_the_prediction_that_has_to_stay_is_not_the_explained_class(name):
    problem = problem_of("plain")
    other = replace(problem, targets=(problem.predictions + 1) % 5)
    raw = other.explainer.explain(other.model, other.images, other.targets)
    other = replace(other, raw=raw, maps=raw.abs().sum(1), predictions=other.targets)
    assert (examined(name, other, samples=3) > 0).all()


# --- declarations and refusals -------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_class_describes_and_rebuilds_itself(name):
    cls = METRICS[name]
    metric = build(name, samples=3, radius=0.1)
    assert cls.name == name and isinstance(metric, ExplainerMetric) and not callable(metric)
    assert build(name, **options_of(metric)) == metric and hash(metric)
    assert all(f.kw_only for f in dataclasses.fields(cls))
    assert isinstance(metric.cost(Gradient()), Passes)
    words = ("one float64 number", "ties", "constant", "all", "hance", "ost", "Source:", "[B]")
    text = " ".join(cls.__doc__.split()).replace("One float", "one float").replace("Ties", "ties")
    assert [word for word in words if word not in text] == []


@pytest.mark.parametrize(
    ("name", "options", "field", "words"),
    [
        ("max_sensitivity", {"samples": 0}, "samples", "at least 1"),
        ("max_sensitivity", {"steps": 0}, "steps", "at least 1"),
        ("max_sensitivity", {"radius": 0}, "radius", "above 0"),
        ("max_sensitivity", {"radius": 8}, "radius", "at most 1"),
        ("max_sensitivity", {"search": "gradients"}, "search", "gradient"),
        ("max_sensitivity", {"compare": "maps"}, "compare", "map"),
        ("avg_sensitivity", {"search": "gradient"}, "search", "where the search has been"),
        ("local_lipschitz", {"floor": 0}, "floor", "above 0"),
        ("ris", {"floor": 1}, "floor", "below 1"),
        ("ros", {"eps_min": 0}, "eps_min", "above 0"),
        ("rrs", {"eps_min": -1}, "eps_min", "above 0"),
    ],
)
def test_impossible_options_are_refused(name, options, field, words):
    with pytest.raises(InvalidInput, match=words) as caught:
        build(name, **options)
    assert caught.value.field == f"{name}.{field}"


def test_a_search_by_gradient_wants_one():
    problem = problem_of("plain", "lime", samples=40)
    with pytest.raises(InvalidInput, match="has no gradient to climb; search: evolution"):
        examined("max_sensitivity", problem, climb_to, search="gradient", samples=1)


def test_the_layer_of_rrs_can_be_named_and_must_exist():
    problem = problem_of("plain")
    inner = examined("rrs", problem, samples=3)
    same = examined("rrs", problem, samples=3, layer="net.head.1")  # the ReLU before the last
    torch.testing.assert_close(same, inner)
    assert (examined("rrs", problem, samples=3, layer="net.features.0") != inner).all()
    for layer in ("net.features.17", ""):
        with pytest.raises(InvalidInput, match="the model has no module") as caught:
            examined("rrs", problem, samples=1, layer=layer)
        assert caught.value.field == "layer"

    class Bare(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :4].square()

    with pytest.raises(InvalidInput, match="no dense layer or convolution ran"):
        examined("rrs", posed(Bare().eval(), "gradient", pictures(1)), samples=1)


def test_the_passes_per_step_are_those_of_the_searches():
    assert EXPLANATIONS_PER_STEP == {"none": 0, "gradient": 3, "evolution": 8}
