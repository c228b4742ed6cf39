"""CAM: the class activation map of a net that averages a feature map and applies a matrix."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from robustlab.core.errors import InvalidInput
from robustlab.core.interposition import OPERATIONS
from robustlab.core.maps import Post
from robustlab.core.score import check_targets
from robustlab.core.streaming import each_micro_batch, run_model
from robustlab.core.types import About, Differentiable, Passes
from robustlab.explainers.cam.layers import weighted_sum


@dataclass(frozen=True, kw_only=True)
class CAM:
    """Class activation map: a = Σ_k W[t,k] A_k, for logits W · mean(A) + b.

    A ``[B,K,h,w]`` is the last feature map before the last matrix, found by how the net
    computes: modules, functions and their names do not matter, nor does what lies between
    (mean, pooling, flatten, dropout). That the logits are W · mean(A) + b is checked on every
    batch; hence mean(a) + b_t = logit_t, and a = h·w times Grad-CAM without its ReLU. What
    is explained is the logit; there is no ``score`` to choose and no ReLU, as in the paper
    (``post: positive`` keeps what speaks for the class).
    Raw shape ``[B,1,h,w]`` at the feature map's own size, whatever the net's stride; the map
    is upsampled bilinearly to the image. Cost: 1 forward pass. Source: Zhou et al. 2016.

    Raises:
        InvalidInput: the net has no such head.
    """

    about: ClassVar[About] = About(
        family="cam",
        year=2016,
        source="Zhou et al. 2016, Learning deep features for discriminative localization",
        layer_specific=True,
        detail="region",
        needs="global average pooling before one last linear layer",
    )
    differentiable: ClassVar[Differentiable] = "exact"
    post: Post = "signed"

    def explain(
        self,
        model: nn.Module,
        images: Tensor,
        targets: Tensor,
        *,
        ids: Sequence[str] | None = None,
        create_graph: bool = False,
    ) -> Tensor:
        def run(part: Tensor, labels: Tensor, _: slice) -> Tensor:
            with torch.set_grad_enabled(create_graph), _Head() as head:
                logits = run_model(model, part)
            check_targets(labels, logits)
            features, weight = head.verified(logits)
            with torch.set_grad_enabled(create_graph):
                return weighted_sum(features, weight[labels][:, :, None, None], relu=False)

        return each_micro_batch(images, targets, run)

    def cost(self) -> Passes:
        return Passes(1, 0)


class _Head(TorchFunctionMode):
    """Remembers the last matrix of a forward pass and the last feature map before it."""

    def __init__(self) -> None:
        super().__init__()
        self._latest: Tensor | None = None
        self._features: Tensor | None = None
        self._matrix: dict[str, Any] = {}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2:].numel() > 1:
            self._latest = output
        elif func is F.linear:
            self._features = self._latest
            self._matrix = {**dict(zip(OPERATIONS[func][1], args, strict=False)), **kwargs}
        return output

    def verified(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """(A, W), once it is certain that the logits are W · mean(A) + b."""
        features, weight = self._features, self._matrix.get("weight")
        if features is None or weight is None or not _averages(features, self._matrix, logits):
            raise InvalidInput(
                "model",
                "its logits are not a matrix times the mean of a feature map of several places",
                "grad_cam, layer_cam and score_cam work with any convolutional network, "
                "gradient and lrp with others",
            )
        return features, weight


@torch.no_grad()
def _averages(features: Tensor, matrix: Mapping[str, Any], logits: Tensor) -> bool:
    """Is W · mean(A) + b what the net returned, up to half of the digits?"""
    weight = matrix["weight"]
    if features.shape[:2] != (len(logits), weight.shape[1]) or len(weight) != logits.shape[1]:
        return False
    expected = F.linear(features.mean((2, 3)), weight, matrix.get("bias"))
    slack = torch.finfo(logits.dtype).eps ** 0.5 * float(expected.abs().max())
    return torch.allclose(logits, expected, rtol=0, atol=slack)
