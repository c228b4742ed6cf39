"""Makes the pictures and the table of docs/explainers.md, all from the code.

Run it as ``python docs/make_explainers.py``: about ten minutes on one core. With
names it draws only those: ``python docs/make_explainers.py lrp rise --out /tmp``.
"""

import argparse
import re
import sys
import time
from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from robustlab import data, explainers, models
from robustlab.core.batch import Batch
from robustlab.core.maps import to_maps
from robustlab.core.streaming import logits_of
from robustlab.lab.catalogue import catalogue

DOCS: Final = Path(__file__).resolve().parent
PHOTOS: Final = ("coffee", "chelsea", "rocket")
DIGITS: Final = ("mnist_5k/1004", "mnist_5k/2504", "mnist_5k/4004")
# models for what the default model does not have
GATED: Final = {
    "se_attention": "se_cnn",
    "cbam_attention": "cbam_cnn",
    "class_attention": "abn_cnn",
    "attention_rollout": "small_vit",
}
# projects onto training images, and there are none of the photographs' classes
DIGITS_ONLY: Final = ("tangent_projected", *GATED)
# explain nothing, so there is nothing to compare
CONTROLS: Final = ("control",)
# what suits digits and not photographs
ON_DIGITS: Final[Mapping[str, Mapping[str, Any]]] = {}
SIDE: Final = 1.05  # inches of one picture

Numbers = NDArray[np.floating[Any]]


def main() -> None:
    """Draw what was asked for; without names everything, and the table."""
    parser = argparse.ArgumentParser(description="Make the pictures of docs/explainers.md.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="explainers; all by default")
    parser.add_argument("--out", type=Path, default=DOCS, help="folder to write to")
    options = parser.parse_args()
    entries = {entry["name"]: entry for entry in catalogue("explainers")}
    chosen = [entries[name] for name in options.names or entries]
    torch.set_num_threads(1)
    shown = [e for e in chosen if e["family"] not in CONTROLS]
    local = [e["name"] for e in shown if e["scope"] == "local"]
    made = [e["name"] for e in shown if e["scope"] == "global"]
    photos, digits = data.load("photos").pick(PHOTOS), data.load("mnist_5k").pick(DIGITS)
    on_photos = {name: "efficientnet_lite0" for name in local if name not in DIGITS_ONLY}
    on_digits = {name: GATED.get(name, "small_resnet") for name in local}
    page = sheet(on_photos, photos, {}, columns=3)
    page.savefig(options.out / "explainers.jpg", dpi=100, pil_kwargs={"quality": 88})
    page = sheet(on_digits, digits, ON_DIGITS, columns=4)
    page.savefig(options.out / "explainers_digits.jpg", dpi=80, pil_kwargs={"quality": 88})
    if made:
        gallery(made).savefig(options.out / "explainers_global.png", dpi=80)
    if not options.names:
        write_table(options.out / "explainers.md", list(entries.values()))


def sheet(
    chosen: Mapping[str, str],
    batch: Batch,
    options: Mapping[str, Mapping[str, Any]],
    *,
    columns: int,
) -> Figure:
    """The pictures first, then one line of maps per explainer, in columns."""
    lines: list[tuple[str, list[Numbers], bool]] = [("the picture", _pictures(batch), False)]
    for name, model in chosen.items():
        started = time.perf_counter()
        maps = explained(name, model, batch, options.get(name, {}))
        sys.stderr.write(f"{name}: {time.perf_counter() - started:.1f} s\n")
        lines.append((name, list(maps), True))
    height = ceil(len(lines) / columns)
    across = columns * (len(batch.ids) + 1) - 1
    figure = Figure(figsize=(SIDE * across * 0.9, (SIDE + 0.2) * height), facecolor="white")
    grid = figure.add_gridspec(
        height, across, left=0.005, right=0.995, top=1 - 0.25 / figure.get_figheight(),
        bottom=0.005, wspace=0.03, hspace=0.22,
        width_ratios=([1.0] * len(batch.ids) + [0.18]) * (columns - 1) + [1.0] * len(batch.ids),
    )  # fmt: skip
    for place, (name, shown, is_map) in enumerate(lines):
        row, block = place % height, place // height
        for i, picture in enumerate(shown):
            axes = figure.add_subplot(grid[row, block * (len(batch.ids) + 1) + i])
            draw(axes, picture, is_map=is_map)
            if i == 0:
                axes.set_title(name, loc="left", fontsize=10, pad=3)
    return figure


def explained(name: str, model: str, batch: Batch, options: Mapping[str, Any]) -> Numbers:
    """Maps of the predicted classes, as numbers."""
    net = models.load(model)
    explainer = explainers.build(name, **options)
    targets = logits_of(net, batch.images).argmax(1)
    raw = explainer.explain(net, batch.images, targets, ids=batch.ids)
    height, width = batch.images.shape[-2:]
    found: Numbers = to_maps(raw, explainer.post, (height, width)).numpy()
    return found


def draw(axes: Axes, picture: Numbers, *, is_map: bool) -> None:
    """A photograph as it is; a map in colours whose middle is zero, or which begin at its least."""
    axes.set_axis_off()
    if not is_map:
        axes.imshow(picture, cmap="gray", vmin=0, vmax=1)
        return
    scale = float(np.quantile(np.abs(picture), 0.995)) or float(np.abs(picture).max()) or 1.0
    signed = picture.min() < -0.05 * scale
    least = -1.0 if signed else min(0.9, float(picture.min()) / scale)  # RISE never comes near 0
    axes.imshow(
        picture / scale, cmap="RdBu_r" if signed else "inferno", vmin=least, vmax=1,
        interpolation="antialiased",
    )  # fmt: skip


def gallery(names: Sequence[str]) -> Figure:
    """What global explainers show of the digit classes of small_cnn."""
    net, classes = models.load("small_cnn"), torch.arange(10)
    figure = Figure(figsize=(SIDE * 10, (SIDE + 0.25) * len(names)), layout="constrained")
    axes = figure.subplots(len(names), 10, squeeze=False)
    for row, name in enumerate(names):
        start = torch.zeros(10, 1, 28, 28)
        ids = [str(i) for i in range(10)]
        made = explainers.build(name).explain(net, start, classes, ids=ids)
        sure = torch.softmax(logits_of(net, made), 1).gather(1, classes[:, None])[:, 0]
        for i in range(10):
            draw(axes[row, i], made[i, 0].numpy(), is_map=False)
            axes[row, i].set_title(f"{i}: {float(sure[i]):.0%}", fontsize=9)
        axes[row, 0].set_title(f"{name}  0: {float(sure[0]):.0%}", fontsize=9, loc="left")
    return figure


def write_table(page: Path, entries: Sequence[Mapping[str, Any]]) -> None:
    """Put the comparison table between the page's markers."""
    text = page.read_text(encoding="utf-8")
    pattern = r"(<!-- comparison table[^\n]*\n).*?(<!-- end of comparison table -->)"
    new = re.sub(pattern, lambda m: f"{m[1]}{table(entries)}{m[2]}", text, flags=re.DOTALL)
    page.write_text(new, encoding="utf-8")


def table(entries: Sequence[Mapping[str, Any]]) -> str:
    """The survey's comparison table in Markdown."""
    lines = [
        "| name | family | specific to | explains | detail | differentiable | attacked by "
        "| passes | source |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for e in entries:
        specific = [k for k in ("class", "layer") if e[f"{k}_specific"]]
        cells = (
            f"`{e['name']}`", e["family"], ", ".join(specific) or "–",
            "an image" if e["scope"] == "local" else "the model", e["detail"],
            e["differentiable"], e["attacked_by"].split(":")[0].replace("_", " "),
            f"{e['passes']['forward']:g} + {e['passes']['backward']:g}", e["source"],
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _pictures(batch: Batch) -> list[Numbers]:
    return [image.movedim(0, -1).squeeze(-1).numpy() for image in batch.images]


if __name__ == "__main__":
    main()
