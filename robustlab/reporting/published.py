"""What Chen et al. 2019 print for their own networks, to stand beside numbers from here.

Source: Chen, Wu, Rastogi, Liang & Jha 2019, Robust Attribution Regularization, NeurIPS, the
results on MNIST and Fashion-MNIST. Unverified: taken from notes on the paper, not from its PDF.
Other networks (two convolutions of 5×5 and 1024 units) and longer training (25,000 steps for
NATURAL, 100,000 for the others), so what can be compared is the order, not the values.
"""

from dataclasses import dataclass
from typing import Final

SOURCE: Final = "Chen et al. 2019, Robust Attribution Regularization (NeurIPS)"
STATUS: Final = "unverified"


@dataclass(frozen=True)
class PaperRow:
    """One line of the paper's table, as shares and not per cent.

    Attributes:
        name: as the paper calls it. objective: the lab's name of the same training.
        natural, adversarial: accuracies. intersection: IN. kendall: CO.
    """

    name: str
    objective: str
    natural: float
    adversarial: float
    intersection: float
    kendall: float


ORDER: Final = ("natural", "adversarial", "rar_norm", "rar_sum_norm")
"""Objectives in the order in which the paper finds maps to be ever more robust."""

MNIST: Final = (
    PaperRow("NATURAL", "natural", 0.9917, 0.0000, 0.4661, 0.1758),
    PaperRow("Madry", "adversarial", 0.9840, 0.9247, 0.6256, 0.2422),
    PaperRow("IG-NORM", "rar_norm", 0.9874, 0.8143, 0.7136, 0.2841),
    PaperRow("IG-SUM-NORM", "rar_sum_norm", 0.9834, 0.8817, 0.7245, 0.3111),
)
FASHION_MNIST: Final = (
    PaperRow("NATURAL", "natural", 0.9086, 0.0001, 0.3901, 0.4610),
    PaperRow("Madry", "adversarial", 0.8573, 0.7301, 0.4612, 0.6251),
    PaperRow("IG-NORM", "rar_norm", 0.8513, 0.6595, 0.5922, 0.6171),
    PaperRow("IG-SUM-NORM", "rar_sum_norm", 0.8544, 0.7026, 0.7208, 0.6747),
)


def paper_rows(dataset: str) -> tuple[PaperRow, ...]:
    """The paper's lines for a data set of the lab; empty where the paper has none."""
    if dataset.startswith("fashion"):
        return FASHION_MNIST
    return MNIST if dataset.startswith("mnist") else ()
