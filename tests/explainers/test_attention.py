"""Attention read out: gates caught by hooks, rollout by matrices written out, and refusals."""

import functools

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustlab.core.errors import InvalidInput
from robustlab.core.torchvision_ops import import_torchvision
from robustlab.core.types import Passes
from robustlab.core.wrapping import Counted
from robustlab.explainers import build
from robustlab.explainers.attention.branch import class_map_layer
from robustlab.explainers.attention.gates import CHANNELS, PLACES, last_gate
from robustlab.explainers.attention.rollout import patch_grid
from robustlab.explainers.attention.tokens import OpenAttention
from robustlab.models.abn_cnn import AbnCnnNet
from robustlab.models.cbam_cnn import CbamCnnNet
from robustlab.models.se_cnn import SeCnnNet
from robustlab.models.small_vit import SmallVitNet
from tests.explainers.battery import close, untouched
from tests.explainers.variants.attention import torchvision_vit
from tests.nets import ResNetLike, pictures, seeded

TARGETS = torch.tensor([1, 3, 0])
EXACT = {"rtol": 1e-9, "atol": 1e-12}


def explained(name: str, net: nn.Module, images: Tensor, **options: object) -> Tensor:
    return build(name, **options).explain(net, images, TARGETS)


def caught(net: nn.Module, images: Tensor, **modules: nn.Module) -> dict[str, Tensor]:
    """What modules put out, and what went in ("in_" and the name), by plain hooks."""
    found, handles = {}, []

    def hook(name: str, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        found[name], found[f"in_{name}"] = output, inputs[0]

    for name, module in modules.items():
        handles.append(module.register_forward_hook(functools.partial(hook, name)))
    with torch.no_grad():
        net(images)
    for handle in handles:
        handle.remove()
    return found


def head(channels: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 5)]


# --- channel gates ----------------------------------------------------------------------------


@pytest.mark.parametrize("arch", ["mobilenet_v3_small", "efficientnet_b0"])
def test_se_attention_of_torchvisions_nets_is_the_gate_times_what_it_gates(arch: str) -> None:
    torchvision = import_torchvision()
    make = getattr(torchvision.models, arch)
    net, images = seeded(lambda: make(weights=None, num_classes=5)), pictures(3, size=64)
    name, last = [
        (name, module)
        for name, module in net.named_modules()
        if isinstance(module, torchvision.ops.SqueezeExcitation)
    ][-1]
    found = caught(net, images, gate=last.scale_activation, module=last)
    gate, features = found["gate"], found["in_module"]
    assert gate.shape[2:] == (1, 1) and features.shape[2:] == (2, 2)
    assert last_gate(net, images, CHANNELS) == name
    expected = torch.einsum("bkij,bkhw->bhw", gate, features).unsqueeze(1)
    close(explained("se_attention", net, images), expected, "another sum")
    assert gate.std() > 1e-3, "the gates must differ"


def test_se_attention_of_timms_module() -> None:
    timm_layers = pytest.importorskip("timm.layers")
    gate = seeded(lambda: timm_layers.SEModule(8, rd_channels=4))
    net = seeded(lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), gate, *head(8)))
    found = caught(net, pictures(), gate=gate.gate, module=gate)
    expected = (found["gate"] * found["in_module"]).sum(1, keepdim=True)
    assert build("se_attention").resolved(net, pictures()).layer == "2"
    torch.testing.assert_close(explained("se_attention", net, pictures()), expected, **EXACT)


SPELLINGS = {
    "right": lambda x, g: x * g,
    "left": lambda x, g: g * x,
    "expanded": lambda x, g: x * g.expand_as(x),
    "function": lambda x, g: torch.mul(input=g, other=x),
    "in place": lambda x, g: x.mul_(g),
    "in place, then changed": lambda x, g: x.mul_(g).clamp_(min=0.1),
}


class Inline(nn.Module):
    """A gate in the middle of ``forward``, without a module of its own, among constants."""

    def __init__(self, spelling: str) -> None:
        super().__init__()
        self.conv, self.fc1, self.fc2 = nn.Conv2d(3, 4, 3), nn.Linear(4, 4), nn.Linear(4, 5)
        self.scale = nn.Parameter(torch.rand(1, 4, 1, 1) + 0.5)
        self.register_buffer("contrast", torch.full((1, 4, 1, 1), 1.5))
        self.spelling = spelling

    def gate(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.fc1(x.mean((2, 3))))[:, :, None, None]

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.conv(x))
        x = SPELLINGS[self.spelling](x, self.gate(x))
        return self.fc2((self.contrast * (x * self.scale.view(1, 4, 1, 1))).mean((2, 3)))


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("count", [1, 3])
def test_a_gate_is_found_however_it_is_spelt_and_constants_are_none(
    spelling: str, count: int
) -> None:
    net, images = seeded(lambda: Inline(spelling)), pictures(count)
    features = F.silu(net.conv(images)).detach()
    expected = (features * net.gate(features)).sum(1, keepdim=True).detach()
    explainer = build("se_attention").resolved(net, images)
    assert explainer.layer == ""
    for create_graph in (False, True):
        found = explainer.explain(net, images, TARGETS[:count], create_graph=create_graph)
        torch.testing.assert_close(found.detach(), expected, **EXACT)


def test_a_computed_constant_is_not_chosen() -> None:
    class Inverse(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * (1 / torch.arange(1.0, 81, dtype=x.dtype).view(1, 80, 1, 1))

    net = seeded(lambda: SeCnnNet(3, 5))
    net.stage3.append(Inverse())
    assert last_gate(net, pictures(1), CHANNELS) == "stage3.6"


def test_a_layer_may_be_any_module_around_a_gate() -> None:
    net, images = seeded(lambda: SeCnnNet(3, 5)), pictures()
    found = [caught(net, images, stage=net.get_submodule(f"stage{i}"))["stage"] for i in (1, 2, 3)]
    for i, output in enumerate(found, start=1):
        raw = explained("se_attention", net, images, layer=f"stage{i}")
        torch.testing.assert_close(raw, output.sum(1, keepdim=True), **EXACT)
    last = explained("se_attention", net, images)
    assert torch.equal(last, explained("se_attention", net, images, layer="stage3.6"))
    assert torch.equal(last, explained("se_attention", net, images, layer=""))


# --- spatial gates ----------------------------------------------------------------------------


def test_cbam_attention_is_the_mask() -> None:
    net, images = seeded(lambda: CbamCnnNet(3, 5)), pictures()
    mask = torch.sigmoid(caught(net, images, last=net.stage3[-1].bn)["last"])
    assert last_gate(net, images, PLACES) == "stage3.7"
    torch.testing.assert_close(explained("cbam_attention", net, images), mask, **EXACT)
    earlier = torch.sigmoid(caught(net, images, first=net.stage1[-1].bn)["first"])
    raw = explained("cbam_attention", net, images, layer="stage1")
    torch.testing.assert_close(raw, earlier, **EXACT)


def test_cbam_attention_of_timms_module() -> None:
    cbam = pytest.importorskip("timm.layers.cbam")
    module = seeded(lambda: cbam.CbamModule(8, rd_channels=4))
    net = seeded(lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), module, *head(8)))
    mask = caught(net, pictures(), gate=module.spatial.gate)["gate"]
    torch.testing.assert_close(explained("cbam_attention", net, pictures()), mask, **EXACT)
    channel = caught(net, pictures(), gate=module.channel.gate, module=module.channel)
    expected = (channel["gate"] * channel["in_module"]).sum(1, keepdim=True)
    torch.testing.assert_close(explained("se_attention", net, pictures()), expected, **EXACT)


def test_a_mask_that_is_wiped_after_use_has_been_read() -> None:
    class Wipes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.look, self.fc = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 1, 3), nn.Linear(4, 5)

        def forward(self, x: Tensor) -> Tensor:
            mask = torch.sigmoid(self.look(x))
            features = self.conv(x) * mask.expand(-1, 4, -1, -1)
            mask.zero_()
            return self.fc(features.mean((2, 3)))

    net = seeded(Wipes)
    mask = torch.sigmoid(net.look(pictures())).detach()
    torch.testing.assert_close(explained("cbam_attention", net, pictures()), mask, **EXACT)


def test_an_activation_spelt_as_a_product_is_no_gate() -> None:
    class Swishes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.look, self.fc = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 1, 3), nn.Linear(4, 5)

        def forward(self, x: Tensor) -> Tensor:
            features = self.conv(x) * torch.sigmoid(self.look(x))
            one, pooled = features[:, :1], features.mean((2, 3), keepdim=True)
            return self.fc(
                (pooled * torch.sigmoid(pooled) + (one * one).mean((2, 3), keepdim=True)).flatten(1)
            )

    net = seeded(Swishes)
    mask = torch.sigmoid(net.look(pictures())).detach()
    torch.testing.assert_close(explained("cbam_attention", net, pictures()), mask, **EXACT)
    with pytest.raises(InvalidInput, match="nothing in it multiplies features by one computed"):
        explained("se_attention", net, pictures())


def test_the_mask_of_an_attention_branch_network_is_read_as_it_gates() -> None:
    net, images = seeded(lambda: AbnCnnNet(3, 5)), pictures()
    mask = torch.sigmoid(caught(net, images, mask=net.attention.mask)["mask"])
    torch.testing.assert_close(explained("cbam_attention", net, images), 1 + mask, **EXACT)


# --- class maps -------------------------------------------------------------------------------


def test_class_attention_is_the_branchs_evidence_for_the_class() -> None:
    net, images = seeded(lambda: AbnCnnNet(3, 5)), pictures()
    raw = explained("class_attention", net, images)
    maps = caught(net, images, maps=net.attention.class_maps)["maps"]
    expected = torch.stack([maps[i, t] for i, t in enumerate(TARGETS.tolist())]).unsqueeze(1)
    torch.testing.assert_close(raw, expected, **EXACT)
    side = net.branches(images)[0].detach().gather(1, TARGETS[:, None])
    torch.testing.assert_close(raw.mean((1, 2, 3)), side.squeeze(1), **EXACT)
    assert build("class_attention").resolved(net, images).layer == "attention.class_maps"


class PublishedAbn(nn.Module):
    """The order of layers of the authors' code, its prediction on the side thrown away."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.att_conv = nn.Conv2d(6, classes, 1, bias=False)
        self.bn_att2 = nn.BatchNorm2d(classes)
        self.relu = nn.ReLU(inplace=True)
        self.att_conv3 = nn.Conv2d(classes, 1, 3, padding=1, bias=False)
        self.bn_att3 = nn.BatchNorm2d(1)
        self.sigmoid = nn.Sigmoid()
        self.att_conv2 = nn.Conv2d(classes, classes, 1, bias=False)
        self.att_gap = nn.AvgPool2d(12)
        self.fc = nn.Linear(6, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.conv(x))
        ax = self.relu(self.bn_att2(self.att_conv(x)))
        mask = self.sigmoid(self.bn_att3(self.att_conv3(ax)))
        ax = self.att_gap(self.att_conv2(ax))
        ax.view(ax.size(0), -1)
        return self.fc((x * mask + x).mean((2, 3)))


def test_class_maps_are_told_from_features_by_what_the_logits_depend_on() -> None:
    images = pictures()
    assert class_map_layer(seeded(PublishedAbn), images) == "att_conv2"
    six = seeded(lambda: PublishedAbn(6))  # as many classes as pooled features
    assert class_map_layer(six, images) == "att_conv2"
    frozen = seeded(PublishedAbn).requires_grad_(False)
    assert class_map_layer(frozen, images) == "att_conv2"


class Sides(nn.Module):
    """Predictions on the side: two of five classes, one of three; and features of five channels.

    Its first try, in fast memory, ends after they have been averaged.
    """

    def __init__(self, sides: bool) -> None:
        super().__init__()
        self.conv, self.sides = nn.Conv2d(3, 5, 3), sides
        self.early, self.late, self.other = (nn.Conv2d(5, n, 1) for n in (5, 5, 3))
        self.again, self.fc = nn.Conv2d(5, 5, 3), nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        x = x * torch.sigmoid(x.mean((2, 3), keepdim=True))
        for side in (self.early, self.late, self.other) if self.sides else ():
            F.adaptive_avg_pool2d(side(x), 1)
        viewed = self.again(x).view(len(x), -1).unflatten(1, (5, -1))
        return self.fc(viewed.mean(2) + x.mean((2, 3)))


@pytest.mark.parametrize("trainable", [True, False])
def test_the_last_prediction_of_all_classes_on_the_side_is_taken(trainable: bool) -> None:
    net = seeded(lambda: Sides(True)).requires_grad_(trainable)
    assert class_map_layer(net, pictures()) == "late"
    without = seeded(lambda: Sides(False)).requires_grad_(trainable)
    with pytest.raises(InvalidInput, match="no map of every class"):
        class_map_layer(without, pictures())


# --- transformers -----------------------------------------------------------------------------


def attention_of_torchvision(net: nn.Module, images: Tensor) -> list[Tensor]:
    """``[B, heads, T, T]`` of each layer, by torch's own ``need_weights=True``."""
    modules = [m for m in net.modules() if isinstance(m, nn.MultiheadAttention)]
    names = {f"layer{i}": m for i, m in enumerate(modules)}
    inputs = [caught_input(net, images, module) for module in names.values()]
    return [
        module(x, x, x, need_weights=True, average_attn_weights=False)[1].detach()
        for module, x in zip(modules, inputs, strict=True)
    ]


def caught_input(net: nn.Module, images: Tensor, module: nn.Module) -> Tensor:
    found = []
    handle = module.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0]))
    with torch.no_grad():
        net(images)
    handle.remove()
    return found[0]


def rolled_out(
    layers: list[Tensor], fuse: str = "mean", discard: float = 0.0, classes: bool = True
) -> Tensor:
    """Products of whole matrices, image by image in numpy; patches are the last nine tokens."""
    maps = []
    for image in range(3):
        product = np.eye(layers[0].shape[-1])
        for layer in layers:
            a = getattr(np, fuse)(layer[image].numpy(), axis=0)
            order = np.argsort(a, axis=None)
            a = a.copy()
            a.flat[order[: int(discard * a.size)]] = 0.0
            a = (a + np.eye(len(a))) / 2
            product = (a / a.sum(axis=1, keepdims=True)) @ product
        row = product[0] if classes else product[-9:].mean(axis=0)
        maps.append(row[-9:].reshape(1, 3, 3))
    return torch.from_numpy(np.stack(maps))


@pytest.mark.parametrize(
    ("options", "brute"),
    [
        ({}, {}),
        ({"head_fusion": "max"}, {"fuse": "max"}),
        ({"head_fusion": "min", "discard_ratio": 0.25}, {"fuse": "min", "discard": 0.25}),
        ({"discard_ratio": 0.9}, {"discard": 0.9}),
        ({"pooling": "mean"}, {"classes": False}),
    ],
    ids=str,
)
def test_rollout_is_the_product_of_the_layers(options: dict, brute: dict) -> None:
    net, images = seeded(torchvision_vit), pictures()
    layers = attention_of_torchvision(net, images)
    assert [layer.shape for layer in layers] == [(3, 2, 10, 10)] * 2
    expected = rolled_out(layers, **brute)
    raw = explained("attention_rollout", net, images, **options)
    torch.testing.assert_close(raw, expected, **EXACT)
    for wrong in (rolled_out(layers[::-1], **brute), rolled_out(layers[1:], **brute)):
        assert not torch.allclose(raw, wrong, rtol=1e-3), "the net must tell the layers apart"
    if not options:  # rows of a product of stochastic matrices are probabilities
        assert (raw.sum((1, 2, 3)) < 1).all() and (raw > 0).all()


def test_without_a_class_token_the_patches_are_pooled() -> None:
    class Pooled(SmallVitNet):
        def forward(self, images: Tensor) -> Tensor:
            tokens = self.patches(images).flatten(2).transpose(1, 2) + self.positions[:, 1:]
            return self.fc(self.norm(self.layers(tokens)).mean(1))

    net, images = seeded(lambda: Pooled(3, 5, 12)), pictures()
    opened = OpenAttention(net)
    opened(images)
    expected = rolled_out([layer.detach() for layer in opened.layers], classes=False)
    torch.testing.assert_close(explained("attention_rollout", net, images), expected, **EXACT)
    with pytest.raises(InvalidInput, match=r"pooling: all tokens are patches"):
        explained("attention_rollout", net, images, pooling="class_token")


def torchvision_by_hand(net: nn.Module, images: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Logits of torchvision's transformer and its attention, every product written out."""
    patches = net.conv_proj(images).flatten(2).transpose(1, 2)
    tokens = torch.cat([net.class_token.expand(len(images), -1, -1), patches], 1)
    tokens, layers = tokens + net.encoder.pos_embedding, []
    for block in net.encoder.layers:
        inner, normed = block.self_attention, block.ln_1(tokens)
        packed = normed @ inner.in_proj_weight.T + inner.in_proj_bias
        q, k, v = packed.view(len(images), -1, 3, inner.num_heads, 4).unbind(2)
        layers.append(torch.einsum("bihd,bjhd->bhij", q, k).div(2.0).softmax(-1))
        mixed = torch.einsum("bhij,bjhd->bihd", layers[-1], v).flatten(2)
        tokens = tokens + inner.out_proj(mixed)
        tokens = tokens + block.mlp(block.ln_2(tokens))
    return net.heads(net.encoder.ln(tokens)[:, 0]), layers


def gradient_rolled_out(
    layers: list[Tensor], gradients: tuple[Tensor, ...], wrong: str = ""
) -> Tensor:
    """R ← R + Ā R with whole matrices, and three ways to get Ā wrong."""
    relevance = torch.eye(10, dtype=torch.float64).repeat(3, 1, 1)
    for a, g in zip(layers, gradients, strict=True):
        bar = (g * a).clamp(min=0).mean(1)
        if wrong == "mean before relu":
            bar = (g * a).mean(1).clamp(min=0)
        elif wrong == "no relu":
            bar = (g * a).mean(1)
        elif wrong == "gradient alone":
            bar = g.clamp(min=0).mean(1)
        relevance = relevance + bar @ relevance
    return relevance[:, 0, 1:].view(3, 1, 3, 3).detach()


@pytest.mark.parametrize("score", ["logit", "prob"])
@pytest.mark.parametrize("trainable", [True, False])
def test_gradient_weighted_rollout_by_brute_force(score: str, trainable: bool) -> None:
    net, images = seeded(torchvision_vit), pictures()
    logits, layers = torchvision_by_hand(net, images)
    torch.testing.assert_close(logits, net(images), **EXACT)
    chosen = (logits if score == "logit" else logits.softmax(1)).gather(1, TARGETS[:, None])
    gradients = torch.autograd.grad(chosen.sum(), layers)
    net.requires_grad_(trainable)
    raw = explained("attention_rollout", net, images, gradient=True, score=score)
    torch.testing.assert_close(raw, gradient_rolled_out(layers, gradients), **EXACT)
    for wrong in ("mean before relu", "no relu", "gradient alone"):
        other = gradient_rolled_out(layers, gradients, wrong)
        assert not torch.allclose(raw, other, rtol=1e-3), wrong
    other_class = build("attention_rollout", gradient=True, score=score)
    moved = other_class.explain(net, images, (TARGETS + 1) % 5)
    assert not torch.allclose(raw, moved, rtol=1e-3), "it must be class-specific"


class Encoded(nn.Module):
    """PyTorch's own encoder, which has a fast path of its own, fed by a matrix of patches."""

    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=batch_first, activation="gelu")
        self.patches, self.batch_first = nn.Linear(3 * 16, 8), batch_first
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(F.unfold(x, 4, stride=4).transpose(1, 2))
        if self.batch_first:
            return self.fc(self.encoder(tokens).mean(1))
        return self.fc(self.encoder(tokens.transpose(0, 1)).mean(0))


@pytest.mark.parametrize("batch_first", [True, False])
def test_fast_paths_step_aside(batch_first: bool) -> None:
    net, images = seeded(lambda: Encoded(batch_first)), pictures()
    opened = OpenAttention(net)
    for context in (torch.no_grad, torch.enable_grad):
        with context():
            torch.testing.assert_close(opened(images), net(images), **EXACT)
        assert [layer.shape for layer in opened.layers] == [(3, 2, 9, 9)] * 2
    first, second = (layer.detach() for layer in opened.layers)
    assert not torch.allclose(first, second, rtol=1e-3)
    expected = rolled_out([first, second], classes=False)
    torch.testing.assert_close(explained("attention_rollout", net, images), expected, **EXACT)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(
    "options", [{}, {"class_token": False, "global_pool": "avg"}, {"reg_tokens": 4}], ids=str
)
def test_rollout_of_timms_transformers(options: dict, fused: bool) -> None:
    timm = pytest.importorskip("timm")
    small = {"img_size": 12, "patch_size": 4, "embed_dim": 8, "depth": 2, "num_heads": 2}
    vit = timm.models.vision_transformer.VisionTransformer
    net, images = seeded(lambda: vit(**small, num_classes=5, **options)), pictures()
    for block in net.blocks:
        block.attn.fused_attn = False  # so that their dropout sees the probabilities
    drops = {f"layer{i}": block.attn.attn_drop for i, block in enumerate(net.blocks)}
    found = caught(net, images, **drops)
    for block in net.blocks:
        block.attn.fused_attn = fused
    expected = rolled_out([found[name] for name in drops], classes="class_token" not in options)
    torch.testing.assert_close(explained("attention_rollout", net, images), expected, **EXACT)


class Dotted(nn.Module):
    """One layer of `scaled_dot_product_attention` over nine patches, with its arguments."""

    def __init__(self, tokens: int = 9, **arguments: object) -> None:
        super().__init__()
        self.qkv, self.fc = nn.Conv2d(3, 24, 4, 4), nn.Linear(8, 5)
        self.tokens, self.arguments = tokens, arguments

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.qkv(x).flatten(2).transpose(1, 2)[:, : self.tokens]
        q, k, v = tokens.unflatten(2, (2, 12)).chunk(3, 3)
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        mixed = F.scaled_dot_product_attention(q, k, v, **self.arguments)
        return self.fc(mixed.transpose(1, 2).flatten(2).mean(1))


@pytest.mark.parametrize(
    "arguments",
    [
        {"scale": 0.7},
        {"attn_mask": torch.rand(9, 9, dtype=torch.float64)},
        {"attn_mask": torch.rand(9, 9) > 0.3},
    ],
    ids=["scale", "bias", "mask"],
)
def test_arguments_of_fused_attention_keep_their_meaning(arguments: dict) -> None:
    mask = arguments.get("attn_mask")
    if mask is not None and mask.dtype == torch.bool:
        mask.fill_diagonal_(True)  # a row without any token is NaN for everybody
    net, images = seeded(lambda: Dotted(**arguments)), pictures()
    torch.testing.assert_close(OpenAttention(net)(images), net(images), **EXACT)
    assert explained("attention_rollout", net, images).shape == (3, 1, 3, 3)


class Damped(Dotted):
    """The same, written out; then a part of its attention is taken away, in place or not."""

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.qkv(x).flatten(2).transpose(1, 2)
        torch.softmax(self.qkv(x), dim=1)  # square, but no attention
        q, k, v = (t.transpose(1, 2) for t in tokens.unflatten(2, (2, 12)).chunk(3, 3))
        attention = (q @ k.transpose(2, 3) / 2).softmax(dim=-1)
        if self.arguments["in_place"]:
            attention.sub_(0.05)
        else:
            attention = attention - 0.05
        return self.fc((attention @ v).transpose(1, 2).flatten(2).mean(1))


@pytest.mark.parametrize("gradient", [True, False])
def test_attention_that_is_changed_in_place_was_read_before(gradient: bool) -> None:
    nets = [seeded(lambda way=way: Damped(in_place=way)) for way in (True, False)]
    one, other = (
        explained("attention_rollout", net, pictures(), gradient=gradient) for net in nets
    )
    torch.testing.assert_close(one, other, **EXACT)


@pytest.mark.parametrize("average", [True, False])
def test_a_model_that_asks_for_the_weights_gets_them(average: bool) -> None:
    class Asks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches, self.fc = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 5)
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            tokens = self.patches(x).flatten(2).transpose(1, 2)
            mixed, weights = self.attention(tokens, tokens, tokens, average_attn_weights=average)
            return self.fc(mixed.mean(1)) * weights.square().flatten(1).sum(1, keepdim=True)

    net, images = seeded(Asks), pictures()
    torch.testing.assert_close(OpenAttention(net)(images), net(images), **EXACT)


class Shrinks(Dotted):
    """Attention of nine tokens, then of as many or as few as ``queries`` and ``keys`` say."""

    def __init__(self, queries: int, keys: int, again: bool) -> None:
        super().__init__()
        self.queries, self.keys, self.again = queries, keys, again

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.qkv(x).flatten(2).transpose(1, 2).unsqueeze(1)
        q, k, v = tokens.chunk(3, 3)
        if self.again:
            F.scaled_dot_product_attention(q, k, v)
        q, k, v = q[:, :, : self.queries], k[:, :, : self.keys], v[:, :, : self.keys]
        return self.fc(F.scaled_dot_product_attention(q, k, v).mean((1, 2)))


def test_attention_that_the_score_does_not_use_has_no_gradient() -> None:
    used, beside = (seeded(lambda idle=idle: Shrinks(9, 9, idle)) for idle in (False, True))
    one, other = (
        explained("attention_rollout", net, pictures(), gradient=True) for net in (used, beside)
    )
    torch.testing.assert_close(one, other, **EXACT)


# --- which models, which costs ----------------------------------------------------------------


def test_a_model_that_needs_plain_memory_is_read_once() -> None:
    """The first try ends in the middle, after a gate and a layer of attention were seen."""

    class Views(SmallVitNet):
        def forward(self, images: Tensor) -> Tensor:
            logits = super().forward(images)
            features = self.patches(images)
            gated = features * torch.sigmoid(features.mean((2, 3), keepdim=True))
            viewed = self.patches(images).view(len(images), -1).unflatten(1, (64, -1))
            return logits + self.fc(viewed.mean(2) + gated.mean((2, 3)))

    rollout = "attention_rollout"
    for name, options in ((rollout, {}), (rollout, {"gradient": True}), ("se_attention", {})):
        net = seeded(lambda: Views(3, 5, 12))
        first, second = (explained(name, net, pictures(), **options) for _ in range(2))
        torch.testing.assert_close(first, second, **EXACT)


def test_equals_of_the_lowest_entry_that_stays_are_not_discarded() -> None:
    net = seeded(lambda: SmallVitNet(3, 5, 12))
    for layer in net.layers:  # all tokens look alike: attention is uniform
        nn.init.zeros_(layer.attention.qkv.weight)
        nn.init.zeros_(layer.attention.qkv.bias)
    plain = explained("attention_rollout", net, pictures())
    discarding = explained("attention_rollout", net, pictures(), discard_ratio=0.5)
    torch.testing.assert_close(discarding, plain, **EXACT)


def test_rollout_costs_what_it_says() -> None:
    net, images = seeded(torchvision_vit), pictures()
    for gradient, passes in ((False, Passes(1, 0)), (True, Passes(1, 1))):
        counted, explainer = Counted(net), build("attention_rollout", gradient=gradient)
        explainer.explain(counted, images, TARGETS)
        assert counted.forwards == 3 and explainer.cost() == passes
        assert counted.backwards == 0, "the way back ends at the first layer's attention"


@pytest.mark.parametrize(
    ("tokens", "height", "width", "expected"),
    [
        (197, 224, 224, (1, 14, 14)),
        (196, 224, 224, (0, 14, 14)),
        (201, 224, 224, (5, 14, 14)),
        (1374, 518, 518, (5, 37, 37)),
        (50, 28, 28, (1, 7, 7)),
        (7, 8, 12, (1, 2, 3)),
        (281, 224, 320, (1, 14, 20)),
        (17, 33, 33, (1, 4, 4)),
    ],
)
def test_patches_are_found_on_any_grid_of_squares(
    tokens: int, height: int, width: int, expected: tuple[int, int, int]
) -> None:
    assert patch_grid(tokens, height, width) == expected


@pytest.mark.parametrize(
    ("name", "net", "options", "field", "words"),
    [
        ("se_attention", lambda: ResNetLike(), {}, "model", "nothing in it multiplies features by"),
        ("se_attention", lambda: ResNetLike(), {}, "model", "grad_cam works with any conv"),
        ("cbam_attention", lambda: SeCnnNet(3, 5), {}, "model", "one computed number per place"),
        ("class_attention", lambda: SeCnnNet(3, 5), {}, "model", "no map of every class"),
        ("class_attention", lambda: CbamCnnNet(3, 40), {}, "model", "no map of every class"),
        ("attention_rollout", lambda: SeCnnNet(3, 5), {}, "model", "it is no vision transformer"),
        ("attention_rollout", lambda: SeCnnNet(3, 5), {"gradient": True}, "model", "grad_cam"),
        ("se_attention", lambda: SeCnnNet(3, 5), {"layer": "stag1"}, "layer", "mean 'stage1'"),
        (
            "se_attention",
            lambda: SeCnnNet(3, 5),
            {"layer": "stage2.3"},
            "layer",
            "no channel gate in 'stage2.3'; did you mean 'stage2.6'",
        ),
        (
            "class_attention",
            lambda: AbnCnnNet(3, 5),
            {"layer": "features"},
            "layer",
            "'features' puts out 40 maps for 5 classes",
        ),
        ("attention_rollout", lambda: Dotted(is_causal=True), {}, "model", "a causal mask"),
        ("attention_rollout", lambda: Dotted(dropout_p=0.1), {}, "model", "dropout"),
        ("attention_rollout", lambda: Shrinks(1, 9, False), {}, "model", "not all tokens attend"),
        ("attention_rollout", lambda: Shrinks(9, 4, False), {}, "model", "not all tokens attend"),
        ("attention_rollout", lambda: Shrinks(4, 4, True), {}, "model", "not all tokens attend"),
        (
            "attention_rollout",
            lambda: import_torchvision().models.SwinTransformer(
                patch_size=[2, 2], embed_dim=8, depths=[2], num_heads=[2], window_size=[3, 3],
                num_classes=5,
            ),
            {},
            "model",
            "not all tokens attend to all others",
        ),
        ("attention_rollout", lambda: Masked(), {}, "model", "uses attn_mask"),
        ("attention_rollout", lambda: Dotted(tokens=8), {}, "model", "fill no grid"),
    ],
)  # fmt: skip
def test_models_without_what_is_read_are_refused(
    name: str, net: object, options: dict, field: str, words: str
) -> None:
    net, images = seeded(net), pictures()
    with (
        untouched(net, images, TARGETS, after="an exception"),
        pytest.raises(InvalidInput, match=words) as error,
    ):
        explained(name, net, images, **options)
    assert error.value.field == field


class Masked(Encoded):
    def __init__(self) -> None:
        super().__init__(True)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(F.unfold(x, 4, stride=4).transpose(1, 2))
        return self.fc(self.encoder(tokens, mask=torch.zeros(9, 9, dtype=x.dtype)).mean(1))
