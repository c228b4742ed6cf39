"""The gallery: every picture once, true colours, and a size that a browser can open."""

import base64
import json
import re
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from robustlab import reporting
from robustlab.records import Store
from robustlab.reporting import Run, pictures
from robustlab.reporting.gallery import collect
from robustlab.reporting.wording import number
from tests.reporting import fixture
from tests.reporting.page import Node, parse


def decoded(uri: str) -> Image.Image:
    return Image.open(BytesIO(base64.b64decode(uri.partition(",")[2])))


@pytest.fixture(scope="module")
def page(folder: Path) -> Node:
    return parse((folder / "gallery.html").read_text())


def album(folder: Path) -> dict[str, str]:
    text = (folder / "gallery.html").read_text()
    found = re.search(r'<script type="application/json" id="pictures">(.*?)</script>', text)
    assert found is not None
    return json.loads(found[1])


def test_one_card_per_image_explainer_and_cell_that_worked(page: Node, run: Run) -> None:
    expected = sum(
        len(record.cell.ids) * len(record.cell.explainers)
        for record in run.records
        if record.outcome == "ok"
    )
    assert len(page.all("article")) == expected


def test_each_distinct_picture_is_there_once(folder: Path, page: Node) -> None:
    known = album(folder)
    assert len(set(known.values())) == len(known)
    used = {node.attributes["data-picture"] for node in page.all("img")}
    assert used == set(known)
    text = (folder / "gallery.html").read_text()
    assert all(text.count(uri) == 1 for uri in known.values())


def test_pictures_are_the_arrays(folder: Path, page: Node, run: Run) -> None:
    card = next(c for c in page.all("article") if c.attributes["data-attack"] == "pgd")
    record = next(r for r in run.records if r.cell.attack == "pgd")
    with np.load(Store(folder).artefact_path(record.key)) as arrays:
        for view, name in ((0, "clean"), (1, "attacked")):
            key = card.all("li")[view].all("img")[0].attributes["data-picture"]
            shown = np.asarray(decoded(album(folder)[key]).convert("RGB"))
            assert (shown == arrays[name][0]).all()


def test_an_unchanged_picture_is_shown_once(page: Node) -> None:
    views = {
        attack: {len(c.all("li")) for c in page.all("article") if attack in c.attributes.values()}
        for attack in ("none", "pgd")
    }
    assert views == {"none": {3}, "pgd": {5}}


def test_every_view_has_words(page: Node) -> None:
    for view in page.all("li"):
        if view.all("img"):
            assert any(image.attributes["alt"] for image in view.all("img"))


def test_drift_stands_beside_control_and_chance(page: Node, run: Run) -> None:
    card = next(
        c
        for c in page.all("article")
        if (c.attributes["data-attack"], c.attributes["data-explainer"]) == ("top_k", "gradient")
        and c.attributes["data-image_id"] == "photo_2"
        and c.attributes["data-epsilon"] == "2/255"
    )
    places = {"attack": None, "control": None}
    for record in run.records:
        cell = record.cell
        if cell.against == "gradient" and cell.budget.epsilon == fixture.EPSILONS[1]:
            places[cell.role] = record.images[2].values["gradient"]["spearman"]
    row = next(r for r in card.all("tr") if r.text.startswith("spearman"))
    assert [cell.text for cell in row.all("td")] == [
        number(places["attack"]),
        number(places["control"]),
        "0.000",
    ]


def test_a_full_page_shows_some_images_of_every_cell_and_says_so(run: Run) -> None:
    whole = collect(run, 10**9)
    small = collect(run, whole.album.size // 3)
    assert 0 < len(small.cards) < len(whole.cards)
    assert len(small.cards) + small.left_out == len(whole.cards)
    assert {c.image_id for c in small.cards} < {c.image_id for c in whole.cards}
    assert {(c.attack, c.epsilon) for c in small.cards} == {
        (c.attack, c.epsilon) for c in whole.cards
    }


def test_the_note_about_what_was_left_out(folder: Path, tmp_path: Path) -> None:
    fixture.build(tmp_path)
    text = reporting.write_gallery(tmp_path, limit=20_000).read_text()
    assert "left out, to keep this page small" in text
    assert "left out, to keep this page small" not in (folder / "gallery.html").read_text()


def test_a_broken_artefact_is_named_and_the_rest_is_shown(tmp_path: Path) -> None:
    store = fixture.build(tmp_path)
    cells = [c for c in fixture.cells() if c.attack == "pgd"]
    store.artefact_path(fixture.key_of(cells[0])).write_bytes(b"PK\x03\x04 no")
    wrong = fixture.artefact(fixture.cells(images=5)[0])  # one more than the cell has
    store.artefact_path(fixture.key_of(cells[1])).write_bytes(wrong)
    contents = collect(reporting.load(tmp_path), 10**9)
    assert len(contents.problems) == 2
    assert "not a gallery artefact" in contents.problems[0].reason
    assert "clean: shape" in contents.problems[1].reason
    assert contents.cards


def test_no_artefacts_no_cards(tmp_path: Path) -> None:
    plan = fixture.cells()
    store = Store(tmp_path)
    store.claim(fixture.manifest(plan))
    store.write(fixture.record(plan[0]))
    assert "No cell has left pictures." in reporting.write_gallery(tmp_path).read_text()


def test_mid_grey_is_no_change_and_the_factor_fills_the_range() -> None:
    change = np.zeros((4, 4, 3))
    change[0, 0], change[1, 1] = 2 / 255, -2 / 255
    factor = pictures.amplification(change)
    assert factor == 63
    shown = np.asarray(decoded(pictures.amplified(change, factor=factor)))
    assert (shown[2, 2] == 128).all()
    assert shown[0, 0, 0] > 250
    assert shown[1, 1, 0] < 5


def test_maps_are_transparent_at_zero_and_opaque_at_their_largest() -> None:
    values = np.zeros((8, 8))
    values[3, 4], values[5, 5] = 1.0, -1.0
    picture = np.asarray(decoded(pictures.heat(values, signed=True)).convert("RGBA"))
    assert picture[3, 4, 3] == picture[5, 5, 3] == 255
    assert picture[0, 0, 3] == 0
    assert picture[3, 4, 0] > picture[3, 4, 2]  # positive is red
    assert picture[5, 5, 2] > picture[5, 5, 0]  # negative is blue
    flat = np.asarray(decoded(pictures.heat(np.zeros((8, 8)), signed=False)).convert("RGBA"))
    assert (flat[..., 3] == 0).all()


def test_arrays_with_holes_are_drawn() -> None:
    values = np.full((8, 8), np.nan)
    values[1, 1] = np.inf
    assert decoded(pictures.heat(values, signed=False)).size == (8, 8)
    assert pictures.amplification(values) == 1.0


def test_one_channel_is_grey() -> None:
    picture = np.asarray(decoded(pictures.photograph(np.full((6, 6, 1), 77, np.uint8))))
    assert (picture == 77).all()
