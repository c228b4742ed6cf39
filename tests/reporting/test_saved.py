"""Saved images: the tidy table, and the section against a second derivation with pandas."""

import json
from pathlib import Path

import pandas as pd
import pytest

from robustlab import reporting
from robustlab.records import Store
from robustlab.reporting import Run
from robustlab.reporting.saved import is_below_level, saved
from robustlab.reporting.statistics import interval
from robustlab.reporting.wording import attack_name, budget, number
from tests.reporting import richer
from tests.reporting.page import Node

COLUMNS = (
    "model,data,image_id,explainer,attack,norm,epsilon,seed,file_format,metric,value,"
    "prediction_kept,survives,role,against,made_on"
)
KEY = ["model", "explainer", "against", "attack", "made_on", "epsilon"]


@pytest.fixture(scope="module")
def table(rich_folder: Path) -> pd.DataFrame:
    text = {"against": str, "made_on": str}
    return pd.read_csv(
        rich_folder / "saved.csv", keep_default_na=False, na_values={"value": [""]}
    ).astype(text)


def test_the_table_is_every_saved_value_of_the_records(rich_folder: Path) -> None:
    expected = []
    for planned in json.loads((rich_folder / "experiment.json").read_text())["plan"]:
        record = json.loads((rich_folder / "cells" / f"{planned['key']}.json").read_text())
        cell = record["cell"]
        for image in record["images"]:
            for explainer in cell["explainers"]:
                for name, row in image["saved"].items():
                    for metric in cell["metrics"]:
                        survives = row["survives"][explainer]
                        expected.append(
                            [
                                *(cell["model"], cell["data"], image["id"], explainer),
                                *(cell["attack"], cell["budget"]["norm"]),
                                *(repr(cell["budget"]["epsilon"]), str(cell["seed"]), name, metric),
                                repr(row["values"][explainer][metric]),
                                str(row["kept"]),
                                "" if survives is None else str(survives),
                                *(cell["role"], cell["against"] or "", cell["made_on"] or ""),
                            ]
                        )
    header, *lines = (rich_folder / "saved.csv").read_text().splitlines()
    assert header == COLUMNS
    assert [line.split(",") for line in lines] == expected


def test_controls_are_not_saved_and_so_have_no_rows(table: pd.DataFrame) -> None:
    assert set(table.role) == {"attack", "none"}


def test_without_saved_images_there_is_neither_table_nor_section(folder: Path, run: Run) -> None:
    assert not (folder / "saved.csv").exists()
    assert saved(run) is None
    assert 'id="saved"' not in (folder / "report.html").read_text()


def test_bytes_do_not_depend_on_the_order_or_time_of_cells(tmp_path: Path) -> None:
    plan = richer.cells(models=("small_cnn",))[:12]
    for name, order in (("a", plan), ("b", plan[::-1])):
        store = Store(tmp_path / name)
        store.claim(richer.manifest(plan))
        for i, cell in enumerate(order):
            store.write(richer.record(cell, seconds=float(i), attack_seconds=float(i)))
        reporting.write_results(tmp_path / name)
    first, second = ((tmp_path / name / "saved.csv").read_bytes() for name in "ab")
    assert first == second
    assert b"\r" not in first


# --- the section ---------------------------------------------------------------------------


def lines_of(section: Node) -> dict[tuple[str, str, str], list[str]]:
    """(explainer and model, attack, budget) → cells of one line, from both tables."""
    found = {}
    for body in section.all("tbody"):
        group, *rows = body.all("tr")
        for row in rows:
            cells = [cell.text for cell in row.all("td")]
            epsilon = str(row.all("td")[0].children[0])
            found[group.text, row.all("th")[0].text, epsilon] = cells
    return found


def check(section: Node, table: pd.DataFrame, results: pd.DataFrame) -> None:
    lines = lines_of(section)
    ours = table[table.metric == "top_k_intersection"]
    before = results[results.metric == "top_k_intersection"]
    for key, rows in ours[ours.role == "attack"].groupby(KEY):
        place = dict(zip(KEY, key, strict=True))
        norm = rows.norm.iloc[0]
        where = f"{place['explainer']} on {place['model']}"
        line = lines[where, attack_name(Named(place)), budget(norm, place["epsilon"])]
        same = (before[list(place)] == pd.Series(place)).all(axis=1) & (before.norm == norm)
        assert line[1] == number(before[same].groupby("image_id").value.mean().mean())
        for shown, name in zip(line[2:], ("png", "jpeg_95", "jpeg_75"), strict=True):
            own = rows[rows.file_format == name]
            drift = interval(own.groupby("image_id").value.mean().to_numpy())
            asked = own[own.survives != ""].survives == "True"
            assert shown == (
                f"{number(drift.mean)}[{number(drift.low)}, {number(drift.high)}]"
                f"survives in {asked.sum()} of {len(asked)} images"
            )


class Named:
    """A line's key as the wording wants it."""

    def __init__(self, place: dict[str, str]) -> None:
        self.attack, self.explainer = place["attack"], place["explainer"]
        self.against, self.made_on = place["against"], place["made_on"]


@pytest.fixture(scope="module")
def results(rich_folder: Path) -> pd.DataFrame:
    return pd.read_csv(
        rich_folder / "results.csv", keep_default_na=False, na_values={"value": [""]}
    )


def test_every_number_of_the_section_again(
    rich_page: Node, table: pd.DataFrame, results: pd.DataFrame
) -> None:
    section = rich_page.section("saved")
    assert section is not None
    check(section, table, results)
    attacks = table[table.role == "attack"].groupby([*KEY, "norm"]).ngroups
    idle = table[table.role == "none"].groupby(["model", "explainer"]).ngroups
    assert len(lines_of(section)) == attacks + idle


def test_canary_a_changed_number_is_seen(
    rich_page: Node, table: pd.DataFrame, results: pd.DataFrame
) -> None:
    section = rich_page.section("saved")
    assert section is not None
    flipped = table.assign(survives=table.survives.replace({"True": "False"}))
    for wrong in (table.assign(value=table.value * 0.9), flipped):
        with pytest.raises(AssertionError):
            check(section, wrong, results)


def test_the_floor_is_what_the_file_does_to_untouched_pictures(
    rich_page: Node, table: pd.DataFrame
) -> None:
    section = rich_page.section("saved")
    assert section is not None
    line = lines_of(section)["gradient on small_cnn", "no attack", "–"]
    assert line[1] == "1.000"
    idle = table[(table.role == "none") & (table.metric == "top_k_intersection")]
    idle = idle[(idle.explainer == "gradient") & (idle.model == "small_cnn")]
    means = idle.groupby("file_format").value.mean()
    for shown, name in zip(line[2:], ("png", "jpeg_95", "jpeg_75"), strict=True):
        assert shown.startswith(number(means[name]))
        assert "survives" not in shown
    assert "prediction changed in 1 of 6 images" in line[4]
    assert "prediction changed" not in line[2]


def test_the_largest_budgets_are_in_view_and_the_others_folded(rich_page: Node) -> None:
    section = rich_page.section("saved")
    assert section is not None
    (folded,) = section.all("details")
    small = {key[2] for key in lines_of(folded)}
    assert small == {"0.5/255", "–"}
    whole = {key[2] for key in lines_of(section)}
    assert whole == {"0.5/255", "2/255", "0.5 L2", "–"}


def test_it_says_what_survival_means_and_what_nobody_can_send(rich_page: Node) -> None:
    section = rich_page.section("saved")
    assert section is not None
    for words in (
        "prediction is still what the attack had made of it and at least half of the map’s "
        "movement is left, by top_k_intersection",
        "Nobody can send an image of ε = 0.5/255 in an 8-bit file",
        "a fact about the explainer, not an image that anyone can send",
    ):
        assert words in section.text
    below = {key for key, cells in lines_of(section).items() if "below 1/255" in cells[0]}
    assert {key[2] for key in below} == {"0.5/255"}


@pytest.mark.parametrize(
    ("norm", "epsilon", "expected"),
    [
        ("linf", 0.5 / 255, True),
        ("linf/8bit", 0.9 / 255, True),
        ("linf", 1 / 255, False),
        ("linf", 0.0, False),
        ("l2", 0.001, False),
        ("patch", 0.001, False),
    ],
)
def test_below_one_level(norm: str, epsilon: float, expected: bool) -> None:
    assert is_below_level(norm, epsilon) is expected


def test_the_caution_stands_among_the_cautions_of_any_run(folder: Path) -> None:
    text = (folder / "report.html").read_text()
    assert "Less than one level of an 8-bit file" in text
    assert "not an image that anyone can send" in text
