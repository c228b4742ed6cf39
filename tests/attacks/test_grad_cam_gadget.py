"""The Grad-CAM gadget: one more channel, and the map is what its maker wants."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from captum.attr import LayerGradCam
from torch import Tensor, nn
from torch.nn import functional as F

from attacks import build
from attacks.model.pictures import draw
from attacks.model.probes import probes
from robustlab.core.errors import InvalidInput
from robustlab.core.judge import judge, manipulate
from robustlab.core.streaming import input_gradient, logits_of
from robustlab.explainers import build as explainer
from robustlab.explainers.cam.layers import spatial_layer
from tests.attacks.exact import (
    EXACT,
    SHIPPED,
    all_test_digits,
    digits,
    in_double,
    pearson,
    ssim,
)
from tests.attacks.problems import posed
from tests.nets import Functional, Normalised, VGGLike, pictures, seeded

GADGETS = [(g, f) for g in ("picture", "flat", "random", "trigger") for f in ("shift", "mod")]


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
