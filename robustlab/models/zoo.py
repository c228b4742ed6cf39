"""Networks that were trained for this project: by name, with a card that says how."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from robustlab.core.errors import InvalidInput, nearest
from robustlab.core.tables import build
from robustlab.models.classifier import Classifier, Recipe
from robustlab.models.shipped import load_shipped, read_card
from robustlab.models.small_cnn import SmallCnn
from robustlab.models.small_resnet import SmallResnet

FOLDER: Final = Path(__file__).parent / "weights" / "zoo"
ARCHITECTURES: Final[Mapping[str, type[Recipe]]] = {
    "small_cnn": SmallCnn,
    "small_resnet": SmallResnet,
}


def zoo() -> list[str]:
    """Names of all networks of the zoo."""
    return sorted(card.stem for card in FOLDER.glob("*.json"))


def card(name: str) -> dict[str, Any]:
    """Objective, data, settings, accuracy, hash and command of one of them.

    Raises:
        InvalidInput: no network of the zoo has that name.
    """
    if name not in zoo():
        raise InvalidInput("arch", f"the zoo has no {name!r}", nearest(name, zoo()))
    return read_card(name, FOLDER)


@dataclass(frozen=True)
class ZooModel:
    """One network of the zoo, ``zoo:fashion_mnist_adversarial``; `robustlab list models` has all.

    Attributes:
        arch: its name, the part after the colon.
    """

    arch: str

    def load(self, name: str) -> Classifier:
        """Build it with its weights.

        Raises:
            InvalidInput: no such network, or a file that is not the card's.
        """
        made = card(self.arch)
        recipe = build(ARCHITECTURES, "model", made["model"], made["model_options"])
        model = recipe.load(name)
        load_shipped(model.net, self.arch, FOLDER)
        return model
