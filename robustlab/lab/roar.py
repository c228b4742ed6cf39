"""Remove and retrain: do the pixels that an explanation ranks first carry the information?

Removing pixels makes images such as a trained network has never seen, so what it loses on them
says little. Hooker et al. 2019 (ROAR) train a new one on images without the pixels and ask how
well that does: the further its accuracy falls below that of random pixels, the better the order.
"""

from dataclasses import replace
from functools import lru_cache
from typing import Final

import torch
from torch import Tensor

from robustlab import explainers
from robustlab.core.batch import Batch
from robustlab.core.judge import pose
from robustlab.core.randomness import generator
from robustlab.data.parts import train_and_held_out
from robustlab.lab.origins import Origin, frozen, load_model
from robustlab.lab.spec import RANDOM, Course, Removal

TOGETHER: Final = 100


def parts_of(course: Course, device: str) -> tuple[Batch, Batch]:
    """What a course trains on and what it holds out, both without the pixels that it removes.

    A removed pixel takes the mean of its channel over the images to train on, as in the paper.
    """
    seen, unseen = _whole(course)
    if course.remove is None:
        return seen, unseen
    first, second = _orders(_asked(course), device)
    colour = seen.images.mean((0, 2, 3)).view(1, -1, 1, 1)
    share, parts = course.remove.share, ((seen, first), (unseen, second))
    if course.remove.alone:
        less, fewer = (holes(part, order, share) for part, order in parts)
    else:
        less, fewer = (without(part, order, share, colour) for part, order in parts)
    return less, fewer


def without(batch: Batch, order: Tensor, share: float, colour: Tensor) -> Batch:
    """``batch`` with the first ``share`` of the pixels in ``order`` ``[B,H·W]`` in ``colour``."""
    gone = _gone(batch, order, share)
    return replace(batch, images=torch.where(gone, colour, batch.images))


def holes(batch: Batch, order: Tensor, share: float) -> Batch:
    """Nothing of ``batch`` but where those pixels were: 1 there, 0 elsewhere."""
    gone = _gone(batch, order, share).to(batch.images.dtype)
    return replace(batch, images=gone.expand_as(batch.images).contiguous())


def _gone(batch: Batch, order: Tensor, share: float) -> Tensor:
    """Which pixels go, ``[B,1,H,W]``."""
    height, width = batch.images.shape[-2:]
    gone = torch.zeros(len(batch), height * width, dtype=torch.bool)
    gone.scatter_(1, order[:, : round(share * height * width)].long(), True)
    return gone.view(-1, 1, height, width)


def order_of(batch: Batch, removal: Removal, device: str) -> Tensor:
    """Pixels of each image, the most important first, ``[B,H·W]`` int32.

    Maps are of the class that the explained network predicts: by the label the mask itself
    would tell the class. Of equal pixels a random one comes first, so that a map with many
    zeros does not remove the picture from its upper left corner on.
    """
    parts = (batch[i : i + TOGETHER] for i in range(0, len(batch), TOGETHER))
    return torch.cat([_order(part, removal, device) for part in parts])


def _order(part: Batch, removal: Removal, device: str) -> Tensor:
    pixels = part.images[0, 0].numel()
    draws = [torch.randperm(pixels, generator=generator(0, i, "roar")) for i in part.ids]
    shuffled = torch.stack(draws)
    if removal.explainer.name == RANDOM:
        return shuffled.to(torch.int32)
    chosen, model = removal.explainer, removal.model
    net = load_model(Origin(model.name, frozen(model.options)), device)
    explainer = explainers.build(chosen.name, **chosen.options)
    maps = pose(net, explainer, part.to(device)).maps.flatten(1).cpu()
    ranked = maps.gather(1, shuffled).argsort(dim=1, descending=True, stable=True)
    return shuffled.gather(1, ranked).to(torch.int32)


def _whole(course: Course) -> tuple[Batch, Batch]:
    data = course.data
    return train_and_held_out(
        data.name, data.options, images=course.images, held_out=course.held_out
    )


def _asked(course: Course) -> str:
    """What an order depends on, as text: not the share, nor how the network is trained."""
    assert course.remove is not None  # noqa: S101
    asked = Course(
        data=course.data,
        images=course.images,
        held_out=course.held_out,
        remove=course.remove.model_copy(update={"share": 0.5, "alone": False}),
    )
    return asked.model_dump_json()


@lru_cache(maxsize=2)
def _orders(asked: str, device: str) -> tuple[Tensor, Tensor]:
    """Of both parts, kept for the next share or seed of the same explainer."""
    course = Course.model_validate_json(asked)
    assert course.remove is not None  # noqa: S101
    first, second = (order_of(part, course.remove, device) for part in _whole(course))
    return first, second
