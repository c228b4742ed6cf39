"""The report: its numbers are the summary's, its text is harmless, its bytes repeat."""

import csv
import re
import subprocess
import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest

from robustlab import reporting
from robustlab.records import RunRecord, SavedRow, Store
from robustlab.reporting.wording import number
from tests.reporting import fixture
from tests.reporting.page import Node, parse


@pytest.fixture(scope="module")
def page(folder: Path) -> Node:
    return parse((folder / "report.html").read_text())


@pytest.fixture(scope="module")
def summary(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(StringIO((folder / "summary.csv").read_text())))


def rows_of(page: Node) -> list[Node]:
    (table,) = page.all("table", "summary")
    return table.all("tbody")[0].all("tr")


def test_the_table_holds_every_row_of_the_summary(
    page: Node, summary: list[dict[str, str]]
) -> None:
    shown = [
        (
            row.attributes["data-explainer"],
            row.attributes["data-label"],
            row.attributes["data-metric"],
        )
        for row in rows_of(page)
    ]
    assert shown == [(row["explainer"], row["attack"], row["metric"]) for row in summary]


def check_numbers(page: Node, summary: list[dict[str, str]]) -> None:
    for row, expected in zip(rows_of(page), summary, strict=True):
        cells = {
            c.attributes["data-column"]: c for c in row.all("td") if "data-column" in c.attributes
        }
        assert set(cells) == {
            "epsilon",
            "mean",
            "control",
            "difference",
            "chance",
            "kept_rate",
            "n",
        }
        for name, cell in cells.items():
            assert cell.attributes["data-value"] == expected[name], name
        for name, low, high in (
            ("mean", "low", "high"),
            ("control", "control_low", "control_high"),
        ):
            ends = [number(float(expected[end])) for end in (low, high) if expected[end]]
            value = number(float(expected[name])) if expected[name] else "–"
            assert cells[name].text.startswith(value)
            assert not ends or f"[{', '.join(ends)}]" in cells[name].text


def test_numbers_are_those_of_the_summary(page: Node, summary: list[dict[str, str]]) -> None:
    check_numbers(page, summary)


def test_canary_a_changed_number_is_seen(folder: Path, summary: list[dict[str, str]]) -> None:
    changed = [{**row, "low": "0.5"} for row in summary]
    with pytest.raises(AssertionError):
        check_numbers(parse((folder / "report.html").read_text()), changed)


def test_headlines_are_made_of_the_numbers(page: Node, summary: list[dict[str, str]]) -> None:
    (row,) = [
        row
        for row in summary
        if (row["attack"], row["explainer"], row["metric"])
        == ("top_k", "gradient", "top_k_intersection")
        and float(row["epsilon"]) == fixture.EPSILONS[1]
    ]
    mean, low, high, floor = (
        f"{100 * float(row[name]):.0f}" for name in ("mean", "low", "high", "control")
    )
    first = page.all("ul", "headline")[0].all("li")[0].text.replace("\u202f", " ")
    assert first.startswith(
        f"At ε = 2/255 the top_k attack leaves {mean} % [{low}, {high}] of the top-1000 pixels "
        f"of gradient; random sign leaves {floor} % ["
    )
    assert "The prediction was kept on 4 of 4." in first
    assert "At ε = 0.5/255 it leaves" in first


def test_failures_and_cautions_are_told(page: Node) -> None:
    text = page.text
    for words in (
        "1 cell failed",
        "RuntimeError: out of memory <b>here</b>",
        "photo_0: infeasible under top_k",
        "photo_1: diverged under top_k",
        "step 1 left the ball (2 cells)",
        "Not clearly beyond random sign",
        "every map stays where it is",
        "hessian-vector product",
        "two unrelated maps score 0.100",
        "no closed form for chance",
        "samples = 16, noise = 0.15 · map: abs_sum · conservation 1.000",
        "0123abc",
    ):
        assert words in text, words


@pytest.fixture(params=["folder", "rich_folder"])
def either(request: pytest.FixtureRequest) -> Path:
    """A run with the drift alone, and one with everything else that a record may hold."""
    return request.getfixturevalue(request.param)


def test_identifiers_are_unique_and_every_reference_has_its_target(either: Path) -> None:
    text = (either / "report.html").read_text()
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    used = set(re.findall(r'(?:url\(#|href="#|aria-(?:labelled|described)by=")([^)"]+)', text))
    assert used <= set(ids)


def test_every_section_is_linked(rich_page: Node) -> None:
    (nav,) = rich_page.all("nav")
    linked = [link.attributes["href"].removeprefix("#") for link in nav.all("a")]
    assert linked == [s.attributes["id"] for s in rich_page.all("section") if "id" in s.attributes]
    assert {"certificates", "transfer", "strength", "saved"} < set(linked)


def test_nothing_points_outside(either: Path) -> None:
    for name in ("report.html", "gallery.html"):
        text = (either / name).read_text()
        allowed = ("http://www.w3.org/",)  # names of XML vocabularies, never fetched
        links = re.findall(r"https?://[^\s\"'<]+", text)
        assert all(link.startswith(allowed) for link in links)
        assert not re.search(r"(?:src|href)=\"(?!#|data:)", text)
        assert "default-src &#39;none&#39;; img-src data:;" in text


def test_equal_records_give_equal_bytes(folder: Path) -> None:
    before = [(folder / name).read_bytes() for name in ("report.html", "gallery.html")]
    code = "import sys; from robustlab import reporting; reporting.write_all(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True)
    assert [(folder / name).read_bytes() for name in ("report.html", "gallery.html")] == before


EVIL = "<script>alert(1)</script>&\"'{{7*7}}$x_1$"


@pytest.fixture(scope="module")
def evil(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every text that a user or a file name can bring is an attack on the page."""
    path = tmp_path_factory.mktemp("evil")
    cell = fixture.cells(images=1)[-1]
    names = {"ids": (EVIL,), "model": EVIL, "data": EVIL, "target": EVIL, "made_on": EVIL}
    cell = replace(cell, **names, explainers=fixture.EXPLAINERS)
    record = fixture.record(cell, cautions=(EVIL,), provenance={EVIL: EVIL}, path=EVIL)
    image = record.images[0]
    files = {EVIL: SavedRow(kept=True, values=image.values, survives={})}
    record = replace(record, images=(replace(image, saved=files, cautions=(EVIL,)),))
    data = fixture.manifest([cell], name=EVIL, question=EVIL, models=[EVIL], spec={EVIL: EVIL})
    data["attacks"]["top_k"]["summary"] = EVIL
    data["plan"].append({**data["plan"][0], "key": "crash", "seed": 1})
    store = Store(path)
    store.claim(data)
    store.write(record)
    store.write(RunRecord.crashed("crash", cell, EVIL))
    picture = {EVIL: fixture._picture("photo_0", 32)}
    store.artefact_path(record.key).write_bytes(fixture.artefact(cell, 32, picture))
    reporting.write_all(path)
    return path


@pytest.mark.parametrize("name", ["report.html", "gallery.html"])
def test_user_text_is_harmless(evil: Path, name: str) -> None:
    text = (evil / name).read_text()
    assert "<script>alert" not in text
    page = parse(text)
    assert EVIL in page.text
    if name == "report.html":
        for section in ("saved", "transfer", "cautions"):
            found = page.section(section)
            assert found is not None
            assert EVIL in found.text or EVIL.upper() in found.text, section
    assert len([node for node in page.all("script") if "type" not in node.attributes]) == 1


def test_an_unfinished_run_says_what_is_missing(tmp_path: Path) -> None:
    plan = fixture.cells()
    store = Store(tmp_path)
    store.claim(fixture.manifest(plan))
    for cell in plan[:4]:
        path = store.write(fixture.record(cell))
    path.write_text("{")
    page = parse(reporting.write_report(tmp_path).read_text())
    assert f"{len(plan) - 3} cells not run" in page.text
    assert "Files left aside" in page.text
    assert f"{path.name}: not a run record" in page.text


def test_an_empty_run_has_a_report(tmp_path: Path) -> None:
    Store(tmp_path).claim(fixture.manifest(fixture.cells()))
    for path in reporting.write_all(tmp_path):
        assert path.is_file()
    assert "No attack has left a number yet." in (tmp_path / "report.html").read_text()


def test_one_image_one_attack(tmp_path: Path) -> None:
    plan = [cell for cell in fixture.cells(images=1) if cell.attack == "top_k"][:1]
    fixture.build(tmp_path, plan)
    text = parse(reporting.write_report(tmp_path).read_text()).text
    assert "no random-sign control" in text.lower()
    assert "No attack could be compared" in text


def test_reporting_never_loads_torch() -> None:
    code = "import sys, robustlab.reporting; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
