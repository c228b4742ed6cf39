"""Makes README's picture and table from the records of `make demo`.

Run it as ``python docs/make_figures.py``.
Reads results/quickstart and writes docs/quickstart.png and the table between README's markers.
"""

import re
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from robustlab.records import RunRecord, Store

ROOT = Path(__file__).resolve().parents[1]
RUN = ROOT / "results" / "quickstart"
SHOWN = ("coffee", "flower")
NAMES = {
    "gradient": "gradient",
    "integrated_gradients": "integrated gradients",
    "smooth_grad": "SmoothGrad",
    "grad_cam": "Grad-CAM",
    "lrp": "LRP",
}


def main() -> None:
    """Write both."""
    drawn = BytesIO()
    draw().savefig(drawn, dpi=110)
    Image.open(drawn).convert("RGB").save(ROOT / "docs" / "quickstart.jpg", quality=90)
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    pattern = r"(<!-- quickstart table[^\n]*\n).*?(<!-- end of quickstart table -->)"
    readme.write_text(
        re.sub(pattern, lambda m: f"{m[1]}{table()}{m[2]}", text, flags=re.DOTALL), encoding="utf-8"
    )


def table() -> str:
    """The primary metric of every explainer under each attack, beside random signs."""
    summary = pd.read_csv(RUN / "summary.csv")
    rows = summary[(summary.metric == "top_k_intersection") & (summary.role == "attack")]
    lines = [
        "| explanation | top-k attack on the gradient | best of 10 random signs "
        "| PGD on the prediction |",
        "|---|---|---|---|",
    ]
    for label, name in NAMES.items():
        top_k = rows[(rows.explainer == label) & (rows.attack == "top_k")].iloc[0]
        pgd = rows[(rows.explainer == label) & (rows.attack == "pgd")].iloc[0]
        lines.append(f"| {name} | {cell(top_k, '')} | {cell(top_k, 'control')} | {cell(pgd, '')} |")
    kept = {a: rows[rows.attack == a].iloc[0] for a in ("top_k", "pgd")}
    lines.append(
        f"| *predictions kept* | *{kept['top_k'].n_kept} of {kept['top_k'].n}* | "
        f"*by selection* | *{kept['pgd'].n_kept} of {kept['pgd'].n}* |"
    )
    return "\n".join(lines) + "\n"


def cell(row: pd.Series, which: str) -> str:
    """A mean with its interval, of the attack itself or of its control."""
    mean, low, high = (
        ("mean", "low", "high") if not which else (which, f"{which}_low", f"{which}_high")
    )
    return f"{row[mean]:.2f} [{row[low]:.2f}, {row[high]:.2f}]"


def draw() -> Figure:
    """One row per photograph: the picture twice, what changed, and maps before and after."""
    records = [r for r in Store(RUN).load_all()[0] if r.cell.attack == "top_k"]
    figure = Figure(figsize=(13, 3.1), layout="constrained", facecolor="white")
    columns = 3 + 2 * len(NAMES)
    axes = figure.subplots(len(SHOWN), columns, gridspec_kw={"wspace": 0.02, "hspace": 0.04})
    for row, image_id in enumerate(SHOWN):
        record = next(r for r in records if image_id in r.cell.ids)
        draw_row(axes[row], record, record.cell.ids.index(image_id), first=row == 0)
    figure.suptitle(
        "The picture changes by at most half a grey level. Maps before and after a top-k "
        "attack on the gradient:", fontsize=11, x=0.01, ha="left",
    )  # fmt: skip
    return figure


def draw_row(axes: np.ndarray, record: RunRecord, index: int, *, first: bool) -> None:
    """Fill one row of axes from a cell's stored pictures and maps."""
    arrays = np.load(Store(RUN).artefact_path(record.key))
    image = record.images[index]
    clean, attacked = arrays["clean"][index], arrays["attacked"][index]
    difference = arrays["difference"][index].astype(float)
    change = 0.5 + 0.5 * difference / np.abs(difference).max()
    titles = ["picture", "attacked", "difference\n(amplified)"]
    pictures = [clean, attacked, change]
    for e, label in enumerate(record.cell.explainers):
        for arrays_name, when in (("maps_before", "before"), ("maps_after", "after")):
            values = arrays[arrays_name][index, e].astype(float).clip(0)
            pictures.append(values / max(np.quantile(values, 0.995), 1e-9))
            titles.append(f"{NAMES[label]}\n{when}".replace("integrated ", "integr. "))
    for axis, picture, title in zip(axes, pictures, titles, strict=True):
        axis.imshow(picture, cmap="inferno", vmin=0, vmax=1, interpolation="antialiased")
        axis.set_axis_off()
        if first:
            axis.set_title(title, fontsize=8)
    for axis, name, confidence in (
        (axes[0], image.prediction_name, image.confidence),
        (axes[1], image.prediction_after_name, image.confidence_after),
    ):
        axis.text(0.5, -0.04, f"{name} {confidence:.0%}", transform=axis.transAxes,
                  ha="center", va="top", fontsize=8)  # fmt: skip


if __name__ == "__main__":
    main()
