"""The leaderboard of runs that lack cells, attacks or everything."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from robustlab import reporting
from robustlab.records import RunRecord, UnreadableResults
from robustlab.reporting.comparison import leading
from tests.reporting import board, fixture
from tests.reporting.board import EPSILON, PGD, PUBLISHED, SMALL, STRICT, control
from tests.reporting.page import parse
from tests.reporting.scored import read_cards


@pytest.mark.parametrize(
    ("gone", "empty"),
    [
        ((PGD,), ("adversarial",)),
        ((PUBLISHED,), ("published",)),
        (("nothing",), ("clean",)),
        ((STRICT,), ("strict",)),
        ((PGD, STRICT, "nothing"), ("adversarial", "strict", "clean")),
    ],
)
def test_a_part_that_was_not_measured_is_a_dash(
    tmp_path: Path, gone: tuple[str, ...], empty: tuple[str, ...]
) -> None:
    names = {*gone, *map(control, gone)}
    plan = [c for c in board.cells(SMALL, seeds=(0,)) if c.attack not in names]
    board.build(tmp_path, plan, models=SMALL, pictures=False)
    reporting.write_leaderboard(tmp_path)
    parts = ("clean", "adversarial", "published", "strict")
    for card in read_cards(tmp_path):
        assert tuple(p for p in parts if not getattr(card, p)) == tuple(
            p for p in parts if p in empty
        )
    shown = parse((tmp_path / "leaderboard.html").read_text())
    (table,) = shown.all("table", "main")
    cells = {c.attributes["data-label"]: c.text for c in table.all("tbody")[0].all("td")}
    assert (cells["PGD"] == "–") == ("adversarial" in empty)
    assert (cells["Published IN"] == "–") == ("published" in empty)
    assert (cells["Clean"] == "–") == ("clean" in empty)
    assert "| – |" in (tmp_path / "leaderboard.md").read_text()


def test_an_unfinished_run_says_so(tmp_path: Path) -> None:
    plan = board.cells(("natural",), seeds=(0,))
    store = board.build(tmp_path, plan, models=("natural",), pictures=False)
    store.record_path(board.key_of(plan[0])).unlink()
    store.write(RunRecord.crashed(board.key_of(plan[-1]), plan[-1], "boom"))
    reporting.write_leaderboard(tmp_path)
    (card,) = read_cards(tmp_path)
    assert card.notes == (
        f"1 of {len(plan)} cells have not been run",
        f"1 of {len(plan)} cells failed",
    )
    assert "natural: 1 of" in parse((tmp_path / "leaderboard.html").read_text()).text


def test_a_crashed_first_budget_is_not_replaced_by_the_second(tmp_path: Path) -> None:
    plan = board.cells(("natural",), seeds=(0,))
    store = board.build(tmp_path, plan, models=("natural",), pictures=False)
    for cell in plan:
        if cell.attack == PUBLISHED and cell.budget.epsilon == EPSILON:
            store.write(RunRecord.crashed(board.key_of(cell), cell, "boom"))
    reporting.write_leaderboard(tmp_path)
    assert read_cards(tmp_path)[0].published is None


def test_an_explainer_that_was_not_attacked_itself_does_not_lead(tmp_path: Path) -> None:
    names = (STRICT, control(STRICT))
    plan = [
        replace(cell, explainers=board.EXPLAINERS) if cell.attack in names else cell
        for cell in board.cells(SMALL, seeds=(0,))
        if cell.attack not in names or cell.against == "gradient"
    ]
    board.build(tmp_path, plan, models=SMALL, pictures=False)
    reporting.write_leaderboard(tmp_path)
    for card in read_cards(tmp_path):
        assert [one.explainer for one in card.strict] == list(board.EXPLAINERS)
        assert {one.attack.against for one in card.strict} == {"gradient"}
        lead = leading(card.strict)
        assert lead is not None
        assert lead.explainer == "gradient"
    shown = parse((tmp_path / "leaderboard.html").read_text())
    (table,) = shown.all("table", "main")
    assert "Stricter protocol, gradient" in table.text
    (table,) = shown.all("table", "strict")
    told = ["made against gradient" in group.text for group in table.all("tbody")]
    assert told == [True, False, False]  # the fixed map has its own words


def test_other_experiments_of_the_lab_may_have_pgd_alone(tmp_path: Path) -> None:
    fixture.build(tmp_path)
    reporting.write_leaderboard(tmp_path)
    (card,) = read_cards(tmp_path)
    assert (card.data, card.published, card.strict) == ("photos", None, ())
    assert card.adversarial is not None


def test_another_experiment_is_refused_with_what_to_run(tmp_path: Path) -> None:
    plan = [c for c in board.cells(SMALL, seeds=(0,)) if board.WEAK in c.attack or c.role == "none"]
    board.build(tmp_path / "other", plan, models=SMALL, pictures=False)
    with pytest.raises(UnreadableResults, match="robustlab run attributional_robustness"):
        reporting.write_leaderboard(tmp_path)
    with pytest.raises(UnreadableResults, match="holds no results"):
        reporting.write_leaderboard(tmp_path / "other" / "models")
    with pytest.raises(UnreadableResults, match="is not a folder"):
        reporting.write_leaderboard(tmp_path / "nowhere")
    plan = board.cells(("natural",), seeds=(0,))
    board.build(tmp_path / "deep" / "good", plan, models=("natural",), pictures=False)
    written = reporting.write_leaderboard(tmp_path, tmp_path / "out")
    assert written.passed_over == (tmp_path / "other",)
    assert (tmp_path / "out" / "leaderboard" / "clothes--natural.json") in written.files
    shutil.copytree(tmp_path / "deep", tmp_path / "twice")
    with pytest.raises(UnreadableResults, match="give one of the two"):
        reporting.write_leaderboard(tmp_path)
