"""Explainers that leave something behind."""

from dataclasses import dataclass

import torch

from robustlab.core.interposition import Interposition
from robustlab.explainers.gradient.plain import Gradient


def nothing(*_: object) -> None:
    return None


@dataclass(frozen=True, kw_only=True)
class LeaksHook(Gradient):
    def explain(self, model, images, targets, **kw):
        next(model.children()).register_forward_hook(nothing)
        return super().explain(model, images, targets, **kw)


@dataclass(frozen=True, kw_only=True)
class LeaksHookAfterAnError(Gradient):
    """Removes its hook, but not in a ``finally``."""

    def explain(self, model, images, targets, **kw):
        handle = list(model.modules())[-1].register_forward_hook(nothing)
        raw = super().explain(model, images, targets, **kw)
        handle.remove()
        return raw


@dataclass(frozen=True, kw_only=True)
class LeavesGrad(Gradient):
    """Calls ``backward`` on a whole graph, so that every weight collects a gradient."""

    def explain(self, model, images, targets, **kw):
        raw = super().explain(model, images, targets, **kw)
        with torch.enable_grad():
            model(images.detach()).sum().backward()
        return raw


@dataclass(frozen=True, kw_only=True)
class StaysInTrainMode(Gradient):
    """Forgets to go back to evaluation when the model raises."""

    def explain(self, model, images, targets, **kw):
        model.train()
        raw = super().explain(model, images, targets, **kw)
        model.eval()
        return raw


@dataclass(frozen=True, kw_only=True)
class LeavesItsModeOn(Gradient):
    def explain(self, model, images, targets, **kw):
        mode = Interposition({})
        mode.__enter__()
        raw = super().explain(model, images, targets, **kw)
        mode.__exit__(None, None, None)
        return raw


@dataclass(frozen=True, kw_only=True)
class FreezesForGood(Gradient):
    def explain(self, model, images, targets, *, create_graph=False, **kw):
        if not create_graph:
            model.requires_grad_(False)
        return super().explain(model, images, targets, create_graph=create_graph, **kw)


@dataclass(frozen=True, kw_only=True)
class MarksTheImages(Gradient):
    def explain(self, model, images, targets, **kw):
        if images.is_leaf:
            images.requires_grad_()
        return super().explain(model, images, targets, **kw)


@dataclass(frozen=True, kw_only=True)
class ClampsTheImages(Gradient):
    def explain(self, model, images, targets, **kw):
        images.detach().clamp_(0.2, 0.8)
        return super().explain(model, images, targets, **kw)


@dataclass(frozen=True, kw_only=True)
class WritesABuffer(Gradient):
    def explain(self, model, images, targets, **kw):
        for name, buffer in model.named_buffers():
            if name.endswith("num_batches_tracked"):
                buffer.add_(1)
        return super().explain(model, images, targets, **kw)


@dataclass(frozen=True, kw_only=True)
class PatchesAModule(Gradient):
    def explain(self, model, images, targets, **kw):
        model.explained = True
        return super().explain(model, images, targets, **kw)


@dataclass(frozen=True, kw_only=True)
class TurnsGradOff(Gradient):
    def explain(self, model, images, targets, **kw):
        raw = super().explain(model, images, targets, **kw)
        torch.set_grad_enabled(False)
        return raw


BROKEN = [
    (LeaksHook(), "_forward_hooks of module"),
    (LeaksHookAfterAnError(), "left behind after an exception: _forward_hooks"),
    (LeavesGrad(), r"\.grad of parameter"),
    (StaysInTrainMode(), "left behind after an exception: training flag"),
    (LeavesItsModeOn(), "left behind after an exception: a torch function mode"),
    (FreezesForGood(), "requires_grad of parameter"),
    (MarksTheImages(), "requires_grad of the images"),
    (ClampsTheImages(), "value of the images"),
    (WritesABuffer(), "value of buffer"),
    (PatchesAModule(), "an attribute of module"),
    (TurnsGradOff(), "the grad mode"),
]
