"""The order of many numbers, fast: ranks, tied pairs and discordant pairs of whole batches.

A clean map often meets several disturbed ones. So it is ranked alone (`ranking`), and each
disturbed map is ranked along it (`along`); what the two have in common is read from both.

Everything runs on the maps' own device. On a CPU numpy sorts and compares with vector
instructions and torch does not, so numpy does that part there.

What was tried for the count of discordant pairs: merging in numba, which is no faster than this
and a dependency of 200 MB, and a table of blocks of places and of values, which is slower.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

_BLOCK: Final = 32  # neighbours that are compared each with each
_PER_NUMBER: Final = 4  # cells of a table of values that meet
_LAST: Final = (1 << 31) - 1


@dataclass(frozen=True)
class Ranking:
    """The order of each row of ``[B,n]``.

    Attributes:
        order: the places in increasing order of value, the first of equals first; ``[B,n]``.
        level: in that order, first plus last position of those equal to it, which is twice the
            average of their ranks from 0; int32 ``[B,n]``.
        tied: how many pairs are equal, float64 ``[B]``.
    """

    order: Tensor
    level: Tensor
    tied: Tensor

    def kept(self) -> "Ranking":
        """The same in 8 bytes a number."""
        return replace(self, order=self.order.int())

    @property
    def pairs(self) -> float:
        """All pairs of a row."""
        size = self.order.shape[1]
        return size * (size - 1) / 2

    @property
    def constant(self) -> Tensor:
        """Whether all numbers of a row are equal, ``[B]``."""
        return self.tied == self.pairs


def ranking(flat: Tensor) -> Ranking:
    """The order of each row of ``[B,n]`` float32 or float64; −0 equals 0."""
    order, ordered = _sorted(flat)
    return Ranking(order, *_levels(_again(ordered)))


def along(known: Ranking, flat: Tensor) -> Ranking:
    """The ranking of other rows, whose places are counted along the order of the known ones."""
    return ranking(_taken(flat, known.order))


def rho(known: Ranking, other: Ranking) -> Tensor:
    """Spearman's ρ of rows and others ranked along them, ``[B]``; NaN where one is constant."""
    a, b = _centred(_taken(known.level, other.order)), _centred(other.level)
    product, a2, b2 = (a * b).sum(1), a.square_().sum(1), b.square_().sum(1)
    return (product / (a2 * b2).sqrt()).clamp(-1.0, 1.0)


def tau_b(known: Ranking, other: Ranking) -> Tensor:
    """Kendall's τ-b of rows and others ranked along them, ``[B]``; NaN where one is constant."""
    found = _in_a_table(known, other) if _on_cpu(known.level) else None
    discordant, both = _one_by_one(known, other) if found is None else found
    free, other_free = known.pairs - known.tied, known.pairs - other.tied
    comparable = free + other_free - known.pairs + both
    root = free.sqrt() * other_free.sqrt()  # rounded, and so not 1 for equal maps
    scale = torch.where(free == other_free, free, root)
    return ((comparable - 2 * discordant) / scale).clamp(-1.0, 1.0)


def _one_by_one(known: Ranking, other: Ranking) -> tuple[Tensor, Tensor]:
    """Discordant pairs, and pairs that are tied in both.

    In the other's order and, among its ties, in the known one: what then still goes down is
    discordant, and neighbours that stand still in both are tied in both.
    """
    rows = _taken(known.level, other.order) >> 1  # still tells apart what is not equal
    both = torch.zeros_like(known.tied)
    if bool((known.tied * other.tied).any()):
        _, both = _levels(_again(rows) & _again(other.level))
    return descents(rows), both


def _in_a_table(known: Ranking, other: Ranking) -> tuple[Tensor, Tensor] | None:
    """The same from a table of how often each two values meet, where rows have few values.

    A map of 8 bits has at most 256; None where a table would be larger than the rows.
    """
    batch, size = known.order.shape
    # few values mean many ties: most maps need no second look
    if bool((torch.minimum(known.tied, other.tied) < size).any()):
        return None
    rises, other_rises = (~_again(r.level).numpy() for r in (known, other))
    rises[:, 0] = other_rises[:, 0] = False
    kinds, other_kinds = (int(r.sum(1).max()) + 1 for r in (rises, other_rises))
    if kinds * other_kinds > _PER_NUMBER * size:
        return None
    tier = _taken_by_numpy(rises.cumsum(1, dtype=np.int32), other.order.numpy())
    meeting = tier.astype(np.int64)
    meeting += np.arange(batch)[:, None] * kinds
    meeting *= other_kinds
    meeting += other_rises.cumsum(1, dtype=np.int32)
    counts = np.bincount(meeting.ravel(), minlength=batch * kinds * other_kinds)
    counts = counts.reshape(batch, kinds, other_kinds)
    above = counts.sum(1, keepdims=True) - counts.cumsum(1)
    above[:, :, 1:] = above[:, :, :-1].cumsum(2)  # larger here, smaller there
    above[:, :, 0] = 0
    discordant = np.einsum("bij,bij->b", counts, above)
    both = np.einsum("bij,bij->b", counts, counts - 1) / 2
    return torch.from_numpy(discordant).double(), torch.from_numpy(both)


def descents(rows: Tensor) -> Tensor:
    """How many pairs i < j of each row have r_i > r_j: whole numbers in float64 ``[B]``.

    Rows ``[B,n]`` int32 of whole numbers from 0 to n − 1. Exact, O(n log² n): blocks of numbers
    are compared each with each, then neighbouring blocks with each other, twice as long at
    every turn.
    """
    if _on_cpu(rows):
        return torch.from_numpy(_descents_by_numpy(rows.numpy()))
    size = rows.shape[1]
    bits, _ = _place_bits(size)
    blocks = F.pad(rows, (0, -size % _BLOCK), value=_LAST).unflatten(1, (-1, _BLOCK))
    count = torch.zeros(len(rows), dtype=torch.float64, device=rows.device)
    for step in range(1, _BLOCK):
        count += (blocks[..., step:] < blocks[..., :-step]).sum((1, 2))
    place = torch.arange(size, device=rows.device)
    keys = rows.long() << bits | place
    for where, half in _turns(size):
        count += _across(keys[:, where], half, place.double())
    return count


def _turns(size: int) -> Iterator[tuple[slice, int]]:
    """Which places are compared across the halves of their groups, and what a half is."""
    half = _BLOCK
    while half < size:
        whole = size - size % (2 * half)
        if whole:
            yield slice(0, whole), half
        if size - whole > half:  # the last two halves, of which the right one is cut off
            yield slice(whole, size), half
        half *= 2


def _across(keys: Any, half: int, place: Any) -> Any:
    """Descents from the first ``half`` of each group in ``[B,m]`` to the rest of it.

    Merged by value, left before right among equals, a number from the right at position p has
    p − (right ones before it) left ones before it: Mann and Whitney's U is a sum of positions.
    """
    length = min(2 * half, keys.shape[1])
    keys = keys.reshape(len(keys), -1, length)
    groups, rest = keys.shape[1], length - half
    right = _merged(keys) & half  # a bit of the place from which it comes
    right = right.sum(1, dtype=right.dtype) if groups > 1 else right[:, 0]
    positions = _times(right, place[:length]) / half
    return groups * (half * rest + rest * (rest - 1) / 2) - positions


def _merged(keys: Any) -> Any:
    """Sorted along the last axis. Numpy's stay so for the next turn, which is then faster."""
    if isinstance(keys, Tensor):
        return keys.sort(dim=-1).values
    keys.sort(axis=-1)
    return keys


def _times(counts: Any, place: Any) -> Any:
    """Not by numpy's ``@``, whose threads wait for each other far longer than this takes."""
    if isinstance(counts, Tensor):
        return counts.double() @ place
    return np.einsum("bi,i->b", counts, place)


def _descents_by_numpy(rows: Any) -> Any:
    size = rows.shape[1]
    bits, mask = _place_bits(size)
    narrow = bits <= 16  # 16 bits for a number, 32 for number and place together
    numbers = rows - np.int32((mask + 1) >> 1)
    keys = numbers.astype(np.int32 if narrow else np.int64)
    keys <<= bits
    keys |= _counted(size, keys.dtype.type)
    count = _inside_blocks(numbers.astype(np.int16 if narrow else np.int32))
    place = _counted(size, np.int64)
    for where, half in _turns(size):
        count += _across(keys[:, where], half, place)
    return count


def _inside_blocks(rows: Any) -> Any:
    """Descents within each block of places, by comparing each with each."""
    room = -rows.shape[1] % _BLOCK
    if room:  # filled up with what makes no descent
        rows = np.pad(rows, ((0, 0), (0, room)), constant_values=np.iinfo(rows.dtype).max)
    columns = rows.reshape(len(rows), -1, _BLOCK).transpose(2, 0, 1).copy()
    tally = np.zeros(columns.shape, np.uint8)
    for step in range(1, _BLOCK):
        tally[step:] += (columns[step:] < columns[:-step]).view(np.uint8)
    return tally.sum((0, 2), dtype=np.uint32).astype(np.float64)


def _centred(level: Tensor) -> Tensor:
    """Ranks about their mean, in halves: whole numbers, so that sums of products are exact."""
    return level.double().sub_(level.shape[1] - 1)


def _again(ordered: Tensor) -> Tensor:
    """Which numbers of sorted rows ``[B,n]`` are equal to the one before them."""
    again = torch.zeros_like(ordered, dtype=torch.bool)
    if _on_cpu(ordered):
        values = ordered.numpy()
        np.equal(values[:, 1:], values[:, :-1], out=again.numpy()[:, 1:])
    else:
        torch.eq(ordered[:, 1:], ordered[:, :-1], out=again[:, 1:])
    return again


def _levels(again: Tensor) -> tuple[Tensor, Tensor]:
    """``level`` and ``tied`` of a `Ranking`, from which numbers are equal to the one before."""
    if _on_cpu(again):
        level, tied = _levels_by_numpy(again.numpy())
        return torch.from_numpy(level), torch.from_numpy(tied)
    size = again.shape[1]
    place = torch.arange(size, dtype=torch.int32, device=again.device)
    goes_on = F.pad(again[:, 1:], (0, 1), value=False)
    first = torch.where(again, 0, place).cummax(1).values
    last = torch.where(goes_on, size, place).flip(1).cummin(1).values.flip(1)
    return first + last, (last - first).sum(1).double() / 2


def _levels_by_numpy(again: Any) -> Any:
    batch, size = again.shape
    level = np.tile(np.arange(0, 2 * size, 2, dtype=np.int32), batch)
    later = np.flatnonzero(again)  # all but the first of each run of equals
    alone = np.ones(len(later), np.bool_)
    np.not_equal(later[1:], later[:-1] + 1, out=alone[1:])
    opens = np.flatnonzero(alone)
    more = np.diff(opens, append=len(later))
    first = later[opens] - 1
    value = level[first] + more.astype(np.int32)
    level[later] = np.repeat(value, more)
    level[first] = value
    tied = np.bincount(first // size, more * (more + 1) / 2, minlength=batch)
    return level.reshape(batch, size), tied.astype(np.float64)  # of nothing, numpy counts in int


def _sorted(flat: Tensor) -> tuple[Tensor, Tensor]:
    """Places of each row in increasing order of value, and something equal where values are."""
    if _on_cpu(flat):
        by_numpy = _sorted_singles if flat.dtype == torch.float32 else _sorted_doubles
        order, ordered = by_numpy(flat.numpy())
        return torch.from_numpy(order), torch.from_numpy(ordered)
    ordered, order = (flat + 0.0).sort(dim=1, stable=True)  # −0 and 0 are a tie
    return order, ordered


# Numpy sorts three times as fast as it finds an order: so value and place are sorted together,
# as one whole number.


def _sorted_singles(flat: Any) -> Any:
    bits, mask = _place_bits(flat.shape[1])
    keys = _like_whole_numbers(flat, np.int32).astype(np.int64)
    keys <<= bits
    keys |= _counted(flat.shape[1], np.int64)
    keys.sort(axis=1)
    order = keys & mask
    keys >>= bits
    return order, keys


def _sorted_doubles(flat: Any) -> Any:
    """The lowest bits of a value give way to its place. Where that confuses two values that are
    nearly equal, the row is ordered the slow way.
    """
    _, mask = _place_bits(flat.shape[1])
    keys = _like_whole_numbers(flat, np.int64)
    keys &= ~mask
    keys |= _counted(flat.shape[1], np.int64)
    keys.sort(axis=1)
    keys &= mask
    ordered = _taken_by_numpy(flat, keys)
    wrong = (ordered[:, 1:] < ordered[:, :-1]).any(1)
    if wrong.any():
        keys[wrong] = np.argsort(flat[wrong], axis=1, kind="stable")
        ordered[wrong] = np.take_along_axis(flat[wrong], keys[wrong], 1)
    return keys, ordered


def _like_whole_numbers(flat: Any, kind: Any) -> Any:
    """Whole numbers of the same order: a float's bits, those of a negative one turned round."""
    keys = (flat + flat.dtype.type(0)).view(kind)  # −0 and 0 are a tie
    turn = keys >> (8 * flat.itemsize - 1)
    turn &= np.iinfo(kind).max
    keys ^= turn
    return keys


@lru_cache(maxsize=16)
def _counted(size: int, kind: Any) -> Any:
    """0, 1, 2, ...: read again and again."""
    counted = np.arange(size, dtype=kind)
    counted.setflags(write=False)
    return counted


def _place_bits(size: int) -> tuple[int, int]:
    bits = (size - 1).bit_length()
    return bits, (1 << bits) - 1


def _taken(rows: Tensor, order: Tensor) -> Tensor:
    """``rows.gather(1, order)``, for which a CPU takes three times longer."""
    if not _on_cpu(rows):
        return rows.gather(1, order.long())
    return torch.from_numpy(_taken_by_numpy(rows.numpy(), order.numpy()))


def _taken_by_numpy(rows: Any, order: Any) -> Any:
    if len(rows) > 1:  # places within each row, as places within the flattened batch
        order = order + np.arange(len(order))[:, None] * order.shape[1]
    return rows.ravel().take(order, mode="clip")  # which checks no place, and needs not


def _on_cpu(rows: Tensor) -> bool:
    return rows.device.type == "cpu"
