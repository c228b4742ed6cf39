"""The order of many numbers, fast: ranks, tied pairs and discordant pairs of whole batches.

Everything runs on the maps' own device. On a CPU numpy sorts and compares with vector
instructions and torch does not, so numpy does that part there; and maps go through a few at a
time, so that what is made of them stays in the cache.
"""

from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

Ranking = tuple[Tensor, Tensor]
"""What ``ranking`` finds out about a batch; a map that is compared often needs it only once."""

_SHIFT: Final = 7
_BLOCK: Final = 1 << _SHIFT  # numbers that are compared each with each
_CACHED: Final = 1 << 16  # numbers in a slice of the batch
_AT_ONCE: Final = 1 << 28  # comparisons at once on another device


def ranking(flat: Tensor) -> Ranking:
    """Of each row of ``[B,n]`` float64: its places in increasing order of value, and the tier
    of each of them, int64 ``[B,n]`` both. Equal values share a tier; tiers count up from 0.
    """
    order, ordered = _sorted(flat)
    tier = torch.zeros_like(order)
    rises = ordered[:, 1:] != ordered[:, :-1]
    if _on_cpu(flat):
        np.cumsum(rises.numpy(), axis=1, out=tier.numpy()[:, 1:])
    else:
        tier[:, 1:] = rises.cumsum(1)
    return order, tier


def centred_ranks(flat: Tensor) -> Tensor:
    """Ranks ``[B,n]`` about their mean, each run of equal values sharing its average."""
    size = flat.shape[1]
    ranks = torch.empty_like(flat)
    for part in slices(flat):
        order, tier = ranking(flat[part])
        row = torch.arange(len(tier), device=flat.device).unsqueeze(1) * size
        count = torch.bincount((tier + row).flatten(), minlength=tier.numel()).view_as(tier)
        middle = count.cumsum(1).double() - (count + size).double() / 2
        ranks[part].scatter_(1, order, _taken(middle, tier))
    return ranks


def tau_b(first: Ranking, second: Ranking) -> Tensor:
    """Kendall's τ-b of two rankings of the same places, ``[B]``; NaN where one is all tied."""
    (order, tier), (other_order, other_tier) = first, second
    size = order.shape[1]
    other = torch.empty_like(other_tier).scatter_(1, other_order, other_tier)
    pairs = size * (size - 1) / 2
    free, other_free = pairs - tied_pairs(tier), pairs - tied_pairs(other_tier)
    # Along the first order and, among its ties, along the second: what then still goes down
    # is discordant, and what stands still in both is tied in both.
    both = _sorted_keys(tier, _taken(other, order))
    discordant = descents(both & _mask(size))
    comparable = free + other_free - pairs + tied_pairs(both)
    root = free.sqrt() * other_free.sqrt()  # rounded, and so not 1 for equal maps
    scale = torch.where(free == other_free, free, root)
    return ((comparable - 2 * discordant) / scale).clamp(-1.0, 1.0)


def tied_pairs(ordered: Tensor) -> Tensor:
    """How many pairs of each sorted row ``[B,n]`` are equal, float64 ``[B]``."""
    first, length = _runs(ordered)
    count = torch.zeros(len(ordered), dtype=torch.float64, device=ordered.device)
    row = first.div(max(1, ordered.shape[1]), rounding_mode="floor")
    return count.index_add_(0, row, (length * (length - 1)).double() / 2)


def descents(rows: Tensor) -> Tensor:
    """How many pairs i < j of each row have r_i > r_j: whole numbers in float64 ``[B]``.

    Rows ``[B,n]`` of whole numbers from 0 to n − 1. Exact; on a CPU in O(n √n).
    """
    if _on_cpu(rows):
        return torch.from_numpy(_descents_by_blocks(rows.numpy()))
    count = torch.zeros(len(rows), dtype=torch.float64, device=rows.device)
    rows = rows.int()  # half the memory to compare
    step = max(1, _AT_ONCE // max(1, rows.numel()))
    for start in range(0, rows.shape[1], step):
        some = rows[:, start : start + step, None]
        inside = (some > some.transpose(1, 2)).triu(1)
        after = some > rows[:, None, start + step :]
        count += inside.sum((1, 2)) + after.sum((1, 2))
    return count


def slices(flat: Tensor) -> list[slice]:
    """Parts of the batch that are worked on one after the other."""
    step = max(1, _CACHED // flat.shape[1])
    return [slice(i, i + step) for i in range(0, len(flat), step)]


def _descents_by_blocks(rows: Any) -> Any:
    """``descents``, with places and with values cut into blocks of ``_BLOCK``.

    Pairs in different blocks of both are counted from a table of how many numbers fall
    where; those of one block of places, or of values, are compared each with each.
    """
    batch, size = rows.shape
    padded = -(-size // _BLOCK) * _BLOCK
    narrow = np.uint16 if padded <= 1 << 16 else np.uint32
    place = np.arange(padded, dtype=np.int64)  # what is filled up goes neither up nor down
    by_value = np.broadcast_to(place, (batch, padded)).copy()
    by_value[:, :size] = _sorted_pairs(rows, place[:size]) & _mask(size)  # ties in their order
    by_place = np.empty((batch, padded), narrow)
    by_place.ravel()[_with_rows(by_value).ravel()] = np.tile(place.astype(narrow), batch)
    return (
        _between_blocks(by_place)
        + _within_blocks(by_place)
        + _within_blocks((by_value >> _SHIFT).astype(narrow))  # one block of places: counted
    )


def _between_blocks(by_place: Any) -> Any:
    """Descents between two blocks of places and two blocks of values."""
    batch, padded = by_place.shape
    blocks = padded >> _SHIFT
    corner = np.arange(batch * blocks).repeat(_BLOCK) * blocks
    corner += (by_place >> _SHIFT).ravel()
    counts = np.bincount(corner, minlength=batch * blocks * blocks).astype(np.int32)
    table = torch.from_numpy(counts.reshape(batch, blocks, blocks))
    earlier = table.cumsum(1, dtype=torch.int32).sub_(table)
    smaller = table.cumsum(2, dtype=torch.int32).sub_(table)
    return earlier.mul_(smaller).numpy().sum((1, 2), dtype=np.float64)


def _within_blocks(rows: Any) -> Any:
    """Descents between two places of one block, by comparing each with each."""
    columns = rows.reshape(len(rows), -1, _BLOCK).transpose(2, 0, 1).copy()
    tally = np.zeros(columns.shape, np.uint8)
    less = np.empty(columns.shape, np.bool_)
    for step in range(1, _BLOCK):
        np.less(columns[step:], columns[:-step], out=less[step:])
        np.add(tally[step:], less[step:].view(np.uint8), out=tally[step:])
    return tally.sum((0, 2), dtype=np.float64)


def _runs(ordered: Tensor) -> tuple[Tensor, Tensor]:
    """Start, counted through the batch, and length of each run of two or more equals."""
    again = torch.zeros_like(ordered, dtype=torch.bool)
    torch.eq(ordered[:, 1:], ordered[:, :-1], out=again[:, 1:])
    place = again.flatten().nonzero().squeeze(1)
    opens = torch.ones_like(place, dtype=torch.bool)
    opens[1:] = place[1:] != place[:-1] + 1
    first = opens.nonzero().squeeze(1)
    length = torch.diff(first, append=first.new_tensor([len(place)])) + 1
    return place[first] - 1, length


def _sorted(flat: Tensor) -> tuple[Tensor, Tensor]:
    """Places of each row in increasing order of value, and the values in that order."""
    if _on_cpu(flat):
        order, ordered = _sorted_by_numpy(flat.numpy())
        return torch.from_numpy(order), torch.from_numpy(ordered)
    ordered, order = flat.sort(dim=1)
    return order, ordered


def _sorted_by_numpy(flat: Any) -> Any:
    """Numpy sorts three times as fast as it finds an order: so sort value and place together.

    A double's bits, read as a whole number and its negatives turned round, sort like the
    double. Their lowest ones give way to the place. Where that confuses two values that are
    nearly equal, the row is ordered the slow way.
    """
    keys = (flat + 0.0).view(np.int64)  # −0 and 0 are a tie
    sign = keys >> 63
    sign &= np.int64((1 << 63) - 1)
    keys ^= sign
    mask = _mask(flat.shape[1])
    keys &= ~mask
    keys |= np.arange(flat.shape[1])
    keys.sort(axis=1)
    keys &= mask
    ordered = np.ascontiguousarray(flat).ravel()[_with_rows(keys)]
    wrong = (ordered[:, 1:] < ordered[:, :-1]).any(1)
    if wrong.any():
        keys[wrong] = np.argsort(flat[wrong], axis=1)
        ordered[wrong] = np.take_along_axis(flat[wrong], keys[wrong], 1)
    return keys, ordered


def _taken(rows: Tensor, order: Tensor) -> Tensor:
    """``rows.gather(1, order)``, for which a CPU takes three times longer."""
    if not _on_cpu(rows):
        return rows.gather(1, order)
    return torch.from_numpy(rows.numpy().ravel()[_with_rows(order.numpy())])


def _with_rows(places: Any) -> Any:
    """Places ``[B,n]`` within each row, as places within the flattened batch."""
    if len(places) == 1:
        return places
    return places + np.arange(len(places))[:, None] * places.shape[1]


def _sorted_keys(high: Tensor, low: Tensor) -> Tensor:
    """Each row's pairs of whole numbers from 0 to n − 1 in order, ``high · 2^bits + low``."""
    if _on_cpu(high):
        return torch.from_numpy(_sorted_pairs(high.numpy(), low.numpy()).astype(np.int64))
    return ((high << _bits(high.shape[1])) | low).sort(dim=1).values


def _sorted_pairs(high: Any, low: Any) -> Any:
    bits = _bits(high.shape[1])
    kind = np.uint32 if 2 * bits <= 32 else np.int64  # the shorter sorts twice as fast
    keys = high.astype(kind)
    keys <<= kind(bits)
    keys |= low.astype(kind)
    keys.sort(axis=1)
    return keys


def _bits(size: int) -> int:
    """How many bits a place needs."""
    return max(1, (size - 1).bit_length())


def _mask(size: int) -> int:
    return (1 << _bits(size)) - 1


def _on_cpu(rows: Tensor) -> bool:
    return rows.device.type == "cpu"
