"""Several explanations as one: whoever attacks the aggregate has to move all of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Final, Literal, cast

import torch
from torch import Tensor, nn

from robustlab.core.errors import InvalidInput
from robustlab.core.maps import Post, shares, to_maps
from robustlab.core.types import About, Differentiable, Explainer, Passes, Resolvable
from robustlab.explainers.members import Given, Member, read_member, rebuilt, stored

FLAT: Final = 1e-24  # a variance below this is none; its root has no slope at 0


@dataclass(frozen=True, kw_only=True)
class Aggregate:
    """Aggregate of J explanations: a = mean_j m_j, or a = mean_j m_j / (std_j m_j + c).

    m_j is the map of member j after its own post-processing, as |m| with mean 1 over the
    image (a constant times the papers' |m| ÷ Σ|m|), so no member counts for more than
    another. *mean* is AGG-Mean; *variance* is AGG-Var, which trusts a pixel less the more
    the members disagree on it (std over the J members, divided by J). ``c`` keeps agreement
    on nothing from being divided by 0; in units of the mean attribution, and ours.

    ``of`` names the members: ``gradient``, or with options ``{name: smooth_grad, samples: 8}``.
    They are built at once, and stored with all their options. Members must explain images,
    give exact derivatives, and be no aggregates themselves. Which four make the default is
    our choice; the papers aggregate other sets.

    Raw shape ``[B,1,H,W]``, never negative; default map Σ_c a. Cost: that of the members.
    Sources: Rieger & Hansen 2019, Aggregating explanation methods; Rieger & Hansen 2020, A
    simple defense.

    Raises:
        InvalidInput: fewer than two members, or one that is unknown, has wrong options, makes
            images, cannot be differentiated exactly, or is an aggregate.
    """

    about: ClassVar[About] = About(
        family="defended",
        year=2019,
        source="Rieger & Hansen 2019, Aggregating explanation methods",
        needs="what its members need",
    )
    differentiable: ClassVar[Differentiable] = "exact"
    of: tuple[Given, ...] = (
        "gradient",
        "input_x_gradient",
        "integrated_gradients",
        "guided_backprop",
    )
    combine: Literal["mean", "variance"] = "mean"
    c: float = 10.0
    post: Post = "signed"

    def __post_init__(self) -> None:
        if len(self.of) < 2:
            raise InvalidInput("of", f"needs at least two explainers, got {len(self.of)}")
        if not self.c > 0:
            raise InvalidInput("c", f"must be above 0, got {self.c}")
        object.__setattr__(self, "of", tuple(_checked(member) for member in self.of))

    @property
    def members(self) -> tuple[Explainer, ...]:
        """The explainers themselves."""
        return tuple(rebuilt(member) for member in self._stored)

    @property
    def surrogate_helps(self) -> bool:
        """Whether a smooth surrogate is a good guide for an attack: if it is for every member."""
        return all(getattr(member, "surrogate_helps", True) for member in self.members)

    def explain(
        self,
        model: nn.Module,
        images: Tensor,
        targets: Tensor,
        *,
        ids: Sequence[str] | None = None,
        create_graph: bool = False,
    ) -> Tensor:
        size = (images.shape[-2], images.shape[-1])
        maps = []
        for member in self.members:
            raw = member.explain(model, images, targets, ids=ids, create_graph=create_graph)
            maps.append(shares(to_maps(raw, member.post, size)).abs())
        stack = torch.stack(maps, 1)
        mean = stack.mean(1, keepdim=True)
        if self.combine == "mean":
            return mean
        variance = (stack - mean).square().mean(1, keepdim=True)
        return mean / (variance.clamp(min=FLAT).sqrt() + self.c)

    def resolved(self, model: nn.Module, images: Tensor) -> "Aggregate":
        """The same aggregate with every member's automatic choice settled."""
        settled = []
        for (name, _), member in zip(self._stored, self.members, strict=True):
            chosen = member.resolved(model, images) if isinstance(member, Resolvable) else member
            settled.append(stored(name, chosen))
        return replace(self, of=tuple(settled))

    def cost(self) -> Passes:
        costs = [member.cost() for member in self.members]
        return Passes(sum(c.forward for c in costs), sum(c.backward for c in costs))

    @property
    def _stored(self) -> tuple[Member, ...]:
        return cast(tuple[Member, ...], self.of)  # since __post_init__


def _checked(given: Given) -> Member:
    """A member as it is stored, or why it cannot be one."""
    name, explainer = read_member(given)
    if isinstance(explainer, Aggregate):
        raise InvalidInput("of", "an aggregate cannot be a member", "name its members instead")
    if explainer.about.scope == "global":
        raise InvalidInput("of", f"{name} makes images, and an aggregate needs maps")
    if explainer.differentiable != "exact":
        raise InvalidInput(
            "of",
            f"{name} has no exact derivative, so no gradient attack could test the aggregate",
            "most explainers have one: robustlab list explainers",
        )
    return stored(name, explainer)
