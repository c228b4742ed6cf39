"""Makes the table of docs/training.md from the code and the cards of the zoo.

Run it as ``python docs/make_training.py``: a second.
"""

import re
from pathlib import Path
from typing import Any, Final

from robustlab import training
from robustlab.models import zoo

PAGE: Final = Path(__file__).resolve().parent / "training.md"
SETS: Final = {"fashion_mnist": "Fashion-MNIST", "mnist": "MNIST"}
MARKS: Final = re.compile(r"(<!-- objectives[^\n]*\n).*?(<!-- end of objectives -->)", re.DOTALL)


def main() -> None:
    """Write the table between its marks."""
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(MARKS.sub(lambda m: m[1] + table() + m[2], text), encoding="utf-8")


def table() -> str:
    """One line per objective: loss, stated cost, and how accurate the zoo's networks are."""
    cards = [zoo.card(name) for name in zoo.zoo()]
    lines = [
        "| objective | what is descended | passes | " + " | ".join(SETS.values()) + " |",
        "|---|---|---|" + "---|" * len(SETS),
    ]
    for name, cls in training.TRAINING.items():
        loss = (cls.__doc__ or "").strip().split("\n\n")[0]
        shown = " ".join(loss.split()).replace("|", "\\|")
        passes = training.build(name).cost().gradient
        found = " | ".join(accuracy(cards, name, data) for data in SETS)
        lines.append(f"| {name} | {shown} | {passes:g} | {found} |")
    return "\n".join(lines) + "\n"


def accuracy(cards: list[dict[str, Any]], objective: str, data: str) -> str:
    """Of the zoo's network with this objective and data, on its card's held-out images."""
    for card in cards:
        if (card["objective"]["name"], card["data"]) == (objective, data):
            return f"{100 * card['accuracy']:.1f} %"
    return "–"


if __name__ == "__main__":
    main()
