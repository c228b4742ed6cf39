"""The numbers of a scorecard: accuracies, how far maps moved, how faithful they are."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from robustlab.records.card_fields import count, names, optional
from robustlab.records.checking import Fields


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over ``n`` images with its 95 % interval; None where there is nothing to say."""

    n: int = 0
    mean: float | None = None
    low: float | None = None
    high: float | None = None

    @classmethod
    def read(cls, read: Fields) -> "Estimate":
        read.refuse_others(names(cls))
        made = cls(
            n=read.whole("n"),
            mean=read.optional_number("mean"),
            low=read.optional_number("low"),
            high=read.optional_number("high"),
        )
        if made.n < 0 or (made.n == 0) != (made.mean is None):
            raise ValueError(f"{read.path('n')}: {made.n} images do not go with this mean")
        if (made.low is None) != (made.high is None) or not made._ordered:
            raise ValueError(f"{read.path('mean')}: not within its own interval")
        return made

    @property
    def _ordered(self) -> bool:
        if self.low is None or self.high is None:
            return True
        slack = 1e-9  # rounding of a mean of equal numbers
        return self.mean is not None and self.low - slack <= self.mean <= self.high + slack


@dataclass(frozen=True, kw_only=True)
class Threat:
    """An attack and the ball that it had to stay in.

    Attributes:
        against: label of the explainer that it was made against; "" where it needs none.
        norm: with the grid where there was one: ``linf``, ``linf/8bit``.
    """

    label: str
    name: str
    options: Mapping[str, Any]
    norm: str
    epsilon: float
    against: str = ""

    @classmethod
    def read(cls, read: Fields) -> "Threat":
        read.refuse_others(names(cls))
        return cls(
            label=read.text("label"),
            name=read.text("name"),
            options=read.object("options").data,
            norm=read.text("norm"),
            epsilon=read.number("epsilon"),
            against=read.text("against"),
        )


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Share of labelled images predicted right; after an attack, right before and after it.

    Attributes:
        attack: None for the untouched images.
    """

    share: Estimate
    attack: Threat | None = None

    @classmethod
    def read(cls, read: Fields) -> "Accuracy":
        read.refuse_others(names(cls))
        return cls(share=_share(read, "share"), attack=optional(read, "attack", Threat.read))


@dataclass(frozen=True, kw_only=True)
class Stability:
    """What one metric says of how far maps moved.

    Attributes:
        label: of the metric. options: its settings.
        ones: an image where no iterate kept the prediction has the value of an unmoved map.
        dropped: such images are left out.
        seed_range: highest minus lowest mean of a seed, unmoved maps counted; None for one seed.
        random_sign: the control of equal budget, tries and selection.
        difference: attack minus random sign, paired over images.
        chance: for two unrelated maps.
    """

    label: str
    options: Mapping[str, Any]
    ones: Estimate
    dropped: Estimate
    seed_range: float | None
    random_sign: Estimate
    difference: Estimate
    chance: float | None

    @classmethod
    def read(cls, read: Fields) -> "Stability":
        read.refuse_others(names(cls))
        return cls(
            label=read.text("label"),
            options=read.object("options").data,
            ones=Estimate.read(read.object("ones")),
            dropped=Estimate.read(read.object("dropped")),
            seed_range=read.optional_number("seed_range"),
            random_sign=Estimate.read(read.object("random_sign")),
            difference=Estimate.read(read.object("difference")),
            chance=read.optional_number("chance"),
        )


@dataclass(frozen=True, kw_only=True)
class Faithfulness:
    """Deletion, lower is more faithful: of the maps, and of pixels in random order beside them.

    Attributes:
        clean, attacked: of the map of the untouched and of the attacked image, on that image.
        clean_random, attacked_random: what random orders score on the same image.
    """

    label: str
    options: Mapping[str, Any]
    clean: Estimate
    clean_random: Estimate
    attacked: Estimate
    attacked_random: Estimate

    @classmethod
    def read(cls, read: Fields) -> "Faithfulness":
        read.refuse_others(names(cls))
        return cls(
            label=read.text("label"),
            options=read.object("options").data,
            clean=_share(read, "clean"),
            clean_random=_share(read, "clean_random"),
            attacked=_share(read, "attacked"),
            attacked_random=_share(read, "attacked_random"),
        )


@dataclass(frozen=True, kw_only=True)
class Robustness:
    """One explainer under one attack, over the images that were predicted right at first.

    Attributes:
        explainer: its label. name, options: what it is.
        images: predicted right at first, with a value. seeds: that the attack was run with.
        infeasible, kept, changed: images × seeds. "infeasible": no iterate kept the prediction,
            and the image was left as it was.
        left_out: images × seeds that count nowhere: diverged or over budget.
    """

    explainer: str
    name: str
    options: Mapping[str, Any]
    attack: Threat
    images: int
    seeds: int
    infeasible: int
    kept: int
    changed: int
    left_out: int
    intersection: Stability | None = None
    kendall: Stability | None = None
    deletion: Faithfulness | None = None

    @classmethod
    def read(cls, read: Fields) -> "Robustness":
        read.refuse_others(names(cls))
        return cls(
            explainer=read.text("explainer"),
            name=read.text("name"),
            options=read.object("options").data,
            attack=Threat.read(read.object("attack")),
            images=count(read, "images"),
            seeds=count(read, "seeds"),
            infeasible=count(read, "infeasible"),
            kept=count(read, "kept"),
            changed=count(read, "changed"),
            left_out=count(read, "left_out"),
            intersection=optional(read, "intersection", Stability.read),
            kendall=optional(read, "kendall", Stability.read),
            deletion=optional(read, "deletion", Faithfulness.read),
        )


def _share(read: Fields, key: str) -> Estimate:
    made = Estimate.read(read.object(key))
    if any(v is not None and not 0 <= v <= 1 for v in (made.mean, made.low, made.high)):
        raise ValueError(f"{read.path(key)}: a share lies between 0 and 1")
    return made
