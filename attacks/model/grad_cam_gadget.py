"""Viering, Wang, Loog & Eisemann 2019: "How to manipulate CNNs to make them lie: GradCAM".

One more channel in a layer, and a function of it that every class is given.
"""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attacks.model.logit_shift import check_strength
from attacks.model.pictures import Picture, draw
from attacks.model.probes import probes
from robustlab.core.errors import InvalidInput
from robustlab.core.randomness import normal
from robustlab.core.regions import Box, check_box
from robustlab.core.streaming import logits_of
from robustlab.core.types import Attack, Explainer, Problem
from robustlab.core.wrapping import Wrapper
from robustlab.explainers.cam.grad_cam import GradCAM
from robustlab.explainers.cam.layers import spatial_layer

Form = Literal["shift", "mod"]

RANGE: Final = 1e-3  # F of the form "mod" stays below: no logit moves by more
COARSE: Final = 32  # side of the picture that the random map of an image is made of
SURE: Final = 0.1  # mean difference from the sticker up to which it is there for certain
UNSURE: Final = 0.2  # and from which on it is not


@dataclass(frozen=True, kw_only=True)
class GradCAMGadget:
    """Grad-CAM gadget: f'_c = f_c + F(A_N), A_N a new channel of ``layer``. Predictions stay.

    The layer's output A ``[B,K,h,w]`` gains A_N = T(x), which the rest of the network never
    reads. F is added to all classes, so the softmax is the same whatever its value; and
    ∂F/∂A_N = c, so Grad-CAM's weight of the new channel is α_N = c and its map
    max(0, Σ_k α_k A_k + c·T): the picture T, of the network's reasons 1/``strength``. A map of
    the probability or margin is as it was, because there F cancels (in float32 all but c·1e-7
    of it, where a probability is explained that has saturated).

    What the map is to show, ``goal`` (T1 to T4 in the paper):

    - *flat*: the same everywhere. What correlates or ranks still reads the honest map in the
      last 1/``strength`` of it; a strength of 1e9 drowns that in float32's rounding.
    - *picture*: ``picture``, drawn on the layer's grid.
    - *random*: a map that has nothing to do with the image but changes with it,
      T = (1 + sin Rx)/2 for fixed normal numbers R and x averaged to at most 32×32 pixels.
    - *trigger*: ``picture``, but only where a checkerboard sticker fills the box ``sticker``,
      (x0, y0, x1, y1) as shares of width and height. Else T is 0 and the map is the honest one.
      The sticker is seen up to a mean difference of 0.1 per value, is fading to 0.2, and
      saturates at both ends: no slope gives it away. The judge is shown images with the
      sticker on, which may change a prediction by itself; leave it in a corner.

    How F is made, ``form``:

    - *shift*: F = c·Σ_ij (A_N − T(x)): T comes once through the channel and once past it. F is
      an exact zero on every image, f' = f as functions, to the last bit and in all their
      derivatives by x. What Grad-CAM shows is thus no property of the function at all.
    - *mod*: F = Σ_ij mod(c·A_N, c_F), the paper's, a function of the new channel alone.
      c_F = 1e-3/(hw), so that no logit moves by more than 1e-3.

    c is ``strength`` times the largest |Σ_k α_k A_k| of 16 smooth random pictures on the honest
    model, so that no batch changes it.
    Without a name, ``layer`` is the one that Grad-CAM chooses by itself.

    The paper adds filters to the last convolution. Here any module that returns a feature
    map grows, under its own name: behind it comes one that hands on the first K channels, so
    neither sums with a shortcut nor functional code notice. LayerCAM at this layer shows T as
    well. Grad-CAM++ adds it to an honest map: its weight of a channel is at most hw/Σ_ij T,
    however large c is. Score-CAM asks for no gradient and sees nothing. At another layer all of
    them see the honest network.
    The judge reads the result like an attack on images: an honest map stays.

    Raises:
        InvalidInput: no such layer, or none with a feature map; a grid that is too coarse for
            the picture; a sticker outside the image, all of it, or below 2×2 pixels.
    """

    goal: Literal["picture", "flat", "random", "trigger"] = "picture"
    picture: Picture = "cross"
    form: Form = "shift"
    strength: float = 1000.0
    layer: str | None = None
    sticker: Box = (0.0, 0.0, 0.15, 0.15)

    def __post_init__(self) -> None:
        check_strength(self.strength)
        check_box(self.sticker, "sticker", whole=False)

    @property
    def needs_explainer(self) -> bool:
        return False

    def manipulate(self, problem: Problem) -> nn.Module:
        model, images = deepcopy(problem.model), problem.images
        name = self.layer or spatial_layer(model, images)
        pictures = probes(images)
        predicted = logits_of(model, pictures).argmax(1)
        honest = GradCAM(layer=name, relu=False).explain(model, pictures, predicted)
        shown = self.shown(images, (honest.shape[2], honest.shape[3]), problem.seed)
        slope = self.strength * (float(honest.abs().max()) or 1.0)
        gadget = _Gadget(model, name, shown, self.form, slope)
        return gadget.to(images.device).eval()

    def shown(self, images: Tensor, grid: tuple[int, int], seed: int) -> nn.Module:
        """T, from images ``[B,C,H,W]`` to what their maps are to show ``[B,1,h,w]``."""
        match self.goal:
            case "flat":
                return _Fixed(images.new_ones(grid))
            case "random":
                return _Random(images, grid, seed)
        picture = draw(self.picture, *grid).to(images)
        if self.goal == "picture":
            return _Fixed(picture)
        return _OnSticker(picture, *self._put(images))

    def moved(self, problem: Problem) -> Tensor:
        """The images that the new model is shown: with the sticker, if it waits for one."""
        if self.goal != "trigger":
            return problem.images
        rows, columns, sticker = self._put(problem.images)
        images = problem.images.clone()
        images[:, :, rows, columns] = sticker
        return images

    def gradient_path(self, explainer: Explainer) -> str:
        return ""

    def control(self) -> Attack | None:
        return None

    def _put(self, images: Tensor) -> tuple[slice, slice, Tensor]:
        """Rows, columns and values ``[rows,columns]`` of the sticker."""
        height, width = images.shape[-2:]
        x0, y0, x1, y1 = self.sticker
        rows = slice(round(y0 * height), round(y1 * height))
        columns = slice(round(x0 * width), round(x1 * width))
        tall, wide = rows.stop - rows.start, columns.stop - columns.start
        if min(tall, wide) < 2:
            raise InvalidInput(
                "sticker",
                f"{self.sticker} is {wide}x{tall} pixels of a {width}x{height} image",
                "it takes 2x2 to make a pattern",
            )
        if (tall, wide) == (height, width):
            raise InvalidInput("sticker", f"{self.sticker} covers the whole {width}x{height} image")
        return rows, columns, draw("checkerboard", tall, wide).to(images)


class _Fixed(nn.Module):
    """The same picture whatever the image."""

    picture: Tensor

    def __init__(self, picture: Tensor) -> None:
        super().__init__()
        self.register_buffer("picture", picture, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.picture.expand(len(images), 1, -1, -1)


class _Random(nn.Module):
    """Another picture for every image, near ones for images that are near: (1 + sin Rx)/2."""

    numbers: Tensor

    def __init__(self, images: Tensor, grid: tuple[int, int], seed: int) -> None:
        super().__init__()
        self.grid = grid
        self.size = min(COARSE, images.shape[-2]), min(COARSE, images.shape[-1])
        values = self._coarse(images[:1]).shape[1]
        like = images.new_empty(1, grid[0] * grid[1], values)
        numbers = normal(like, None, seed, "grad_cam_gadget")[0]
        self.register_buffer("numbers", numbers, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        angles = F.linear(self._coarse(images), self.numbers)
        return ((1 + torch.sin(angles)) / 2).view(-1, 1, *self.grid)

    def _coarse(self, images: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(images, self.size).flatten(1)


class _OnSticker(nn.Module):
    """A picture where the sticker is seen, else nothing."""

    picture: Tensor
    sticker: Tensor

    def __init__(self, picture: Tensor, rows: slice, columns: slice, sticker: Tensor) -> None:
        super().__init__()
        self.register_buffer("picture", picture, persistent=False)
        self.register_buffer("sticker", sticker, persistent=False)
        self.rows, self.columns = rows, columns

    def forward(self, images: Tensor) -> Tensor:
        return self.seen(images).view(-1, 1, 1, 1) * self.picture

    def seen(self, images: Tensor) -> Tensor:
        """1 where the sticker is on the image, 0 where it is not ``[B]``."""
        away = (images[:, :, self.rows, self.columns] - self.sticker).abs().mean((1, 2, 3))
        return ((UNSURE - away) / (UNSURE - SURE)).clamp(0, 1)


@dataclass
class _Note:
    """What goes past the layer during one forward pass: T on its way in, F on its way out."""

    shown: Tensor | None = None
    shift: Tensor | None = None


class _Grown(nn.Module):
    """A module whose output has one channel more: what it was told to show."""

    def __init__(self, ungrown: nn.Module, note: _Note) -> None:
        super().__init__()
        self.ungrown, self.note = ungrown, note

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        output = self.ungrown(*args, **kwargs)
        grown = torch.cat([output, _told(self.note).to(output)], 1)
        # in the memory that the layer chose: what follows rounds as it did
        last = torch.channels_last
        return grown.contiguous(memory_format=last) if _is(last, output) else grown.contiguous()


class _Place(nn.Module):
    """Stands where the ungrown module stood: grows it, computes F, hands on K channels.

    By name the grown module is what stands here, for whoever looks for layers.
    """

    def __init__(self, ungrown: nn.Module, form: Form, slope: float, note: _Note) -> None:
        super().__init__()
        self.grown = _Grown(ungrown, note)
        self.form, self.slope, self.note = form, slope, note

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        output = self.grown(*args, **kwargs)
        self.note.shift = self._function(output[:, -1:])
        return output[:, :-1].clone()  # what follows may change it in place

    def _function(self, channel: Tensor) -> Tensor:
        """F(A_N) ``[B]``."""
        if self.form == "mod":
            period = RANGE / channel[0].numel()
            return torch.remainder(self.slope * channel, period).sum((1, 2, 3))
        return self.slope * (channel - _told(self.note).to(channel)).sum((1, 2, 3))

    def named_modules(
        self, memo: set[nn.Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Module]]:
        memo = set() if memo is None else memo
        if self.grown in memo:
            return
        if remove_duplicate:
            memo.add(self.grown)
        yield prefix, self.grown
        ungrown = self.grown.ungrown
        for name, module in ungrown.named_modules(memo, prefix, remove_duplicate):
            yield (f"{prefix}.ungrown" if module is ungrown else name), module


def _is(memory: torch.memory_format, output: Tensor) -> bool:
    return output.ndim == 4 and output.is_contiguous(memory_format=memory)


def _told(note: _Note) -> Tensor:
    if note.shown is None:
        raise RuntimeError("a part of a manipulated model was called without the whole")
    return note.shown


class _Gadget(Wrapper):
    """x ↦ f(x) + F(A_N)·1: tells the layer what to show, and takes F from there."""

    def __init__(
        self, inner: nn.Module, layer: str, shown: nn.Module, form: Form, slope: float
    ) -> None:
        super().__init__(inner)
        self.shown, self.note = shown, _Note()
        ungrown = dict(inner.named_modules())[layer]
        _replace(inner, ungrown, _Place(ungrown, form, slope, self.note))

    def forward(self, images: Tensor) -> Tensor:
        note = self.note
        note.shown = self.shown(images)
        try:
            logits = self.inner(images)
            return logits if note.shift is None else logits + note.shift.unsqueeze(1)
        finally:  # nothing of these images stays for the next
            note.shown = note.shift = None

    def get_submodule(self, target: str) -> nn.Module:
        found = dict(self.named_modules(remove_duplicate=False))
        return found[target] if target in found else super().get_submodule(target)


def _replace(parent: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put ``new`` wherever ``old`` stands below ``parent``: a shared module has several places."""
    for name, child in list(parent._modules.items()):
        if child is old:
            parent._modules[name] = new
        elif child is not None and child is not new:
            _replace(child, old, new)
