"""Saved images: which of them count, by which metric, and who cannot survive."""

from dataclasses import replace
from pathlib import Path

from robustlab import reporting
from robustlab.core.types import RegionMetric
from robustlab.metrics import METRICS
from robustlab.records import ImageRow, Store
from robustlab.reporting import Run
from robustlab.reporting.saved import IN_REGION, saved
from robustlab.reporting.statistics import interval
from tests.reporting import richer


def one_cell(tmp_path: Path, *changes: dict[str, object], **manifest: object) -> Run:
    """One attack on the gradient map, its images changed one by one."""
    (cell, *_) = [c for c in richer.cells() if c.attack == "quick"]
    record = richer.record(cell)
    images = [replace(i, **c) for i, c in zip(record.images, changes, strict=False)]
    store = Store(tmp_path)
    store.claim(richer.manifest([cell], **manifest))
    store.write(replace(record, images=(*images, *record.images[len(images) :])))
    return reporting.load(tmp_path)


def test_seeds_are_averaged_within_an_image_and_counted_apart(tmp_path: Path) -> None:
    plan = [c for c in richer.cells(models=("small_cnn",), seeds=(0, 1)) if c.attack == "quick"]
    plan = [c for c in plan if c.budget == richer.BALLS[1]]
    richer.build(tmp_path, plan)
    whole = saved(reporting.load(tmp_path))
    assert whole is not None
    values: dict[str, list[float]] = {}
    for cell in plan:
        for image in richer.record(cell).images:
            value = image.saved["png"].values["gradient"]["top_k_intersection"]
            values.setdefault(image.id, []).append(value)
    assert {len(seeds) for seeds in values.values()} == {2}
    entry = whole.groups[0].lines[0].entries[0]
    assert entry is not None
    assert entry.drift == interval([sum(v) / 2 for v in values.values()])
    assert entry.said == "survives in 12 of 12 images"
    assert whole.seeds == 2


def test_images_that_enter_no_mean_enter_none_here(tmp_path: Path) -> None:
    run = one_cell(tmp_path, {"outcome": "diverged"}, {"outcome": "budget_violated"})
    whole = saved(run)
    assert whole is not None
    entry = whole.groups[0].lines[0].entries[0]
    assert entry is not None
    assert (entry.drift.n, entry.said) == (2, "survives in 2 of 2 images")


def still(image: ImageRow) -> dict[str, object]:
    rows = {
        name: replace(row, survives=dict.fromkeys(row.survives))
        for name, row in image.saved.items()
    }
    return {"saved": rows}


def test_a_map_that_had_not_moved_cannot_survive(tmp_path: Path) -> None:
    (cell, *_) = [c for c in richer.cells() if c.attack == "quick"]
    images = richer.record(cell).images
    whole = saved(one_cell(tmp_path / "a", still(images[0])))
    assert whole is not None
    assert whole.groups[0].lines[0].entries[0].said == "survives in 3 of 3 images"  # type: ignore[union-attr]
    whole = saved(one_cell(tmp_path / "b", *(still(image) for image in images)))
    assert whole is not None
    assert whole.groups[0].lines[0].entries[0].said == "nothing had moved"  # type: ignore[union-attr]


def test_a_metric_of_a_region_is_passed_over(tmp_path: Path) -> None:
    metrics = richer.manifest(richer.cells())["metrics"]
    metrics["top_k_intersection"]["name"] = "energy_in_region"
    whole = saved(one_cell(tmp_path, metrics=metrics))
    assert whole is not None
    assert whole.metric == "spearman"


def test_the_metrics_of_a_region_are_all_known() -> None:
    regions = [name for name, kind in METRICS.items() if isinstance(kind(), RegionMetric)]
    assert sorted(regions) == sorted(IN_REGION)


def test_a_format_that_only_some_attacks_have_leaves_a_gap(tmp_path: Path) -> None:
    quick, search = (
        next(c for c in richer.cells() if c.attack == label) for label in ("quick", "search")
    )
    images = tuple(
        replace(image, saved={"png": image.saved["png"]}) for image in richer.record(search).images
    )
    store = Store(tmp_path)
    store.claim(richer.manifest([quick, search]))
    store.write(richer.record(quick))
    store.write(richer.record(search, images=images))
    whole = saved(reporting.load(tmp_path))
    assert whole is not None
    assert whole.formats == ("PNG", "JPEG 95", "JPEG 75")
    gaps = {
        line.attack: [entry is None for entry in line.entries]
        for group in whole.groups
        for line in group.lines
    }
    assert gaps == {"quick": [False, False, False], "search": [False, True, True]}
