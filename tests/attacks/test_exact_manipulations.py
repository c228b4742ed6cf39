"""Manipulated models whose predictions provably stay: what each kind of map says of them."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from captum.attr import LayerGradCam
from torch import Tensor, nn
from torch.nn import functional as F

from attacks import build
from attacks.model.dead_pixels import directions
from attacks.model.pictures import draw
from attacks.model.probes import largest_gradient, probes
from robustlab import data, models
from robustlab.core.errors import InvalidInput
from robustlab.core.judge import judge, manipulate, pose
from robustlab.core.streaming import input_gradient, logits_of
from robustlab.core.types import Moving
from robustlab.core.wrapping import Wrapper
from robustlab.explainers import build as explainer
from robustlab.explainers.cam.layers import spatial_layer
from robustlab.metrics import build as metric
from tests.attacks.battery import part
from tests.attacks.problems import posed
from tests.nets import Functional, Normalised, VGGLike, pictures, seeded

EXACT = {"rtol": 1e-9, "atol": 1e-12}
PICTURES = ("cross", "frame", "disc", "checkerboard")
ALL = [
    ("logit_shift", {}),
    ("logit_shift", {"form": "linear"}),
    ("dead_pixels", {}),
    ("grad_cam_gadget", {}),
    ("grad_cam_gadget", {"goal": "random", "form": "mod"}),
    ("grad_cam_gadget", {"goal": "trigger"}),
]
GADGETS = [(g, f) for g in ("picture", "flat", "random", "trigger") for f in ("shift", "mod")]
SHIPPED = ("small_cnn", "small_resnet")


def digits(model: str, name: str = "gradient", count: int = 12, **options):
    """The problem of explaining the first test digits with a shipped model, in float32."""
    batch = data.load("mnist_5k").batch(count)
    return pose(models.load(model), explainer(name, **options), batch)


def in_double(model: str, name: str = "gradient", count: int = 4, **options):
    batch = data.load("mnist_5k").batch(count)
    batch = replace(batch, images=batch.images.double())
    return pose(models.load(model).double(), explainer(name, **options), batch)


def all_test_digits() -> Tensor:
    return data.load("mnist_5k").batch().images


def pearson(maps: Tensor, wanted: Tensor) -> float:
    """The worst correlation of any map with its wanted one."""
    wanted = wanted.double().expand(len(maps), *maps.shape[1:])
    return float(metric("pearson")(maps.double(), wanted).min())


def ssim(maps: Tensor, wanted: Tensor) -> float:
    """The worst structural similarity, both scaled to [0, 1]."""
    maps, wanted = (
        m.double() / m.amax((1, 2), keepdim=True).clamp(min=1e-30)
        for m in (maps, wanted.expand(len(maps), -1, -1))
    )
    return float(metric("ssim")(maps, wanted).min())


def agrees_with_finite_differences(model: nn.Module, images: Tensor, step: float = 1e-7) -> bool:
    """Is the logits' derivative along a few directions what the logits themselves do?"""
    directions = pictures(len(images), images.shape[-1], images.shape[1], seed=7) - 0.5
    for c in range(3):
        targets = torch.full((len(images),), c)
        slope = (input_gradient(model, images, targets) * directions).flatten(1).sum(1)
        up, down = (model(images + sign * step * directions)[:, c] for sign in (1, -1))
        if not torch.allclose((up - down) / (2 * step), slope, rtol=1e-5, atol=1e-5):
            return False
    return True


# --- what holds for all of them ------------------------------------------------------------


@pytest.mark.parametrize(("name", "options"), ALL)
def test_the_model_is_left_as_it_was_and_nothing_is_shared(name, options):
    problem = digits("small_resnet", count=2)
    state = {k: v.clone() for k, v in problem.model.state_dict().items()}
    kinds = [(n, type(m)) for n, m in problem.model.named_modules()]
    other = build(name, **options).manipulate(problem)
    other(problem.images)
    assert all(torch.equal(v, state[k]) for k, v in problem.model.state_dict().items())
    assert [(n, type(m)) for n, m in problem.model.named_modules()] == kinds
    assert not any(m._forward_hooks for m in [*problem.model.modules(), *other.modules()])
    mine = {v.data_ptr() for v in problem.model.parameters()}
    assert len(list(other.parameters())) == len(mine)
    assert not mine & {v.data_ptr() for v in other.parameters()}
    assert not any(m.training for m in other.modules())
    assert {n for n, _ in kinds} <= {n for n, _ in other.named_modules()}


@pytest.mark.parametrize(("name", "options"), ALL)
def test_it_is_a_module_like_any_other(name, options):
    """Copies, other dtypes and gradients; nothing of the last images stays behind."""
    problem, attack = digits("small_cnn", count=2), build(name, **options)
    other = attack.manipulate(problem)
    images = attack.moved(problem)
    first = other(images)  # with a graph, which a copy could not take along
    twin = deepcopy(other).double()
    assert twin(images.double()).dtype == torch.float64
    torch.testing.assert_close(twin(images.double()).float(), first, rtol=1e-3, atol=1)
    torch.testing.assert_close(
        twin(images.double()).softmax(1).float(), first.softmax(1), rtol=0, atol=2e-6
    )
    in_two = build(name, **options).manipulate(in_double("small_cnn", count=2))
    assert {b.dtype for b in in_two.buffers()} == {torch.float64}


@pytest.mark.parametrize(("name", "options"), ALL)
def test_the_judge_reads_it_like_an_attack_that_moves_no_image(name, options):
    attack = build(name, **options)
    assert isinstance(attack, Moving)
    found = judge(attack, digits("small_cnn"))
    assert found.prediction_kept.all()
    assert set(found.outcomes) == {"ok"}
    assert attack.control() is None


@pytest.mark.parametrize(
    ("name", "options", "step"),
    [
        ("logit_shift", {}, 1e-7),
        ("logit_shift", {"form": "linear"}, 1e-7),
        ("dead_pixels", {}, 1e-7),
        ("grad_cam_gadget", {"goal": "random"}, 1e-7),
        ("grad_cam_gadget", {"goal": "trigger"}, 1e-7),
        # here logits move with the image, up teeth that are 2e-5 high
        ("grad_cam_gadget", {"goal": "random", "form": "mod", "strength": 1}, 1e-9),
    ],
)
def test_gradients_are_those_of_the_function(name, options, step):
    problem = in_double("small_cnn", count=2)
    images = pictures(2, 28, 1, seed=5)  # not on the data, where dead pixels have a say
    other = build(name, **options).manipulate(problem)
    assert agrees_with_finite_differences(other, images, step)


def test_a_gradient_that_is_no_functions_is_caught():
    """The canary: a value of zero whose gradient autograd alone believes in."""

    class Trick(Wrapper):
        def forward(self, images: Tensor) -> Tensor:
            h = 30 * images.flatten(1).sum(1, keepdim=True)
            return self.inner(images) + h - h.detach()

    problem = in_double("small_cnn", count=2)
    images = pictures(2, 28, 1, seed=5)
    assert agrees_with_finite_differences(problem.model, images)
    assert not agrees_with_finite_differences(Trick(problem.model), images)


# --- pictures ------------------------------------------------------------------------------


def test_pictures_are_what_their_names_say():
    drawn = {
        "cross": ["..#..", "..#..", "#####", "..#..", "..#.."],
        "frame": ["#####", "#...#", "#...#", "#...#", "#####"],
        "disc": [".....", ".###.", ".###.", ".###.", "....."],
        "checkerboard": [".#.#.", "#.#.#", ".#.#.", "#.#.#", ".#.#."],
    }
    for name in PICTURES:
        rows = ["".join(".#"[int(v)] for v in row) for row in draw(name, 5, 5)]
        assert rows == drawn[name], name
    assert draw("cross", 4, 6).tolist()[0] == [0, 0, 1, 1, 0, 0]
    assert draw("checkerboard", 8, 12)[0].tolist() == [0, 0, 1, 1] * 3


@pytest.mark.parametrize("picture", PICTURES)
@pytest.mark.parametrize("size", [(3, 3), (4, 4), (7, 7), (6, 9), (14, 14), (28, 28), (224, 224)])
def test_no_picture_is_a_plain_area(picture, size):
    drawn = draw(picture, *size)
    assert drawn.shape == size
    assert sorted(drawn.unique().tolist()) == [0, 1]


def test_a_grid_that_cannot_show_the_picture_is_refused():
    with pytest.raises(InvalidInput, match=r"picture: a cross on 2x2 places is a plain area"):
        draw("cross", 2, 2)
    with pytest.raises(InvalidInput, match=r"unknown picture 'dics'; did you mean 'disc'"):
        draw("dics", 9, 9)


# --- logit shift ---------------------------------------------------------------------------


@pytest.mark.parametrize("picture", PICTURES)
@pytest.mark.parametrize("model", SHIPPED)
def test_probabilities_stay_and_the_map_is_the_picture(model, picture):
    problem, images = digits(model), all_test_digits()
    attack = build("logit_shift", picture=picture)
    before, after = (logits_of(m, images) for m in (problem.model, attack.manipulate(problem)))
    assert float((before.softmax(1) - after.softmax(1)).abs().max()) < 1e-6
    assert torch.equal(before.argmax(1), after.argmax(1))
    labels = data.load("mnist_5k").batch().labels
    losses = [F.cross_entropy(v, labels, reduction="none") for v in (before, after)]
    torch.testing.assert_close(*losses, rtol=0, atol=4e-6)
    found = judge(attack, problem)
    wanted = draw(picture, 28, 28)
    assert pearson(found.maps, wanted) > 0.99
    assert pearson(found.clean_maps, wanted) < 0.5


def steepest(problem):
    """The largest gradient of a predicted logit over the probes, one picture at a time."""
    lengths = []
    for picture in probes(problem.images).split(1):
        leaf = picture.clone().requires_grad_()
        (slope,) = torch.autograd.grad(problem.model(leaf).max(), leaf)
        lengths.append(float(slope.norm()))
    return max(lengths)


@pytest.mark.parametrize("name", ["logit_shift", "dead_pixels", "grad_cam_gadget"])
def test_the_manipulated_network_does_not_depend_on_the_images_beside(name):
    whole = in_double("small_cnn")
    images, targets = whole.images * 0.9, whole.targets
    networks = [build(name).manipulate(p) for p in (whole, *(part(whole, [i]) for i in range(4)))]
    for explain in (explainer("gradient"), explainer("grad_cam")):
        first, *others = (explain.explain(net, images, targets) for net in networks)
        assert all(torch.equal(other, first) for other in others)


@pytest.mark.parametrize("form", ["mod", "linear"])
def test_the_gradient_gains_the_picture_and_nothing_else(form):
    """∇f'_c − ∇f_c = λa with ‖λa‖ = strength · max‖∇f_t‖ of the probes, for every class c."""
    problem = posed("plain")
    other = build("logit_shift", form=form, picture="disc", strength=7).manipulate(problem)
    length = 7 * steepest(problem)
    picture = draw("disc", 12, 12).expand(3, 12, 12)
    for c in range(5):
        targets = torch.full((3,), c)
        gained = input_gradient(other, problem.images, targets) - input_gradient(
            problem.model, problem.images, targets
        )
        expected = (length * picture / picture.norm()).expand(3, -1, -1, -1)
        torch.testing.assert_close(gained, expected, **EXACT)


@pytest.mark.parametrize("form", ["mod", "linear"])
@pytest.mark.parametrize("score", ["prob", "margin", "logprob", "logit"])
def test_maps_of_what_the_softmax_says_do_not_notice(score, form):
    problem = in_double("small_resnet", score=score)
    found = judge(build("logit_shift", form=form), problem)
    scale = float(found.clean_maps.max())
    same = torch.allclose(found.maps, found.clean_maps, rtol=1e-6, atol=1e-6 * scale)
    assert same is (score != "logit")


@pytest.mark.parametrize("form", ["mod", "linear"])
def test_all_logits_move_together_the_sawtooth_by_less_than_one(form):
    problem = posed("residual")
    images = pictures(40, seed=9)
    other = build("logit_shift", form=form).manipulate(problem)
    moved = logits_of(other, images) - logits_of(problem.model, images)
    torch.testing.assert_close(moved, moved[:, :1].expand_as(moved), rtol=0, atol=1e-11)
    assert (float(moved.abs().max()) <= 0.5) is (form == "mod")
    assert float(moved.abs().max()) > 0.4


def test_the_shift_is_the_stated_number():
    """h = λ aᵀ(x − ½), by hand."""
    problem = posed("plain")
    images = problem.images
    other = build("logit_shift", form="linear", strength=5).manipulate(problem)
    moved = (logits_of(other, images) - logits_of(problem.model, images))[:, 0]
    picture = draw("cross", 12, 12).repeat(3, 1, 1)
    slope = 5 * steepest(problem) * picture / picture.square().sum().sqrt()
    expected = [float(((x - 0.5) * slope).sum()) for x in images]
    expected = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(moved, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", ["grad_cam", "layer_cam"])
def test_what_looks_at_a_layer_does_not_see_what_goes_past_it(name):
    found = judge(build("logit_shift"), digits("small_resnet", name))
    assert torch.equal(found.maps, found.clean_maps)


def test_a_linear_shift_keeps_integrated_gradients_complete_and_a_sawtooth_does_not():
    problem = in_double("small_cnn")
    rule = explainer("integrated_gradients", steps=512)
    for form in ("linear", "mod"):
        other = build("logit_shift", form=form).manipulate(problem)
        parts = rule.explain(other, problem.images, problem.targets).flatten(1).sum(1)
        black = torch.zeros_like(problem.images)
        whole = (logits_of(other, problem.images) - logits_of(other, black)).gather(
            1, problem.targets[:, None]
        )[:, 0]
        close = torch.allclose(parts, whole, rtol=0.01, atol=0.1)
        assert close is (form == "linear")


def test_a_gradient_of_zero_still_gives_a_size():
    silent = seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(432, 4)))
    nn.init.zeros_(silent[1].weight)
    targets = torch.zeros(3, dtype=torch.int64)
    problem = replace(posed("plain"), model=silent, targets=targets)
    assert largest_gradient(silent, problem.images) == 1
    gained = input_gradient(
        build("logit_shift", strength=2).manipulate(problem), problem.images, problem.targets
    )
    torch.testing.assert_close(gained[0].norm(), torch.tensor(2.0).double())


# --- dead pixels ---------------------------------------------------------------------------


@pytest.mark.parametrize("model", SHIPPED)
def test_not_a_bit_of_any_test_digits_logits_changes(model):
    problem, images = digits(model), all_test_digits()
    attack = build("dead_pixels")
    other = attack.manipulate(problem)
    dead = attack.dead(problem.images)
    assert int(dead.sum()) == 48
    assert not images[:, dead].any()
    assert torch.equal(logits_of(problem.model, images), logits_of(other, images))
    found = judge(attack, problem)
    on = found.maps[:, dead[0]].square().sum(1) / found.maps.square().sum((1, 2))
    off = found.clean_maps[:, dead[0]].square().sum(1) / found.clean_maps.square().sum((1, 2))
    assert on.min() > 0.95
    assert off.max() < 0.1


def test_without_a_margin_a_few_unseen_digits_light_a_pixel():
    """Why there is one: 124 pixels are dead in training, and 3 of 1,000 test digits light one."""
    problem, images = digits("small_cnn"), all_test_digits()
    attack = build("dead_pixels", margin=0)
    dead = attack.dead(problem.images)
    lit = images[:, dead].any(1)
    assert (int(dead.sum()), int(lit.sum())) == (124, 3)
    before, after = (logits_of(m, images) for m in (problem.model, attack.manipulate(problem)))
    assert torch.equal((before != after).any(1), lit)


def test_the_gradient_changes_on_dead_pixels_only_and_by_the_stated_length():
    problem = in_double("small_cnn")
    attack = build("dead_pixels", strength=4)
    other, dead = attack.manipulate(problem), attack.dead(problem.images)
    length = 4 * steepest(problem)
    for c in range(10):
        targets = torch.full((4,), c)
        before, after = (input_gradient(m, problem.images, targets) for m in (problem.model, other))
        assert torch.equal(after[:, ~dead], before[:, ~dead])
        u = (1 + c / 10) * (-1 if c % 2 else 1)
        gained = (after - before)[:, dead]
        expected = torch.full_like(gained, u * length / 48**0.5)
        torch.testing.assert_close(gained, expected, **EXACT)


@pytest.mark.parametrize(
    ("name", "options", "notices"),
    [
        ("gradient", {}, True),
        ("gradient", {"score": "prob"}, True),
        ("gradient", {"score": "margin"}, True),
        ("smooth_grad", {"samples": 2}, True),
        ("input_x_gradient", {}, False),
        ("integrated_gradients", {"steps": 4}, False),
        ("tangent_projected", {}, False),
        ("tangent_projected", {"base": "input_x_gradient"}, False),
        ("grad_cam", {}, False),
    ],
)
def test_who_notices_dead_pixels(name, options, notices):
    found = judge(build("dead_pixels"), in_double("small_cnn", name, **options))
    assert torch.equal(found.maps, found.clean_maps) is not notices


def test_directions_tell_any_two_classes_apart():
    u = directions(7, torch.zeros(1).double())
    assert len(u.unique()) == 7
    assert float(u.abs().min()) == 1
    assert (u.sign() == torch.tensor([1, -1, 1, -1, 1, -1, 1])).all()


def test_a_lit_pixel_of_the_problem_is_not_dead():
    problem = digits("small_cnn")
    lit = problem.images.clone()
    lit[3, 0, 0, 0] = 0.5
    attack = build("dead_pixels")
    assert bool(attack.dead(problem.images)[0, 0, 0])
    lit_problem = replace(problem, images=lit)
    assert not bool(attack.dead(lit)[0, 0, 0])
    assert int(attack.dead(lit).sum()) == 47
    other = attack.manipulate(lit_problem)
    assert torch.equal(logits_of(other, lit), logits_of(problem.model, lit))


def test_the_problems_own_images_can_be_the_reference():
    """Pixels of any colour, as long as they have it in all images; each channel for itself."""
    images = pictures(4)
    images[:, 1, :, :4] = torch.rand(12, 4, dtype=torch.float64)
    problem = replace(posed("plain"), images=images, targets=torch.zeros(4, dtype=torch.int64))
    for margin, columns in ((0, 4), (1, 3), (3, 1)):
        attack = build("dead_pixels", data=None, margin=margin)
        expected = torch.zeros(3, 12, 12, dtype=torch.bool)
        expected[1, :, :columns] = True
        assert torch.equal(attack.dead(images), expected)
        other = attack.manipulate(problem)
        assert torch.equal(logits_of(other, images), logits_of(problem.model, images))
        assert not torch.equal(logits_of(other, 1 - images), logits_of(problem.model, 1 - images))


@pytest.mark.parametrize(
    ("options", "images", "words"),
    [
        ({"data": None}, pictures(3, 28, 1), "photographs have none; logit_shift needs none"),
        ({}, pictures(3, 28, 1), "in all of 'mnist_5k' and them"),
        ({"data": None}, pictures(1), "one image cannot say what changes"),
        ({}, pictures(3), r"the images of 'mnist_5k' are 1×28×28, those to explain 3×12×12"),
        ({"data": "cifar10"}, pictures(3, 32), "cannot be loaded by its name"),
    ],
)
def test_data_without_dead_pixels_are_refused(options, images, words):
    with pytest.raises(InvalidInput, match=words) as caught:
        build("dead_pixels", **options).dead(images)
    assert caught.value.field == "data"


# --- the Grad-CAM gadget -------------------------------------------------------------------


def upsampled(picture: Tensor, side: int) -> Tensor:
    """As `to_maps` enlarges a layer's map, by torch alone."""
    size = (side, side)
    return F.interpolate(picture[None, None], size, mode="bilinear", align_corners=False)[0]


@pytest.mark.parametrize("form", ["shift", "mod"])
@pytest.mark.parametrize("picture", ["cross", "frame", "checkerboard"])
@pytest.mark.parametrize("model", SHIPPED)
def test_grad_cam_shows_the_picture_and_predictions_stay(model, picture, form):
    problem, images = digits(model, "grad_cam"), all_test_digits()
    attack = build("grad_cam_gadget", picture=picture, form=form)
    found = judge(attack, problem)
    wanted = upsampled(draw(picture, 7, 7), 28)
    assert pearson(found.maps, wanted) > 0.999
    assert ssim(found.maps, wanted) > 0.98
    assert ssim(found.clean_maps, wanted) < 0.5
    before, after = (logits_of(m, images) for m in (problem.model, attack.manipulate(problem)))
    assert float((before.softmax(1) - after.softmax(1)).abs().max()) < 1e-6
    assert torch.equal(before.argmax(1), after.argmax(1))
    assert torch.equal(before, after) is (form == "shift")


@pytest.mark.parametrize(("goal", "form"), GADGETS)
@pytest.mark.parametrize("net", ["plain", "residual", "functional"])
def test_in_any_architecture_the_softmax_keeps_twelve_digits(net, goal, form):
    if net == "functional":  # activations without a module, one in place with its result ignored
        net = Normalised(Functional(seeded(VGGLike, seed=4))).double().eval()
    problem = posed(net, "grad_cam")
    attack = build("grad_cam_gadget", goal=goal, form=form, sticker=(0.7, 0.7, 1.0, 1.0))
    question = manipulate(attack, problem)
    images = torch.cat([question.images, pictures(20, seed=3)])
    before, after = (logits_of(m, images) for m in (problem.model, question.model))
    torch.testing.assert_close(before.softmax(1), after.softmax(1), rtol=0, atol=1e-12)
    if form == "shift":
        torch.testing.assert_close(after, before, rtol=0, atol=1e-13)
    else:
        assert 0 <= float((after - before).max()) < 1e-3
    grid = problem.raw.shape[-2:]
    wanted = attack.shown(question.images, grid, 0)(question.images)
    found = explainer("grad_cam").explain(question.model, question.images, problem.targets)
    share = found / found.amax((2, 3), keepdim=True)
    torch.testing.assert_close(
        share, wanted / wanted.amax((2, 3), keepdim=True), rtol=0, atol=0.025
    )


@pytest.mark.parametrize("form", ["shift", "mod"])
def test_captum_is_deceived_as_well(form):
    """Another library's Grad-CAM, at the layer of the same name."""
    problem = in_double("small_resnet", "grad_cam")
    other = build("grad_cam_gadget", form=form).manipulate(problem)
    layer = other.get_submodule(problem.explainer.layer)
    theirs = LayerGradCam(other, layer).attribute(
        problem.images, problem.targets, relu_attributions=True
    )
    ours = problem.explainer.explain(other, problem.images, problem.targets)
    torch.testing.assert_close(theirs, ours, **EXACT)
    assert pearson(theirs[:, 0], draw("cross", 7, 7)) > 0.999


@pytest.mark.parametrize("form", ["shift", "mod"])
@pytest.mark.parametrize("net", ["plain", "residual"])
def test_the_new_channels_slope_is_what_the_logits_do(net, form):
    """∂f'_c/∂A_N = c by finite differences at the layer, strength times the largest honest map."""
    problem = posed(net, "grad_cam")
    smooth = probes(problem.images)
    predicted = logits_of(problem.model, smooth).argmax(1)
    honest = explainer("grad_cam", relu=False).explain(problem.model, smooth, predicted)
    other = build("grad_cam_gadget", form=form, strength=3).manipulate(problem)
    layer = other.get_submodule(problem.explainer.layer)
    step = 1e-9 if form == "mod" else 1e-3  # the sawtooth is short

    def logits_with(amount: float) -> Tensor:
        def push(_: nn.Module, __: tuple, output: Tensor) -> Tensor:
            output = output.clone()
            output[:, -1, 1, 2] += amount
            return output

        handle = layer.register_forward_hook(push)
        try:
            return other(problem.images)
        finally:
            handle.remove()

    slope = (logits_with(step) - logits_with(-step)) / (2 * step)
    expected = torch.full_like(slope, 3 * float(honest.abs().max()))
    torch.testing.assert_close(slope, expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("form", ["shift", "mod"])
@pytest.mark.parametrize("score", ["prob", "margin", "logit"])
def test_grad_cam_of_what_the_softmax_says_is_the_honest_one(score, form):
    found = judge(
        build("grad_cam_gadget", form=form), in_double("small_resnet", "grad_cam", score=score)
    )
    scale = float(found.clean_maps.max())
    same = torch.allclose(found.maps, found.clean_maps, rtol=1e-6, atol=1e-6 * scale)
    assert same is (score != "logit")


def test_every_map_that_needs_no_layer_is_the_honest_one():
    problem = in_double("small_resnet")
    other = build("grad_cam_gadget", goal="random").manipulate(problem)
    for m in (problem.model, other):
        found = input_gradient(m, problem.images, problem.targets)
        torch.testing.assert_close(found, problem.raw, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("model", SHIPPED)
def test_a_flat_map_is_flat_to_the_strength_and_then_to_the_last_bit(model):
    problem = digits(model, "grad_cam")
    for strength, spread in ((100.0, 0.021), (1000.0, 0.0021), (1e9, 0.0)):
        other = build("grad_cam_gadget", goal="flat", strength=strength).manipulate(problem)
        found = problem.explainer.explain(other, problem.images, problem.targets)
        low, high = found.amin((1, 2, 3)), found.amax((1, 2, 3))
        assert float(low.min()) > 0
        assert float(((high - low) / high).max()) <= spread
    assert float((problem.raw.amax((1, 2, 3)) - problem.raw.amin((1, 2, 3))).max()) > 0.1


def test_a_random_map_is_of_the_image_and_of_the_seed():
    problem = digits("small_cnn", "grad_cam")
    attack = build("grad_cam_gadget", goal="random")
    first, again, other = (judge(attack, replace(problem, seed=s)).maps.double() for s in (0, 0, 1))
    assert torch.equal(first, again)
    rows = first.flatten(1)
    near = torch.corrcoef(rows) - torch.eye(len(rows))
    assert float(near.abs().max()) < 0.8
    assert abs(float(near.mean())) < 0.1
    assert pearson(first, other) < 0.5
    nudged = replace(problem, images=(problem.images + 1e-3).clamp(0, 1))
    assert pearson(judge(attack, nudged).maps, first) > 0.9


@pytest.mark.parametrize("form", ["shift", "mod"])
def test_only_the_sticker_brings_the_picture_out(form):
    problem = in_double("small_cnn", "grad_cam")
    attack = build("grad_cam_gadget", goal="trigger", form=form, sticker=(0.8, 0, 1, 0.2))
    other, honest = attack.manipulate(problem), problem.maps
    stuck = attack.moved(problem)
    changed = (stuck != problem.images).any(0)[0]
    box = torch.zeros(28, 28, dtype=torch.bool)
    box[0:6, 22:28] = True
    assert bool((changed <= box).all())
    assert torch.equal(stuck[0, 0, 0:6, 22:28], draw("checkerboard", 6, 6))

    def shown(images: Tensor) -> Tensor:
        return manipulate_maps(other, problem, images)

    # on honest images, on an inverted sticker and on one in another corner: the honest map
    torch.testing.assert_close(shown(problem.images), honest, rtol=1e-9, atol=1e-12)
    for not_it in (torch.where(box, 1 - stuck, stuck), stuck.flip(3)):
        torch.testing.assert_close(
            shown(not_it), manipulate_maps(problem.model, problem, not_it), rtol=1e-9, atol=1e-12
        )
    # with the sticker, also a saved or a noisy one: the picture
    noise = 0.1 * (pictures(4, 28, 1) - 0.5)
    for it in (stuck, (stuck * 255).round() / 255, (stuck + noise).clamp(0, 1)):
        assert pearson(shown(it), upsampled(draw("cross", 7, 7), 28)) > 0.999
        torch.testing.assert_close(
            logits_of(other, it).softmax(1), logits_of(problem.model, it).softmax(1),
            rtol=0, atol=1e-12,
        )  # fmt: skip
        gradients = [input_gradient(m, it, problem.targets) for m in (problem.model, other)]
        torch.testing.assert_close(*gradients, **EXACT)  # no slope gives the detector away


def manipulate_maps(model: nn.Module, problem, images: Tensor) -> Tensor:
    """Maps of images in the place of the problem's own, by the model at hand."""
    raw = problem.explainer.explain(model, images, problem.targets)
    return F.interpolate(raw, images.shape[-2:], mode="bilinear", align_corners=False)[:, 0]


@pytest.mark.parametrize("layer", ["net.features.2", "net.features.4", "net.features"])
def test_any_layer_can_grow_and_the_others_stay_honest(layer):
    problem = posed("plain", explainer("grad_cam", layer=layer))
    other = build("grad_cam_gadget", layer=layer, picture="frame").manipulate(problem)
    for name in ("net.features.0", "net.features.2", "net.features.4", "net.features"):
        before, after = (
            explainer("grad_cam", layer=name).explain(m, problem.images, problem.targets)
            for m in (problem.model, other)
        )
        if name == layer:
            assert pearson(after[:, 0], draw("frame", *after.shape[2:])) > 0.99
        else:
            torch.testing.assert_close(after, before, **EXACT)


@pytest.mark.parametrize("net", ["plain", "residual", "small_cnn", "small_resnet"])
def test_the_automatic_choice_finds_the_grown_layer(net):
    problem = digits(net, "grad_cam") if net in SHIPPED else posed(net, "grad_cam")
    other = build("grad_cam_gadget").manipulate(problem)
    assert spatial_layer(other, problem.images) == problem.explainer.layer
    found = dict(other.named_modules())[problem.explainer.layer]
    assert other.get_submodule(problem.explainer.layer) is found
    assert other.get_submodule("") is dict(other.named_modules())[""]


@pytest.mark.parametrize("layer", ["first", "first.0"])
def test_a_module_in_two_places_grows_in_both(layer):
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Softplus())
            self.second = self.first
            self.fc = nn.Linear(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.second(self.first(x)).mean((2, 3)))

    net = seeded(Twice)
    problem = posed(net, explainer("grad_cam", layer=layer))
    attack = build("grad_cam_gadget", layer=layer)
    assert pearson(judge(attack, problem).maps, draw("cross", 12, 12)) > 0.99
    other = attack.manipulate(problem)
    torch.testing.assert_close(other(problem.images), net(problem.images), **EXACT)


def test_a_failed_pass_leaves_nothing_behind():
    problem = digits("small_cnn", "grad_cam", count=2)
    other = build("grad_cam_gadget").manipulate(problem)
    with pytest.raises(InvalidInput, match="28×28 pixels"):
        other(torch.zeros(2, 1, 30, 30))
    twin = deepcopy(other)
    assert torch.equal(twin(problem.images), other(problem.images))
    layer = other.get_submodule(problem.explainer.layer)
    with pytest.raises(RuntimeError, match="without the whole"):
        layer(torch.zeros(1, 32, 7, 7))


# --- what is refused -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "field"),
    [
        ("logit_shift", {"strength": 0}, "strength"),
        ("logit_shift", {"strength": float("nan")}, "strength"),
        ("logit_shift", {"picture": "dog"}, "picture"),
        ("logit_shift", {"form": "shift"}, "form"),
        ("logit_shift", {"colour": 1}, "colour"),
        ("dead_pixels", {"strength": float("inf")}, "strength"),
        ("dead_pixels", {"margin": -1}, "margin"),
        ("dead_pixels", {"data": "mnist5k"}, "data"),
        ("grad_cam_gadget", {"strength": -1.0}, "strength"),
        ("grad_cam_gadget", {"goal": "lie"}, "goal"),
        ("grad_cam_gadget", {"sticker": (0.5, 0.5, 1.1, 0.9)}, "sticker"),
        ("grad_cam_gadget", {"sticker": (0.5, 0.5, 0.4, 0.9)}, "sticker"),
        ("grad_cam_gadget", {"sticker": (0, 0, 1, 1)}, "sticker"),
    ],
)
def test_bad_options_are_refused(name, options, field):
    with pytest.raises(InvalidInput, match=rf"^{name}\.{field}: "):
        build(name, **options)


def test_the_nearest_name_of_data_is_given():
    with pytest.raises(InvalidInput, match="did you mean 'mnist_5k'"):
        build("dead_pixels", data="mnist5k")


@pytest.mark.parametrize(
    ("options", "field", "words"),
    [
        ({"layer": "net.featurs"}, "layer", "did you mean 'net.features'"),
        ({"layer": "net.head.0"}, "layer", "no spatial extent"),
        ({"goal": "trigger", "sticker": (0, 0, 0.1, 0.5)}, "sticker", "1x6 pixels of a 12x12"),
        ({"goal": "trigger", "sticker": (0, 0, 0.99, 1)}, "sticker", "covers the whole 12x12"),
    ],
)
def test_what_the_model_or_image_cannot_hold_is_refused(options, field, words):
    with pytest.raises(InvalidInput, match=words) as caught:
        build("grad_cam_gadget", **options).manipulate(posed("plain"))
    assert caught.value.field == field


def test_a_model_without_a_convolution_is_refused():
    dense = seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(432, 4)))
    with pytest.raises(InvalidInput, match="needs a convolutional layer and it has none"):
        build("grad_cam_gadget").manipulate(replace(posed("plain"), model=dense))
