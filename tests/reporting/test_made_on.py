"""Attacks made on another model: rows of their own, with their own controls and names."""

import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from robustlab import reporting
from robustlab.records import Store
from robustlab.reporting import Run, SummaryRow, summarise
from robustlab.reporting.epsilon_curve import EpsilonCurve
from robustlab.reporting.figures import epsilon_figures
from robustlab.reporting.gallery import collect
from robustlab.reporting.headline import headlines
from robustlab.reporting.wording import attack_name, number
from tests.reporting import fixture, richer
from tests.reporting.page import Node, parse

BUDGET = fixture.EPSILONS[1]
METRIC = "top_k_intersection"


@pytest.fixture(scope="module")
def results(rich_folder: Path) -> pd.DataFrame:
    return pd.read_csv(rich_folder / "results.csv", keep_default_na=False, dtype={"value": float})


def row_of(rich: Run, **wanted: object) -> SummaryRow:
    wanted = {"metric": METRIC, "epsilon": BUDGET, "explainer": "gradient", **wanted}
    (row,) = [r for r in summarise(rich) if all(getattr(r, k) == v for k, v in wanted.items())]
    return row


def test_the_column_stands_at_the_end(rich_folder: Path, results: pd.DataFrame) -> None:
    assert list(results)[-3:] == ["chance", "made_on", "cautions"]
    made = results[results.made_on != ""]
    assert set(made.made_on) == {"small_resnet"}
    assert set(made.model) == {"small_cnn"}
    assert set(made.attack) == {
        "top_k from resnet",
        "random_sign (top_k from resnet)",
        "pgd from resnet",
    }
    since = ["rerun", "reached_rate", "n_reached", "n_aimed"]
    assert list(pd.read_csv(rich_folder / "summary.csv"))[-5:] == ["made_on", *since]


def test_one_label_made_on_two_models_is_two_rows(tmp_path: Path) -> None:
    """A label that is in view on one model only elsewhere: the same label, another surrogate."""
    plan = [
        c
        for c in richer.cells(("small_cnn",))
        if c.attack == "top_k from resnet" and c.budget == richer.BALLS[1]
    ]
    store = Store(tmp_path)
    both = [*plan, *(replace(c, made_on=None) for c in plan)]
    data = richer.manifest(both)
    for line in data["plan"][len(plan) :]:
        line["key"] += "-own"
    store.claim(data)
    for cell in plan:
        images = richer.record(cell).images
        half = tuple(
            replace(i, values={"gradient": {METRIC: 0.5, "spearman": 0.5}}) for i in images
        )
        store.write(richer.record(cell, images=half))
        own = replace(cell, made_on=None)
        store.write(richer.record(own, key=f"{richer.key_of(cell)}-own", passes=replace(
            richer.record(own).passes, forward=999 * len(cell.ids))))  # fmt: skip
    rows = {r.made_on: r for r in summarise(reporting.load(tmp_path)) if r.metric == METRIC}
    assert set(rows) == {"", "small_resnet"}
    assert rows["small_resnet"].mean == 0.5
    assert rows[""].mean != 0.5
    assert rows[""].forwards_per_image == 999
    assert rows["small_resnet"].forwards_per_image != 999


def test_the_control_looked_at_the_same_model(rich: Run, results: pd.DataFrame) -> None:
    row = row_of(rich, attack="top_k from resnet", model="small_cnn")
    own = results[
        (results.attack == "random_sign (top_k from resnet)")
        & (results.metric == METRIC)
        & (results.epsilon == BUDGET)
        & (results.model == "small_cnn")
    ]
    assert set(own.made_on) == {"small_resnet"}
    assert row.control == pytest.approx(own.value.mean())


def test_a_control_of_another_model_serves_not(rich: Run) -> None:
    """Without its own control the attack has none, although its label has one elsewhere."""
    records = tuple(
        replace(record, cell=replace(record.cell, made_on=None))
        if record.cell.attack == "random_sign (top_k from resnet)"
        else record
        for record in rich.records
        if record.cell.attack != "random_sign"
    )
    row = row_of(replace(rich, records=records), attack="top_k from resnet", model="small_cnn")
    assert row.control is None
    assert "no random-sign control" in row.flags


def test_plain_random_sign_looks_at_no_model_and_serves_all(
    rich: Run, results: pd.DataFrame
) -> None:
    row = row_of(rich, attack="pgd from resnet", model="small_cnn")
    plain = results[
        (results.attack == "random_sign")
        & (results.metric == METRIC)
        & (results.epsilon == BUDGET)
        & (results.explainer == "gradient")
        & (results.model == "small_cnn")
    ]
    assert (row.made_on, row.control_name) == ("small_resnet", "random_sign")
    assert row.control == pytest.approx(plain.value.mean())


# --- in words ------------------------------------------------------------------------------


def test_names_say_it_only_where_it_is_so(rich: Run) -> None:
    row = row_of(rich, attack="top_k from resnet", model="small_cnn")
    made = replace(row, attack="top_k")
    assert attack_name(made) == "top_k made on small_resnet"
    assert attack_name(replace(made, made_on="")) == "top_k"
    far = replace(made, explainer="grad_cam")
    assert attack_name(far) == "top_k made on small_resnet (aimed at gradient)"
    assert attack_name(replace(far, made_on="")) == "top_k (aimed at gradient)"


def test_the_headline_says_both_models(rich: Run) -> None:
    rows = [
        r
        for r in summarise(rich)
        if (r.attack, r.model, r.explainer) == ("top_k from resnet", "small_cnn", "gradient")
    ]
    (sentence,) = headlines(rows, rich.manifest)
    assert sentence.startswith(
        "At ε = 2/255 the top_k from resnet attack on small_cnn, made on small_resnet, leaves "
    )
    assert "At ε = 0.5/255 it leaves" in sentence


def test_the_table_and_its_filters_know_the_row(rich_page: Node) -> None:
    rows = rich_page.all("table", "summary")[0].all("tbody")[0].all("tr")
    made = [r for r in rows if r.attributes["data-made-on"] == "small_resnet"]
    assert {r.attributes["data-attack"] for r in made} == {"top_k from resnet", "pgd from resnet"}
    names = {r.all("td")[1].text for r in made if r.attributes["data-role"] == "attack"}
    assert names == {
        "top_k from resnet made on small_resnet",
        "pgd from resnet made on small_resnet",
    }
    choices = [option.attributes["value"] for option in rich_page.all("option")]
    assert "top_k from resnet" in choices


def test_a_curve_does_not_join_attacks_made_on_different_models(rich: Run) -> None:
    rows = [r for r in summarise(rich) if r.model == "small_cnn" and r.norm == "linf"]
    mixed = [
        replace(r, attack="pgd" if r.attack == "pgd from resnet" else r.attack)
        for r in rows
        if r.attack in ("pgd", "pgd from resnet") and r.metric == METRIC
    ]
    (figure,) = epsilon_figures(mixed, rich.manifest)
    described = re.search(r'aria-label="([^"]+)"', figure.drawings[0])
    assert described is not None
    for row in mixed:
        made = " made on small_resnet" if row.made_on else ""
        at = "2/255" if row.epsilon == BUDGET else "0.5/255"
        assert f"pgd{made} on {row.explainer} at {at}: {number(row.mean)}" in described[1]
    names = ["pgd", "pgd made on small_resnet"]
    legend = EpsilonCurve("x", METRIC, rich.manifest.metrics[METRIC], mixed, names, ["gradient"])
    assert [str(h.get_label()) for h in legend._legend()][:2] == names
    assert figure.drawings[0].count("pgd made on small_resnet</text>") == 1


# --- in the gallery ------------------------------------------------------------------------


@pytest.fixture
def pictured(tmp_path: Path) -> Store:
    """An attack made on another model, the same attack made here, and a control of each."""
    labels = ("top_k from resnet", "random_sign (top_k from resnet)")
    plan = [
        c
        for c in richer.cells(("small_cnn",))
        if c.attack in labels and c.budget == richer.BALLS[1] and len(c.ids) == 4
    ]
    plan += [replace(c, made_on=None) for c in plan]
    store = Store(tmp_path)
    data = richer.manifest(plan)
    for line, cell in zip(data["plan"], plan, strict=True):
        line["key"] = f"{richer.key_of(cell)}-{cell.made_on}"
    store.claim(data)
    for cell, line in zip(plan, data["plan"], strict=True):
        value = 0.9 - 0.1 * plan.index(cell)
        images = tuple(
            replace(image, values={"gradient": {METRIC: value, "spearman": value}})
            for image in richer.record(cell).images
        )
        store.write(richer.record(cell, key=line["key"], images=images))
        if cell.role == "attack":
            pixels = fixture.artefact(replace(cell, attack="pgd"), 32)
            store.artefact_path(line["key"]).write_bytes(pixels)
    return store


def test_cards_name_it_and_show_the_control_of_the_same_model(pictured: Store) -> None:
    cards = collect(reporting.load(pictured.folder), 10**9).cards
    shown = {card.title: (card.figures[0].value, card.figures[0].control) for card in cards}
    # made on resnet: attack .9, control .8; made here: attack .7, control .6
    assert shown == {
        "gradient, top_k from resnet made on small_resnet, ε = 2/255": ("0.900", "0.800"),
        "gradient, top_k from resnet, ε = 2/255": ("0.700", "0.600"),
    }


def test_a_failed_cell_says_what_it_was_made_on(tmp_path: Path) -> None:
    cell = next(c for c in richer.cells() if c.made_on and c.role == "attack")
    store = Store(tmp_path)
    store.claim(richer.manifest([cell]))
    store.write(type(richer.record(cell)).crashed(richer.key_of(cell), cell, "boom"))
    text = parse(reporting.write_report(tmp_path).read_text()).text
    assert "top_k from resnet made on small_resnet on gradient, ε 0.5/255" in text
