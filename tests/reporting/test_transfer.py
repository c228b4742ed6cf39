"""Transfer matrices against means from results.csv, and their drawing against the matrix."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from robustlab import reporting
from robustlab.records import Store
from robustlab.reporting import Run, summarise
from robustlab.reporting.figures import transfer_figures
from robustlab.reporting.largest import largest
from robustlab.reporting.transfer import Matrix, matrices, sentences, transfer_headlines
from robustlab.reporting.wording import number
from tests.reporting import fixture, richer
from tests.reporting.page import Node

BUDGET = fixture.EPSILONS[1]


@pytest.fixture(scope="module")
def found(rich: Run) -> list[Matrix]:
    return matrices(summarise(rich), rich.manifest)


@pytest.fixture(scope="module")
def results(rich_folder: Path) -> pd.DataFrame:
    table = pd.read_csv(rich_folder / "results.csv", keep_default_na=False)
    table["value"] = table.value.astype(float)
    return table[table.metric == "top_k_intersection"]


def of(found: list[Matrix], between: str, on: str, attack: str, epsilon: float = BUDGET) -> Matrix:
    (matrix,) = [
        m for m in found
        if (m.between, m.on, m.attack, m.epsilon) == (between, on, attack, epsilon)
    ]  # fmt: skip
    return matrix


def mean_of(results: pd.DataFrame, **wanted: object) -> float:
    rows = results
    for column, value in wanted.items():
        rows = rows[rows[column] == value]
    assert len(rows) == 6, wanted
    return float(rows.value.mean())


AIMS = ("gradient", "grad_cam")


def test_rows_are_aims_and_columns_what_was_measured(
    found: list[Matrix], results: pd.DataFrame
) -> None:
    matrix = of(found, "explainers", "small_cnn", "top_k (steps = 20)")
    assert matrix.columns == fixture.EXPLAINERS
    assert matrix.rows == AIMS
    for aim, values in zip(matrix.rows, matrix.values, strict=True):
        for explainer, value in zip(matrix.columns, values, strict=True):
            assert value == pytest.approx(
                mean_of(
                    results, model="small_cnn", attack=f"top_k on {aim}", against=aim,
                    explainer=explainer, epsilon=BUDGET, made_on="",
                )
            )  # fmt: skip


def test_random_sign_is_the_mean_of_the_rows_controls(
    found: list[Matrix], results: pd.DataFrame
) -> None:
    matrix = of(found, "explainers", "small_cnn", "top_k (steps = 20)")
    for explainer, value in zip(matrix.columns, matrix.control, strict=True):
        own = [
            mean_of(
                results, model="small_cnn", attack=f"random_sign (top_k on {aim})",
                explainer=explainer, epsilon=BUDGET,
            )
            for aim in AIMS
        ]  # fmt: skip
        assert value == pytest.approx(sum(own) / 2)
    assert matrix.lines[-1] == ("random sign", matrix.control)


def test_between_models_the_row_is_where_it_was_made(
    found: list[Matrix], results: pd.DataFrame
) -> None:
    matrix = of(found, "models", "grad_cam", "pgd")
    assert matrix.rows == matrix.columns == richer.MODELS
    where = {"explainer": "grad_cam", "epsilon": BUDGET}
    own = [mean_of(results, model=m, attack="pgd", made_on="", **where) for m in richer.MODELS]
    moved = mean_of(
        results, model="small_cnn", attack="pgd from resnet", made_on="small_resnet", **where
    )
    assert matrix.values[0] == (pytest.approx(own[0]), None)  # nobody took it to the resnet
    assert matrix.values[1] == (pytest.approx(moved), pytest.approx(own[1]))


def test_each_budget_and_model_has_its_matrix(found: list[Matrix]) -> None:
    places = [(m.between, m.on, m.attack, m.norm, m.epsilon) for m in found]
    assert len(places) == len(set(places))
    explainers = {place[1:] for place in places if place[0] == "explainers"}
    assert explainers == {
        *(
            (model, "top_k (steps = 20)", "linf", epsilon)
            for model in richer.MODELS
            for epsilon in fixture.EPSILONS
        ),
        ("small_cnn", "top_k on gradient", "l2", 0.5),
    }
    models = {place[1:3] for place in places if place[0] == "models"}
    assert models == {("gradient", "top_k (steps = 20)"), *((e, "pgd") for e in fixture.EXPLAINERS)}


def test_the_largest_budgets_are_in_view(found: list[Matrix]) -> None:
    shown, folded = largest(found)
    assert {m.epsilon for m in shown} == {BUDGET, 0.5}
    assert {m.epsilon for m in folded} == {fixture.EPSILONS[0]}
    assert len(shown) + len(folded) == len(found)


def test_attacks_on_each_explainer_alone_are_no_transfer(run: Run, folder: Path) -> None:
    assert matrices(summarise(run), run.manifest) == []
    assert 'id="transfer"' not in (folder / "report.html").read_text()


def test_other_options_are_another_matrix(tmp_path: Path) -> None:
    plan = [c for c in richer.cells(models=("small_cnn",)) if "top_k on" in c.attack]
    plan = [c for c in plan if c.budget == richer.BALLS[1]]
    attacks = richer.manifest(plan)["attacks"]
    attacks["top_k on grad_cam"]["options"] = {"k": 1000, "steps": 7}
    richer.build(tmp_path, plan, attacks=attacks)
    run = reporting.load(tmp_path)
    first, second = matrices(summarise(run), run.manifest)
    assert (first.attack, second.attack) == ("top_k on gradient", "top_k on grad_cam")
    assert (first.rows, second.rows) == (("gradient",), ("grad_cam",))


def test_without_controls_there_is_no_row_of_theirs(rich: Run) -> None:
    table = [replace(row, control=None) for row in summarise(rich)]
    for matrix in matrices(table, rich.manifest):
        assert matrix.control == ()
        assert [name for name, _ in matrix.lines] == list(matrix.rows)


# --- sentences -----------------------------------------------------------------------------


def test_a_sentence_sets_the_others_against_the_own_target(small: Matrix) -> None:
    first, second = (text.replace("\u202f", " ") for text in sentences(small))
    assert first == (  # (0.3 + 0.1) / 2 of 0.8
        "Made against a at ε = 2/255 on small_cnn, top_k brings top_k_intersection of a to 0.200 "
        "and of the 2 other explainers to 0.800 on average, 25 % as far."
    )
    assert second == (
        "Made against b at ε = 2/255 on small_cnn, top_k brings top_k_intersection of the other "
        "explainer to 0.500."
    )


def test_between_models_it_says_where(small: Matrix) -> None:
    (text, _) = sentences(replace(small, between="models", on="gradient"))
    assert text.replace("\u202f", " ") == (
        "Made on a at ε = 2/255, top_k brings top_k_intersection of gradient to 0.200 there and "
        "to 0.800 on average on the 2 other models, 25 % as far."
    )


def test_lower_can_be_more_stable(small: Matrix) -> None:
    info = replace(small.info, higher_is_more_stable=False, bounds=(0.0, None))
    shift = replace(small, info=info, values=((40.0, 10.0, 20.0), (None, None, 0.0)), chance=None)
    assert sentences(shift)[0].endswith("to 15.0 on average, 38\u202f% as far.")  # 15 of 40
    assert [shift.moved(v) for v in (0.0, 10.0, 40.0)] == pytest.approx([0, 0.25, 1])


def test_nothing_moved_has_no_share(small: Matrix) -> None:
    (text, *_) = sentences(replace(small, values=((1.0, 0.7, 0.9), (None, None, None))))
    assert text.endswith("to 0.800 on average.")


def test_headlines_are_the_first_of_either_kind(found: list[Matrix], rich_page: Node) -> None:
    said = transfer_headlines(found)
    assert [text.split(" ")[1] for text in said] == ["against", "against", "on", "on"]
    shown = [item.text for item in rich_page.all("ul", "headline")[0].all("li")]
    for text in said:
        assert " ".join(text.split()) in shown


# --- the page ------------------------------------------------------------------------------


def test_the_page_has_every_matrix_as_a_table_too(found: list[Matrix], rich_page: Node) -> None:
    section = rich_page.section("transfer")
    assert section is not None
    tables = section.all("table", "plain")
    shown, folded = largest(found)
    for table, matrix in zip(tables, [*shown, *folded], strict=True):
        lines = [
            [row.all("th")[0].text, *(cell.text for cell in row.all("td"))]
            for row in table.all("tbody")[0].all("tr")
        ]
        assert lines == [[name, *map(number, values)] for name, values in matrix.lines]


def test_an_empty_folder_has_no_matrix(tmp_path: Path) -> None:
    Store(tmp_path).claim(richer.manifest(richer.cells()))
    run = reporting.load(tmp_path)
    assert transfer_figures(matrices(summarise(run), run.manifest)) == ([], [])
