"""What attacks said of their own results: in the table, among the cautions, on the cards."""

from dataclasses import replace
from pathlib import Path

import pandas as pd

from robustlab import reporting
from robustlab.records import Store
from robustlab.reporting import Run
from robustlab.reporting.cautions import MOST, doubts
from tests.reporting import richer
from tests.reporting.page import Node, parse

OTHER = "the objective never moved"


def small(tmp_path: Path, labels: tuple[str, ...] = ("search", "quick")) -> Run:
    """One image with two cautions, one with one, the rest without; over two seeds."""
    plan = [
        c
        for c in richer.cells(("small_cnn",), seeds=(0, 1))
        if c.attack in labels and c.budget == richer.BALLS[1]
    ]
    store = Store(tmp_path)
    store.claim(richer.manifest(plan))
    for cell in plan:
        images = [replace(image, cautions=()) for image in richer.record(cell).images]
        if cell.ids[0] == "photo_0" and cell.attack == "search":
            images[0] = replace(images[0], cautions=(richer.DOUBT, OTHER))
            images[1] = replace(images[1], cautions=(richer.DOUBT,) if cell.seed else ())
        if cell.attack == "quick" and cell.ids[0] == "photo_4":
            images[0] = replace(images[0], cautions=(OTHER,))
        store.write(richer.record(cell, images=tuple(images)))
    return reporting.load(tmp_path)


def test_images_are_counted_once_whatever_their_seeds(tmp_path: Path) -> None:
    said = {doubt.text: doubt.places for doubt in doubts(small(tmp_path))}
    assert said == {
        OTHER: (
            "quick on gradient, 2/255: 1 of 6 images",
            "search on gradient, 2/255: 1 of 6 images",
        ),
        richer.DOUBT: ("search on gradient, 2/255: 2 of 6 images",),
    }


def test_several_models_are_told_apart(rich: Run, rich_page: Node) -> None:
    (doubt,) = doubts(rich)
    assert doubt.places == tuple(
        f"search on gradient, {model}, {epsilon}: 3 of 6 images"
        for model in richer.MODELS
        for epsilon in ("0.5/255", "2/255")
    )
    section = rich_page.section("cautions")
    assert section is not None
    assert "What attacks said of their own results" in section.text
    (item,) = [li for li in section.all("li") if li.text.startswith(richer.DOUBT)]
    assert item.text == f"{richer.DOUBT} {' · '.join(doubt.places)}"


def test_many_places_are_cut(rich: Run) -> None:
    records = tuple(
        replace(record, images=tuple(replace(i, cautions=("again",)) for i in record.images))
        for record in rich.records
    )
    (doubt,) = doubts(replace(rich, records=records))
    places = {
        (c.model, c.attack, c.against, c.budget, c.made_on) for c in (r.cell for r in records)
    }
    assert len(doubt.places) == MOST
    assert doubt.more == len(places) - MOST


def test_the_table_joins_them(tmp_path: Path) -> None:
    small(tmp_path)
    table = pd.read_csv(reporting.write_results(tmp_path), keep_default_na=False)
    found = table[(table.attack == "search") & (table.seed == 1)]
    found = found.drop_duplicates("image_id").set_index("image_id").cautions
    assert found.to_dict() == {
        "photo_0": f"{richer.DOUBT}; {OTHER}",
        "photo_1": richer.DOUBT,
        **dict.fromkeys(("photo_2", "photo_3", "photo_4", "photo_5"), ""),
    }


def test_cards_say_them_under_the_prediction(rich_folder: Path) -> None:
    page = parse((rich_folder / "gallery.html").read_text())
    cards = page.all("article")
    assert cards
    doubted = {card.attributes["data-image_id"] for card in cards if card.all("p", "caution")}
    assert doubted == {"photo_0", "photo_2", "photo_4"}
    card = next(card for card in cards if card.all("p", "caution"))
    lines = [line.text for line in card.all("div", "says")[0].all("p")]
    assert lines[-1] == f"caution {richer.DOUBT}"
    assert lines[0].startswith("before ")


def test_nothing_said_nothing_shown(run: Run, folder: Path) -> None:
    assert doubts(run) == []
    assert "What attacks said" not in (folder / "report.html").read_text()
    assert not parse((folder / "gallery.html").read_text()).all("p", "caution")
