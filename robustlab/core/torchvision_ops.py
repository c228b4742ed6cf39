"""The one door to torchvision, because its import can fail for a reason users cannot guess."""

import importlib
from types import ModuleType

import torch

# A torchvision built for CUDA cannot load its compiled operators next to a CPU-only torch.
# It keeps quiet about that, then dies while describing two operators that were never
# declared: "operator torchvision::nms does not exist". Models, datasets and transforms use
# neither, so declaring their signatures is enough. A build that did load must not be
# touched (a second declaration is an error), hence: only after this very failure.
_SYMPTOM = "operator torchvision::"
_SIGNATURES = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_library: torch.library.Library | None = None  # collecting the Library undoes the declaration


def import_torchvision() -> ModuleType:
    """Import torchvision, also where its build and torch's do not match.

    Returns:
        The ``torchvision`` module. Later plain imports of it work as well.

    Raises:
        ImportError: torchvision is not installed.
        RuntimeError: its import fails for any other reason.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if _SYMPTOM not in str(error):
            raise
    _declare_missing()
    return importlib.import_module("torchvision")


def _declare_missing() -> None:
    global _library
    _library = _library or torch.library.Library("torchvision", "FRAGMENT")
    for signature in _SIGNATURES:
        if not hasattr(torch.ops.torchvision, signature.partition("(")[0]):
            _library.define(signature)
