"""How far an explanation has moved: one frozen dataclass per metric, by name.

A metric of drift takes two batches of maps ``[B,H,W]``, clean and perturbed, and returns one
float64 number per image, ``[B]``, on the maps' own device:

>>> import torch
>>> clean = torch.tensor([[[4.0, 3.0], [2.0, 1.0]]])
>>> build("spearman")(clean, -clean)
tensor([-1.], dtype=torch.float64)
>>> build("top_k_intersection", k=2)(clean, clean.flip(2))
tensor([1.], dtype=torch.float64)

``agreement`` compares values pixel by pixel, ``ranks`` only their order, ``overlap`` the most
important areas, ``features`` sign and place of the most important pixels, ``location``
where the mass lies, ``fooling`` whether it lies where a manipulation wants it;
``localisation`` holds one map against a known region, and ``faithfulness`` asks the model
whether it uses what one map points at, by removing pixels in its order; ``road`` does so
without leaving a trace, and ``infidelity`` asks for the values. ``concentration`` describes
one map alone. ``randomisation`` asks whether the map notices other weights or another class.
``sensitivity`` and ``relative_stability`` ask how far it moves among images nearby, by
sampling or by a search that they are handed. A number never
depends on the other images of the batch, and is finite for every pair of finite maps,
constant and all-zero ones included.
"""

from collections.abc import Mapping
from typing import Any, Final

from robustlab.core import tables
from robustlab.core.types import AnyMetric
from robustlab.metrics.agreement import SSIM, Cosine, MeanSquaredError, Pearson, RelativeL2
from robustlab.metrics.concentration import Complexity, Sparseness
from robustlab.metrics.faithfulness import Deletion, Insertion, PixelFlipping
from robustlab.metrics.features import RankAgreement, SignAgreement
from robustlab.metrics.fooling import FoolingSuccessRate
from robustlab.metrics.infidelity import Infidelity
from robustlab.metrics.localisation import (
    EnergyInRegion,
    PointingGame,
    RelevanceMassAccuracy,
    RelevanceRankAccuracy,
)
from robustlab.metrics.location import CenterShift, EarthMoversDistance
from robustlab.metrics.overlap import IoU, LensPrecision, LensRecall
from robustlab.metrics.randomisation import MPRT, RandomLogit
from robustlab.metrics.ranks import Kendall, Spearman, TopKIntersection
from robustlab.metrics.relative_stability import (
    RelativeInputStability,
    RelativeOutputStability,
    RelativeRepresentationStability,
)
from robustlab.metrics.road import Road
from robustlab.metrics.sensitivity import AvgSensitivity, LocalLipschitz, MaxSensitivity

METRICS: Final[Mapping[str, type[AnyMetric]]] = {
    "top_k_intersection": TopKIntersection,
    "spearman": Spearman,
    "kendall": Kendall,
    "pearson": Pearson,
    "cosine": Cosine,
    "ssim": SSIM,
    "mse": MeanSquaredError,
    "relative_l2": RelativeL2,
    "center_shift": CenterShift,
    "emd": EarthMoversDistance,
    "iou": IoU,
    "lens_recall": LensRecall,
    "lens_precision": LensPrecision,
    "sign_agreement": SignAgreement,
    "rank_agreement": RankAgreement,
    "energy_in_region": EnergyInRegion,
    "pointing_game": PointingGame,
    "relevance_mass_accuracy": RelevanceMassAccuracy,
    "relevance_rank_accuracy": RelevanceRankAccuracy,
    "fooling_success_rate": FoolingSuccessRate,
    "deletion": Deletion,
    "insertion": Insertion,
    "pixel_flipping": PixelFlipping,
    "road": Road,
    "infidelity": Infidelity,
    "sparseness": Sparseness,
    "complexity": Complexity,
    "max_sensitivity": MaxSensitivity,
    "avg_sensitivity": AvgSensitivity,
    "local_lipschitz": LocalLipschitz,
    "ris": RelativeInputStability,
    "ros": RelativeOutputStability,
    "rrs": RelativeRepresentationStability,
    "mprt": MPRT,
    "random_logit": RandomLogit,
}


def build(name: str, **options: Any) -> AnyMetric:
    """The metric called ``name``.

    Raises:
        InvalidInput: unknown name or option, or a value of the wrong type or range.
    """
    return tables.build(METRICS, "metric", name, options)
