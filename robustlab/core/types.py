"""The nouns of the lab as protocols: what an explainer, an attack and a metric must be.

Shapes: images ``[B,C,H,W]`` in [0,1]; targets and labels ``[B]`` int64; raw attribution
``[B,C,H,W]`` or ``[B,1,h,w]``; map ``[B,H,W]``; anything per image ``[B]``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, Protocol, runtime_checkable

from torch import Tensor, nn

from robustlab.core.batch import Batch
from robustlab.core.budget import Budget
from robustlab.core.maps import Post
from robustlab.core.progress import Watch

Differentiable = Literal["exact", "surrogate", "none"]
Family = Literal[
    "gradient", "relevance", "cam", "perturbation", "surrogate", "attention", "activation",
    "defended", "control",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class About:
    """A method's row in the survey's comparison table: facts that no option changes.

    Attributes:
        year, source: when and where it was published, "Selvaraju et al. 2017, Grad-CAM".
        class_specific: does it explain a chosen class (and not merely the features)?
        layer_specific: does it look at one chosen layer?
        scope: *local* explains an image by a map, *global* explains the model by an image.
        detail: *fine* attributes to single pixels, *region* to patches of them.
        needs: what a model must have, "" where any differentiable classifier will do.
    """

    family: Family
    year: int
    source: str
    class_specific: bool = True
    layer_specific: bool = False
    scope: Literal["local", "global"] = "local"
    detail: Literal["fine", "region"] = "fine"
    needs: str = ""


@dataclass(frozen=True)
class Passes:
    """Cost per explained image, in whole-model passes of one image."""

    forward: float
    backward: float

    @property
    def gradient(self) -> float:
        """In units of one gradient pass (a forward and a backward, taken as equal)."""
        return (self.forward + self.backward) / 2


class Explainer(Protocol):
    """A frozen dataclass of hyper-parameters; holds no model.

    ``differentiable`` is a promise about ``create_graph=True`` that the contract tests
    check by double backward: *exact*, through a *surrogate*, or *none*. Of a global method
    ``explain`` returns the image that it has made, in the shape of ``images``.
    """

    about: ClassVar[About]
    differentiable: ClassVar[Differentiable]

    @property
    def post(self) -> Post:
        """How the raw attribution becomes a map; recorded with every number."""
        ...

    def explain(
        self,
        model: nn.Module,
        images: Tensor,
        targets: Tensor,
        *,
        ids: Sequence[str] | None = None,
        create_graph: bool = False,
    ) -> Tensor:
        """Raw attribution of ``score(model(images), targets)``.

        ``ids`` name the images for per-image randomness; without them every image draws
        the same stream, so that a result never depends on the batch it was computed in.
        """
        ...

    def cost(self) -> Passes:
        """Passes per image for one call without ``create_graph``."""
        ...


@runtime_checkable
class HessianVector(Protocol):
    """Explainers whose Jacobian is made of input Hessians, hence known through products.

    ``transpose_product`` returns ``J(x)ᵀ v`` for ``J = ∂raw/∂images`` by central
    differences of plain gradients with probes of length ``step`` (largest pixel change).
    """

    def transpose_product(
        self,
        model: nn.Module,
        images: Tensor,
        targets: Tensor,
        cotangent: Tensor,
        *,
        step: float,
        ids: Sequence[str] | None = None,
    ) -> Tensor: ...


@runtime_checkable
class Resolvable(Protocol):
    """Explainers with an automatic choice (Grad-CAM's layer) that is settled once per model."""

    def resolved(self, model: nn.Module, images: Tensor) -> "Explainer": ...


@dataclass(frozen=True, eq=False)
class Problem:
    """What an attack is given: a model, an explainer and clean facts about a few images.

    Attributes:
        targets: the explained class of each image.
        labels: true class, -1 where unknown. predictions: the model's clean prediction.
        maps: clean maps on the true model. raw: the attribution they were made from.
        target_maps: maps to imitate, for targeted attacks; None unless given.
        seed: with the image's id and a purpose, the only source of randomness.
    """

    model: nn.Module
    explainer: Explainer
    images: Tensor
    targets: Tensor
    labels: Tensor
    predictions: Tensor
    maps: Tensor
    ids: tuple[str, ...]
    seed: int = 0
    target_maps: Tensor | None = None
    raw: Tensor | None = None


class Attack(Protocol):
    """A frozen dataclass; proposes images and never grades itself."""

    @property
    def needs_explainer(self) -> bool:
        """Does the proposal depend on the explainer? If not, one serves all that are measured."""
        ...

    def propose(self, problem: Problem, budget: Budget) -> Tensor: ...

    def gradient_path(self, explainer: Explainer) -> str:
        """Where its gradients come from: recorded with the result ("" if it has none)."""
        ...

    def control(self) -> "Attack | None":
        """The random-sign attack of equal tries and selection, or None for a control."""
        ...


@runtime_checkable
class Cautious(Protocol):
    """An attack that can say, image by image, why its result must not be trusted blindly."""

    def propose_with_cautions(
        self, problem: Problem, budget: Budget
    ) -> tuple[Tensor, tuple[tuple[str, ...], ...]]:
        """What ``propose`` returns, and short cautions for each image."""
        ...


@runtime_checkable
class Imitating(Protocol):
    """An attack that wants a map to look like another one."""

    def target(self, problem: Problem) -> Tensor:
        """The map ``[B,H,W]`` that each image's map is to look like."""
        ...


@runtime_checkable
class ModelAttack(Protocol):
    """Disturbs the model instead of its images; a frozen dataclass that never grades itself.

    The judge explains the same images and classes on both models.
    """

    @property
    def needs_explainer(self) -> bool:
        """Does the manipulation depend on the explainer?"""
        ...

    def manipulate(self, problem: Problem) -> nn.Module:
        """Another model. ``problem.model`` stays as it was, and shares nothing with it."""
        ...

    def gradient_path(self, explainer: Explainer) -> str: ...

    def control(self) -> "Attack | None": ...


@runtime_checkable
class Moving(ModelAttack, Protocol):
    """A model attack whose model wants other images: what was shown to the clean one, moved."""

    def moved(self, problem: Problem) -> Tensor:
        """The images that the new model is shown; they may leave the pixel box."""
        ...


@runtime_checkable
class Concealing(Protocol):
    """A manipulation that takes the map off a region that the model goes on using."""

    def inside(self, images: Tensor) -> Tensor:
        """The region, true in ``[H,W]``."""
        ...

    def hidden(self, problem: Problem) -> Tensor:
        """The images without what is in the region: whoever uses it has to notice."""
        ...


@runtime_checkable
class Training(ModelAttack, Protocol):
    """A model attack that trains for minutes: a run does it once and keeps the weights."""

    @property
    def data(self) -> str:
        """Name of the data set that it trains on."""
        ...

    apart: ClassVar[tuple[str, ...]]
    """Options that change what is shown, not what is trained."""

    @property
    def most_lost(self) -> float:
        """A model that loses more of its held-out accuracy than this has collapsed."""
        ...

    def material(self) -> tuple[Batch, Batch]:
        """The images to train on, and others that training never sees."""
        ...

    def sample(self) -> Batch:
        """One image to train on, to see whether it fits a model."""
        ...

    def revision(self) -> str:
        """Changes when the user's own training images do; empty for data of a package."""
        ...

    def tune(
        self,
        model: nn.Module,
        explainer: Explainer,
        *,
        seed: int = 0,
        state: Path | None = None,
        watch: Watch | None = None,
    ) -> tuple[nn.Module, list[Mapping[str, float]]]:
        """A copy of ``model``, trained, and the mean terms of every epoch's loss.

        ``state`` is a file that a killed training goes on from.
        """
        ...


class Metric(Protocol):
    """Pure, per image. Averages and intervals belong to reporting."""

    name: ClassVar[str]
    higher_is_more_stable: ClassVar[bool]
    bounds: ClassVar[tuple[float, float]]

    def __call__(self, clean: Tensor, perturbed: Tensor) -> Tensor:
        """``[B,H,W]`` twice in, ``[B]`` out."""
        ...

    def chance(self, pixels: int) -> float | None:
        """Expected value for two independent random maps; None where no closed form exists."""
        ...


@runtime_checkable
class RegionMetric(Protocol):
    """A metric of one map and a region (where the object is), instead of two maps."""

    name: ClassVar[str]
    higher_is_more_stable: ClassVar[bool]
    bounds: ClassVar[tuple[float, float]]

    def measure(self, maps: Tensor, regions: Tensor) -> Tensor:
        """``[B,H,W]`` maps and boolean regions in, ``[B]`` out."""
        ...

    def chance_in(self, regions: Tensor) -> Tensor:
        """Expected value ``[B]`` for a map that knows nothing of the region."""
        ...


@runtime_checkable
class ModelMetric(Protocol):
    """A metric of one map that asks the model whether it uses what the map points at.

    ``only_order``: the map's values matter by their order alone, so that chance is any
    random order; else it is the map's own values in random places.
    """

    name: ClassVar[str]
    higher_is_more_stable: ClassVar[bool]
    bounds: ClassVar[tuple[float, float]]
    only_order: ClassVar[bool]

    def assess(
        self, model: nn.Module, images: Tensor, targets: Tensor, maps: Tensor, ids: Sequence[str]
    ) -> Tensor:
        """Images ``[B,C,H,W]``, the explained classes ``[B]`` and their maps ``[B,H,W]`` in,
        ``[B]`` float64 out.

        ``ids`` name the images for per-image randomness.
        """
        ...

    def cost(self) -> Passes:
        """Passes per image."""
        ...


@runtime_checkable
class MapMetric(Protocol):
    """A metric of one map alone: what it is like, not whether it is right or has moved.

    Neither end is the better one, and chance is no question: a map whose values are shuffled
    has the same value. ``higher_is_more_stable`` says which end its source calls easier to
    read; nothing is judged by it.
    """

    name: ClassVar[str]
    higher_is_more_stable: ClassVar[bool]
    bounds: ClassVar[tuple[float, float]]

    def describe(self, maps: Tensor) -> Tensor:
        """``[B,H,W]`` in, ``[B]`` float64 out."""
        ...


Rows = slice | Tensor
"""Which images of a problem a batch belongs to: some in a row, or their numbers ``[n]``."""

Search = Literal["gradient", "evolution"]


class Change(Protocol):
    """How much is different at images near those of a problem, one number for each.

    Of images ``[n,C,H,W]``, their raw attribution ``[n,C,H,W]`` or ``[n,1,h,w]``, and the
    ``rows`` of the problem that they belong to.
    """

    def loss(self, images: Tensor, raw: Tensor, rows: Rows) -> Tensor:
        """``[n]``, differentiable in images and attribution: what a search climbs."""
        ...

    def value(self, images: Tensor, raw: Tensor, rows: Rows) -> Tensor:
        """``[n]`` float64, what counts; −∞ where an image may not be chosen."""
        ...


class Climb(Protocol):
    """The searches around images, which a metric is handed: it is below them in the house."""

    def __call__(
        self,
        search: Search,
        problem: Problem,
        change: Change,
        start: Tensor,
        budget: Budget,
        steps: int,
    ) -> Tensor:
        """Images within the budget of ``problem.images`` that start at ``start``: the ones with
        the largest value of ``change`` that the search has seen, those at the start included.

        Raises:
            InvalidInput: the explainer has no gradient, and the search needs one.
        """
        ...


@runtime_checkable
class ExplainerMetric(Protocol):
    """A metric that asks an explainer for further maps: of images nearby, of other classes, of
    the same network with other weights.
    """

    name: ClassVar[str]
    higher_is_more_stable: ClassVar[bool]
    bounds: ClassVar[tuple[float, float]]

    def examine(self, problem: Problem, climb: Climb) -> Tensor:
        """One float64 number per image of the problem, ``[B]``; nothing is left changed."""
        ...

    def cost(self, explainer: Explainer) -> Passes:
        """Passes per image."""
        ...


OneMapMetric = RegionMetric | ModelMetric | MapMetric | ExplainerMetric
AnyMetric = Metric | OneMapMetric
