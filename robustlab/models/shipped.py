"""Weights that ship with the project, each with a card that says how it was made."""

import json
from pathlib import Path
from typing import Any

from torch import nn

from robustlab.core.errors import InvalidInput
from robustlab.core.files import sha256
from robustlab.models.weight_files import load_weights, own_file

FOLDER = Path(__file__).parent / "weights"


def give_weights(net: nn.Module, arch: str, weights: str | Path) -> None:
    """Fill ``net`` with what the option ``weights`` of a shipped architecture names.

    Args:
        net: built with random weights; "none" keeps them.
        arch: with ``weights``, the name of a shipped file: small_cnn + mnist_5k.
        weights: "none", the name of shipped weights, or a file of the user's.

    Raises:
        InvalidInput: no such weights, or they do not fit.
    """
    if weights == "none":
        return
    shipped = [card.stem.removeprefix(f"{arch}_") for card in FOLDER.glob(f"{arch}_*.json")]
    if weights in shipped:
        load_shipped(net, f"{arch}_{weights}")
        return
    known = f"known: none, {', '.join(sorted(shipped))}, or a file"
    load_weights(net, own_file(weights, "shipped", known))


def load_shipped(net: nn.Module, name: str, folder: Path = FOLDER) -> None:
    """Copy the shipped weights ``name`` into ``net``, if the file is the card's.

    Raises:
        InvalidInput: the file is missing or its sha256 is not the one on its card, or the
            weights do not fit the network.
    """
    path, card = folder / f"{name}.safetensors", read_card(name, folder)
    if not path.is_file():
        raise InvalidInput("weights", f"{path} is missing", f"make it: {card['command']}")
    found = sha256(path)
    if found != card["sha256"]:
        problem = f"{path} has sha256 {found[:12]}..., its card says {card['sha256'][:12]}..."
        raise InvalidInput("weights", problem, f"make it again: {card['command']}")
    load_weights(net, path)


def read_card(name: str, folder: Path = FOLDER) -> dict[str, Any]:
    """What was trained on which data, with the accuracy, the hash and the command.

    Raises:
        InvalidInput: nothing of that name ships with the project.
    """
    path = folder / f"{name}.json"
    if not path.is_file():
        known = ", ".join(sorted(card.stem for card in folder.glob("*.json")))
        raise InvalidInput("weights", f"no shipped weights {name!r}", f"shipped: {known}")
    return dict(json.loads(path.read_text(encoding="utf-8")))
