"""What an explainer returns: raw attributions that do not depend on the batch."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from robustlab.core.maps import to_maps
from robustlab.core.types import Explainer
from tests.explainers.promises.comparing import IDS, close, micro_batches_of


def check_raw(explainer: Explainer, net: nn.Module, images: Tensor, targets: Tensor) -> None:
    raw = explainer.explain(net, images, targets, ids=IDS)
    count, _, height, width = images.shape
    assert raw.ndim == 4 and raw.shape[0] == count, "not [B,C,h,w]"
    one_channel = raw.shape[1] == 1 and raw.shape[2] <= height and raw.shape[3] <= width
    assert raw.shape == images.shape or one_channel, "neither [B,C,H,W] nor [B,1,h,w]"
    assert raw.dtype == images.dtype, "another dtype"
    assert raw.device == images.device, "another device"
    assert torch.isfinite(raw).all(), "not finite"
    assert raw.abs().amax() > 0, "nothing attributed: the battery needs a map to judge"
    assert to_maps(raw, explainer.post, (height, width)).shape == (count, height, width)


def check_batches(explainer: Explainer, net: nn.Module, images: Tensor, targets: Tensor) -> None:
    def explain(where: list[int], ids: Sequence[str] | None) -> Tensor:
        names = None if ids is None else [ids[i] for i in where]
        return explainer.explain(net, images[where], targets[where], ids=names)

    every = list(range(len(images)))
    for ids in (None, IDS):
        whole = explainer.explain(net, images, targets, ids=ids)
        singles = torch.cat([explain([i], ids) for i in every])
        close(singles, whole, "mixes the images of a batch")
        order = every[-1:] + every[:-1]
        close(explain(order, ids), whole[order], "depends on the order of images")
    with micro_batches_of(2, images):
        close(explain(every, IDS), whole, "depends on the size of a micro-batch")
    twins = explainer.explain(net, images[:1].repeat(2, 1, 1, 1), targets[:1].repeat(2))
    close(twins[0:1], twins[1:2], "without ids, equal images get different noise")
