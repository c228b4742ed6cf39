"""Linear layers as functions: PyTorch's own values and derivatives, of every order."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustlab.core.interposition import Call, Interposition
from robustlab.core.linear import (
    attention_weights,
    batch_norm_affine,
    cheap_first_order,
    cheap_second_order,
    layer_of,
    normaliser_of,
    product_layer,
)
from robustlab.core.untouched import frozen
from robustlab.explainers import build
from tests.explainers.battery import check_derivative, check_graph
from tests.nets import (
    Convolutions,
    Functional,
    Normalised,
    ResNetLike,
    Spelled,
    VGGLike,
    pictures,
    seeded,
)

EXACT = {"rtol": 1e-10, "atol": 1e-12}
CONVOLUTIONS = {
    "plain": (nn.Conv2d(4, 6, 3), (2, 4, 7, 6)),
    "padded": (nn.Conv2d(4, 6, 3, padding=(2, 1)), (2, 4, 5, 6)),
    "strided": (nn.Conv2d(4, 6, (3, 2), stride=(2, 3)), (2, 4, 8, 9)),
    "stride leaves a rest": (nn.Conv2d(4, 6, 3, stride=2), (2, 4, 8, 8)),
    "dilated": (nn.Conv2d(4, 6, 3, dilation=2, padding=1), (2, 4, 7, 7)),
    "grouped": (nn.Conv2d(4, 6, 3, groups=2), (2, 4, 5, 5)),
    "depthwise": (nn.Conv2d(4, 4, 3, groups=4, bias=False), (2, 4, 5, 5)),
    "pointwise": (nn.Conv2d(4, 6, 1), (2, 4, 3, 3)),
    "same": (nn.Conv2d(4, 6, 3, padding="same"), (2, 4, 5, 5)),
    "lopsided same": (nn.Conv2d(4, 6, (2, 4), padding="same", dilation=(1, 1)), (2, 4, 5, 6)),
    "valid": (nn.Conv2d(4, 6, 3, padding="valid"), (2, 4, 5, 5)),
    "circular": (nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"), (2, 4, 5, 5)),
    "one image": (nn.Conv2d(4, 6, 3, padding=1), (1, 4, 5, 5)),
    "one dimension": (nn.Conv1d(4, 6, 3, stride=2), (2, 4, 9)),
    "three dimensions": (nn.Conv3d(2, 3, 2, padding=1), (2, 2, 3, 4, 3)),
    "no batch": (nn.Conv2d(4, 6, 3, padding=1), (4, 5, 5)),
    "transposed": (nn.ConvTranspose2d(4, 6, 3), (2, 4, 3, 4)),
    "transposed, strided": (
        nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2),
        (2, 4, 3, 3),
    ),
    "transposed, dilated": (nn.ConvTranspose2d(4, 6, 2, dilation=2, bias=False), (2, 4, 3, 3)),
    "transposed, one dimension": (nn.ConvTranspose1d(4, 6, 3, stride=2), (2, 4, 5)),
    "matrix": (nn.Linear(4, 6), (2, 4)),
    "matrix of many rows": (nn.Linear(4, 6, bias=False), (2, 3, 4)),
}


def case(name: str) -> tuple[nn.Module, Tensor]:
    module, shape = CONVOLUTIONS[name]
    generator = torch.Generator().manual_seed(len(name))
    with torch.no_grad():
        for parameter in module.double().parameters():
            parameter.normal_(0, 0.3, generator=generator)  # or rounding would be amplified
    return module, torch.randn(shape, generator=generator, dtype=torch.float64)


def derivatives(run, x: Tensor) -> list[Tensor]:
    """Value, vector-Jacobian product, and the derivatives of a curved function of both."""
    leaf = x.clone().requires_grad_()
    value = run(leaf)
    seed = torch.linspace(-1, 1, value.numel(), dtype=value.dtype).view_as(value)
    (first,) = torch.autograd.grad((seed * value**3).sum(), leaf, create_graph=True)
    (second,) = torch.autograd.grad(first.sin().sum(), leaf, create_graph=True)
    (third,) = torch.autograd.grad(second.cos().sum(), leaf)
    return [t.detach() for t in (value, first, second, third)]


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("trainable", [False, True])
def test_derivatives_of_every_order_are_pytorchs(name, trainable):
    module, x = case(name)
    module.requires_grad_(trainable)

    def cheap(leaf: Tensor) -> Tensor:
        with cheap_second_order():
            return module(leaf)

    for ours, theirs in zip(derivatives(cheap, x), derivatives(module, x), strict=True):
        torch.testing.assert_close(ours, theirs, **EXACT)
    module.requires_grad_(True)


@pytest.mark.parametrize(
    "name", [name for name in CONVOLUTIONS if name not in ("circular", "no batch")]
)
def test_a_layer_is_the_call_it_came_from(name):
    module, x = case(name)
    seen: list[Call] = []

    def note(call: Call) -> Tensor:
        seen.append(call)
        return call.native()

    with Interposition(dict.fromkeys(("conv", "conv_transpose", "linear"), note)):
        expected = module(x)
    layer, padded = layer_of(seen[-1])
    torch.testing.assert_close(layer.apply(padded, layer.weight, layer.bias), expected, **EXACT)
    # ⟨f(x), s⟩ = ⟨x, fᵀ(s)⟩ defines the transpose of a linear map
    s = torch.randn(expected.shape, generator=torch.Generator().manual_seed(0)).double()
    back = layer.transpose(s, layer.weight, padded)
    assert back.shape == padded.shape
    forwards = (layer.apply(padded, layer.weight) * s).sum()
    torch.testing.assert_close((back * padded).sum(), forwards, **EXACT)


FOLDED = {
    "conv": lambda bias: nn.Conv2d(3, 4, 3, bias=bias),
    "transposed": lambda bias: nn.ConvTranspose2d(3, 4, 3, stride=2, bias=bias),
    "grouped": lambda bias: nn.Sequential(
        nn.Conv2d(3, 6, 1), nn.ConvTranspose2d(6, 4, 3, groups=2, bias=bias)
    ),
}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", FOLDED)
def test_a_folded_batch_norm_is_one_layer(kind, bias):
    net = seeded(lambda: nn.Sequential(FOLDED[kind](bias), nn.BatchNorm2d(4)))
    calls: list[Call] = []
    with Interposition(
        dict.fromkeys(
            ("conv", "conv_transpose", "batch_norm"),
            lambda call: calls.append(call) or call.native(),
        )
    ):
        expected = net(pictures())
    layer, x = layer_of(calls[-2])
    folded = layer.folded(*batch_norm_affine(calls[-1]))
    found = folded.apply(x, folded.weight, folded.bias)
    torch.testing.assert_close(found, expected, **EXACT)


def test_the_affine_map_of_a_batch_norm():
    conv, norm = seeded(lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    seen: list[Call] = []
    with Interposition({"batch_norm": lambda call: seen.append(call) or call.native()}):
        expected = norm(conv(pictures()))
    scale, shift = (v[:, None, None] for v in batch_norm_affine(seen[0]))
    torch.testing.assert_close(scale * conv(pictures()) + shift, expected, **EXACT)
    with Interposition({"batch_norm": lambda call: seen.append(call) or call.native()}):
        norm.train()(conv(pictures()))
        F.batch_norm(pictures(), None, None, training=True)
        nn.BatchNorm2d(3, affine=False).double().eval()(pictures())
    assert batch_norm_affine(seen[1]) is None and batch_norm_affine(seen[2]) is None
    scale, shift = batch_norm_affine(seen[3])
    torch.testing.assert_close(scale, torch.full((3,), (1 + 1e-5) ** -0.5, dtype=torch.float64))
    assert not shift.any()


@pytest.mark.parametrize(
    "make",
    [
        VGGLike,
        ResNetLike,
        Convolutions,
        lambda: Normalised(VGGLike()),
        lambda: Functional(VGGLike()),
    ],
    ids=["vgg", "resnet", "convolutions", "normalised", "functional"],
)
@pytest.mark.parametrize("count", [1, 3])
def test_whole_nets_keep_their_derivatives(make, count):
    net, images = seeded(make), pictures(count)

    def probabilities(leaf: Tensor) -> Tensor:
        return torch.softmax(net(5 * leaf), 1)

    def cheap(leaf: Tensor) -> Tensor:
        with cheap_second_order() as mode:
            return mode.current(probabilities(leaf))

    expected = derivatives(probabilities, images)
    with frozen(net):
        constant = derivatives(cheap, images)
    for ours, theirs, trainable in zip(constant, expected, derivatives(cheap, images), strict=True):
        scale = float(theirs.abs().max())
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10 * scale)
        torch.testing.assert_close(trainable, theirs, rtol=0, atol=1e-10 * scale)


def test_trainable_weights_keep_their_gradient():
    net = seeded(ResNetLike)
    gradients = []
    for mode in (cheap_second_order(), Interposition({})):
        leaf = pictures().requires_grad_()
        with mode:
            score = torch.softmax(net(leaf), 1)[:, 0].sum()
        (first,) = torch.autograd.grad(score, leaf, create_graph=True)
        gradients.append(
            torch.autograd.grad(first.square().sum(), list(net.parameters()), allow_unused=True)
        )
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, **EXACT)


def test_training_mode_batch_norm_is_left_to_pytorch():
    net = seeded(lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))).train()
    with torch.no_grad(), cheap_second_order():
        found = net(pictures())
    torch.testing.assert_close(found.mean((0, 2, 3)), net[1].bias.detach(), rtol=0, atol=1e-6)


BATCH_NORMS = {
    "affine": (lambda: nn.BatchNorm2d(4), (3, 4, 5, 6)),
    "not affine": (lambda: nn.BatchNorm2d(4, affine=False), (3, 4, 5, 6)),
    "of vectors": (lambda: nn.BatchNorm1d(4), (3, 4)),
    "one dimension": (lambda: nn.BatchNorm1d(4), (3, 4, 7)),
    "three dimensions": (lambda: nn.BatchNorm3d(4), (3, 4, 2, 3, 2)),
    "without statistics": (lambda: nn.BatchNorm2d(4, track_running_stats=False), (3, 4, 5, 6)),
    "training": (lambda: nn.BatchNorm2d(4).train(), (3, 4, 5, 6)),
}


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("kind", BATCH_NORMS)
def test_a_batch_norm_has_a_quick_way_back_to_the_same_gradient(kind, memory):
    make, shape = BATCH_NORMS[kind]
    generator = torch.Generator().manual_seed(5)
    norm = make().double()
    if kind != "training":
        norm.eval()
    for name, tensor in norm.state_dict().items():
        if tensor.ndim:
            values = torch.rand(tensor.shape, generator=generator, dtype=torch.float64)
            tensor.copy_(values + 0.1 if name == "running_var" else values - 0.5)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    x = x.contiguous(memory_format=memory) if x.ndim == 4 else x
    seed = torch.randn(shape, generator=generator, dtype=torch.float64)
    values, gradients = [], []
    for mode in (cheap_first_order(), Interposition({})):
        leaf = x.clone().requires_grad_()
        with mode:
            values.append(norm(leaf))
        gradients.append(torch.autograd.grad(values[-1], leaf, seed)[0])
    assert torch.equal(*values)
    torch.testing.assert_close(*gradients, **EXACT)


# --- what is linear once something is held constant ------------------------------------------


def seen_by(ops: tuple[str, ...], run) -> tuple[Call, Tensor]:
    calls: list[Call] = []
    with Interposition(dict.fromkeys(ops, lambda call: calls.append(call) or call.native())):
        output = run()
    return calls[-1], output


PRODUCTS = {
    "matmul": ("x @ W", lambda x, w: x @ w.T),
    "mm": ("x @ W", lambda x, w: torch.mm(x, w.T)),
    "addmm": ("x @ W", lambda x, w: torch.addmm(torch.ones(3).double(), x, w.T)),
    "left": ("W @ x", lambda x, w: w @ x.T),
    "einsum": ("x, W", lambda x, w: torch.einsum("bi,oi->ob", x, w)),
    "einsum, left": ("W, x", lambda x, w: torch.einsum("oi,bi->bo", w, x)),
    "bmm": ("x, W", lambda x, w: torch.bmm(x[None], w.T[None])),
    "rmatmul": ("x, W", lambda x, w: x.T.__rmatmul__(w)),
}


@pytest.mark.parametrize("spelling", PRODUCTS)
def test_a_product_with_constants_is_a_layer(spelling):
    multiply = PRODUCTS[spelling][1]
    random = torch.Generator().manual_seed(0)
    x, w = (torch.randn(n, 4, generator=random).double() for n in (2, 3))
    call, output = seen_by(("matmul", "product", "addmm"), lambda: multiply(x, w))
    other = call.get("other")
    features = call.input if call.input.numel() == x.numel() else other
    layer = product_layer(call, features)
    torch.testing.assert_close(layer.apply(features, layer.weight, layer.bias), output, **EXACT)
    s = torch.randn(output.shape, generator=random).double()
    back = layer.transpose(s, layer.weight, features)
    forwards = (layer.apply(features, layer.weight) * s).sum()
    torch.testing.assert_close((back * features).sum(), forwards, **EXACT)
    assert layer.kind == "linear" and back.shape == features.shape


NORMS = {
    "layer": nn.LayerNorm(6),
    "layer of two dimensions": nn.LayerNorm((5, 6)),
    "layer without weights": nn.LayerNorm(6, elementwise_affine=False),
    "group": nn.GroupNorm(2, 4),
    "group without weights": nn.GroupNorm(4, 4, affine=False, eps=0.1),
    "instance": nn.InstanceNorm2d(4, affine=True),
    "instance, bare": nn.InstanceNorm2d(4),
}


@pytest.mark.parametrize("kind", NORMS)
def test_a_normalisation_is_linear_while_its_deviation_is_held(kind):
    module = NORMS[kind].double()
    random = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=random).double()
    x, other = (torch.randn(2, 4, 5, 6, generator=random).double() for _ in range(2))
    ops = ("layer_norm", "group_norm", "instance_norm")
    call, output = seen_by(ops, lambda: module(x))
    normaliser = normaliser_of(call)
    shift = 0 if normaliser.shift is None else normaliser.shift
    # ⟨T x, s⟩ = ⟨x, Tᵀ s⟩ with T x known: the output less its shift
    forwards = ((output - shift) * other).sum()
    torch.testing.assert_close((x * normaliser.transpose(other)).sum(), forwards, **EXACT)
    centred = normaliser.transpose(other / normaliser.scale).reshape(normaliser.grouped)
    assert centred.mean(normaliser.dims).abs().max() < 1e-12, "centring is its own transpose"


MASKS = {
    "none": {},
    "causal": {"is_causal": True},
    "allowed": {"attn_mask": torch.ones(5, 5, dtype=torch.bool).tril(1)},
    "added": {"attn_mask": torch.linspace(-1, 1, 25, dtype=torch.float64).view(5, 5)},
    "scaled": {"scale": 0.3},
}


@pytest.mark.parametrize("mask", MASKS)
def test_attention_weights_are_those_of_the_fused_kernel(mask):
    random = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, 5, 4, generator=random).double() for _ in range(3))
    call, fused = seen_by(
        ("attention",), lambda: F.scaled_dot_product_attention(q, k, value=v, **MASKS[mask])
    )
    assert call.input is v
    torch.testing.assert_close(attention_weights(call) @ v, fused, **EXACT)
    assert (
        attention_weights(Call("attention", {**call.arguments, "dropout_p": 0.1}, call.run)) is None
    )


# --- second derivatives that PyTorch lacks ---------------------------------------------------


class Attentive(nn.Module):
    """Patches that attend to each other, through `nn.MultiheadAttention`."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 4, stride=4), nn.Linear(4, 5)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).flatten(2).transpose(1, 2)
        return self.fc(self.attention(x, x, x, need_weights=False)[0].mean(1))


CURVED = {
    "hard-sigmoid": lambda: Spelled(F.hardsigmoid, 2.0),
    "hard-sigmoid, in place": lambda: Spelled(nn.Hardsigmoid(inplace=True), 2.0),
    "hard-swish": lambda: Spelled(F.hardswish, 2.0),
    "hard-swish, in place": lambda: Spelled(nn.Hardswish(inplace=True), 2.0),
    "attention": Attentive,
}
EXPLAINERS = [
    ("gradient", {"score": "prob"}),
    ("input_x_gradient", {}),
    ("guided_backprop", {"score": "prob"}),
    ("smooth_grad", {"samples": 2, "score": "prob"}),
    ("integrated_gradients", {"steps": 2, "score": "prob"}),
    ("lrp", {"epsilon": 0.02}),
    ("lrp", {"rule": "epsilon", "epsilon": 0.02}),
    ("grad_cam", {}),
]


@pytest.mark.parametrize("net", CURVED)
@pytest.mark.parametrize(("name", "options"), EXPLAINERS, ids=str)
def test_every_kind_of_map_can_be_differentiated(net, name, options):
    model, images, targets = seeded(CURVED[net]), pictures(), torch.tensor([1, 3, 0])
    if name == "grad_cam":
        options = {"layer": "conv" if net == "attention" else "conv1"}
    explainer = build(name, **options)
    if "sigmoid" not in net:  # whose slope of 1/6 has PyTorch in float32 whatever the dtype
        check_graph(explainer, model, images, targets)
    check_derivative(explainer, model, images, targets)


@pytest.mark.parametrize("net", ["hard-sigmoid", "attention"])
def test_pytorch_itself_has_no_such_derivative(net):
    """Once it has, the special cases can go."""
    leaf = pictures().requires_grad_()
    score = torch.softmax(seeded(CURVED[net])(leaf), 1)[:, 0].sum()
    (first,) = torch.autograd.grad(score, leaf, create_graph=True)
    with pytest.raises(RuntimeError, match="not implemented"):
        torch.autograd.grad(first.square().sum(), leaf)
