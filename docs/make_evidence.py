"""Makes the tables and pictures of docs/evidence.md from what the experiments named there left.

Run it as ``python docs/make_evidence.py RESULTS...``: each folder fills the part that has its
experiment's name, and leaves the others as they are.
"""

import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from robustlab.reporting import Run, SummaryRow, load, multiverse, roar
from robustlab.reporting.multiverse_plot import MultiversePlot
from robustlab.reporting.palette import INKS, PAPER
from robustlab.reporting.roar_plot import RoarPlot
from robustlab.reporting.searched import UNTOUCHED, twins
from robustlab.reporting.wording import number, percent, points

PAGE: Final = Path(__file__).resolve().parent / "evidence.md"
WIDE: Final = 7.4  # inches
FAITHFUL: Final = ("deletion", "insertion", "road", "infidelity", "mprt")


def main(folders: Sequence[str]) -> None:
    """Write each folder's part between its marks."""
    text = PAGE.read_text(encoding="utf-8")
    for folder in folders:
        run = load(folder)
        name = run.manifest.name
        marks = re.compile(rf"(<!-- {name}:[^\n]*\n).*?(<!-- end of {name} -->)", re.DOTALL)
        if name not in PARTS or not marks.search(text):
            sys.exit(f"{folder}: {name} has no part; these have one: {', '.join(PARTS)}")
        part = "\n".join(PARTS[name](run))
        text = marks.sub(lambda found, part=part: f"{found[1]}{part}\n{found[2]}", text)  # type: ignore[misc]
    PAGE.write_text(text, encoding="utf-8")


def of_multiverse(run: Run) -> list[str]:
    """What survives, the worlds as a picture, the claims, and what each choice does."""
    lines = []
    for made in multiverse.multiverses(run.samples, run.summary, run.manifest):
        picture = save("multiverse", MultiversePlot("multiverse", made).draw(WIDE, "wide"))
        claims = (
            (c.text, c.worlds, c.holds, c.surely, c.opposite, "yes" if c.survives else "no")
            for c in made.claims
        )
        axes = (
            (a.name, ", ".join(a.values), number(a.agreement), f"{a.same_first} of {a.pairs}")
            for a in made.axes
        )
        lines += [
            *(f"- {sentence}" for sentence in multiverse.sentences(made)),
            "",
            f"![Places of explainers in {len(made.worlds)} worlds]({picture})",
            "",
            *table("claim, worlds, true in, surely true in, surely false in, survives", claims),
            "",
            *table("choice, values, agreement τ, same explainer first", axes),
        ]
    return lines


def of_roar(run: Run) -> list[str]:
    """What it comes to, the curves as a picture, and their means."""
    made = roar.retrained(run)
    if made is None:
        sys.exit(f"{run.folder}: no network is trained yet")
    picture = save("roar", RoarPlot("roar", made).draw(WIDE, "wide"))
    rows = (
        (
            curve.order,
            *(shown(curve.at(share)) for share in made.shares),
            "" if curve.beyond is None else points(curve.beyond),
        )
        for curve in made.curves
    )
    shares = ", ".join(f"{percent(share)} gone" for share in made.shares)
    return [
        *(f"- {sentence}" for sentence in roar.sentences(made)),
        "",
        f"![Accuracy over the share of pixels removed]({picture})",
        "",
        *table(f"order, {shares}, points below random", rows),
    ]


def shown(accuracy: float | None) -> str:
    """An accuracy, or a dash where no network is trained yet."""
    return "–" if accuracy is None else percent(accuracy)


def of_faithfulness(run: Run) -> list[str]:
    """Each number of the clean map on the clean picture, and of the attacked on the attacked."""
    lines: list[str] = []
    for model in dict.fromkeys(row.model for row in run.summary):
        rows = [row for row in run.summary if row.model == model]
        explainers = dict.fromkeys(row.explainer for row in rows)
        cells = (
            (name, *(before_and_after(rows, name, metric) for metric in FAITHFUL))
            for name in explainers
        )
        lines += [
            f"Network trained by {model}:",
            "",
            *table(f"explainer, {', '.join(FAITHFUL)}", cells),
            "",
        ]
    return lines[:-1]


def before_and_after(rows: Sequence[SummaryRow], explainer: str, metric: str) -> str:
    """Means of one explainer: without an attack, under its own, and under random signs."""
    ours = [row for row in rows if (row.explainer, row.metric) == (explainer, metric)]
    before = next((row.mean for row in ours if row.role == "none"), None)
    attack = next((row for row in ours if (row.role, row.against) == ("attack", explainer)), None)
    if attack is None:
        return number(before)
    return f"{number(before)} → {number(attack.mean)} ({number(attack.control)})"


def of_sensitivity(run: Run) -> list[str]:
    """A worst case by random copies and by a search that goes on from the best of them."""
    rows = (
        (
            made.name, line.explainer, line.sampled, line.searched,
            number(line.times), f"{line.higher} of {line.images}",
        )
        for made in twins(run.measurements, run.manifest)
        for line in made.lines
        if line.picture == UNTOUCHED
    )  # fmt: skip
    return table("metric, explainer, sampled, searched, times, images with more", rows)


PARTS: Final[dict[str, Callable[[Run], list[str]]]] = {
    "multiverse": of_multiverse,
    "roar": of_roar,
    "faithfulness": of_faithfulness,
    "sensitivity_mnist": of_sensitivity,
}


def table(head: str, rows: Iterable[Sequence[object]]) -> list[str]:
    """A table in Markdown; numbers stand right."""
    names = head.split(", ")
    cells = [[str(value) for value in row] for row in rows]
    return [
        f"| {' | '.join(names)} |",
        "|" + "---|" * len(names),
        *(f"| {' | '.join(row)} |" for row in cells),
    ]


def save(name: str, drawing: str) -> str:
    """A drawing of a report as a file of its own, in its light colours."""
    text = str(drawing).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" '
                                'xmlns:xlink="http://www.w3.org/1999/xlink" '
                                'font-family="sans-serif" ', 1)  # fmt: skip
    for ink in INKS:
        text = text.replace(f"var(--{ink.name})", ink.light)
    paper = f'<rect width="100%" height="100%" fill="{PAPER.light}"/>'
    text = re.sub(r"(<svg [^>]*>)", rf"\1{paper}", text, count=1)
    file = PAGE.parent / f"{name}.svg"
    file.write_text(text, encoding="utf-8")
    return file.name


if __name__ == "__main__":
    main(sys.argv[1:])
