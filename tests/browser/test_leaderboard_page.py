"""The leaderboard in a real browser: sortable by click and by keyboard, readable at any width."""

from pathlib import Path
from typing import Any

import pytest

from robustlab import reporting
from tests.browser.test_report_page import WIDER, overlapping, tab_to
from tests.reporting import board

pytestmark = pytest.mark.browser

VALUES = "rows => rows.map(r => r.cells[{}].dataset.value).map(v => v === '' ? null : Number(v))"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four models on one data set; one of them was never attacked as the paper does."""
    path = tmp_path_factory.mktemp("a board")
    plan = board.cells(seeds=(0,))
    gone = (board.PUBLISHED, board.control(board.PUBLISHED))
    board.build(path, [c for c in plan if c.model != "adversarial" or c.attack not in gone])
    reporting.write_leaderboard(path)
    return path


def column(page: Any, table: str, index: int) -> list[float | None]:
    rows = f"table.{table} tbody:nth-of-type(1) tr:not(.group)"
    values: list[float | None] = page.eval_on_selector_all(rows, VALUES.format(index))
    return values


@pytest.mark.parametrize("table", ["main", "strict"])
def test_every_column_sorts_by_click_and_by_keyboard(visit: Any, table: str) -> None:
    page = visit("leaderboard.html")
    buttons = page.locator(f"table.{table} thead button")
    assert buttons.count() == page.locator(f"table.{table} .sort-by th").count()
    for i in range(1, buttons.count()):
        buttons.nth(i).click()
        down = column(page, table, i)
        buttons.nth(i).focus()
        page.keyboard.press("Enter")
        up = column(page, table, i)
        for found, falls in ((down, True), (up, False)):
            known = [value for value in found if value is not None]
            assert known == sorted(known, reverse=falls), i
            assert found[: len(known)] == known  # a dash is last either way
        heads = page.locator(f"table.{table} th[aria-sort]")
        assert heads.count() == 1
        assert heads.get_attribute("aria-sort") == "ascending"


def test_names_sort_from_a_and_tab_gets_there(visit: Any) -> None:
    page = visit("leaderboard.html")
    tab_to(page, "table.main th:first-child button")
    page.keyboard.press("Space")
    names = page.locator("table.main tbody th").all_inner_texts()
    assert names == sorted(names)


def test_groups_keep_their_rows(visit: Any) -> None:
    page = visit("leaderboard.html")
    page.locator("table.strict thead button").nth(1).click()
    for i, name in enumerate(board.EXPLAINERS):
        rows = page.locator(f"table.strict tbody:nth-of-type({i + 1}) tr")
        assert rows.count() == 1 + len(board.MODELS)
        assert rows.first.inner_text().startswith(name)


def test_nothing_spills_out_of_the_window(visit: Any) -> None:
    page = visit("leaderboard.html")
    for width in (320, 360, 480, 768, 1024, 1280, 1920):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate(WIDER) <= 0, width


def test_narrow_pages_sort_by_a_list(visit: Any) -> None:
    page = visit("leaderboard.html", width=360)
    page.locator("label.sort select").first.select_option(label="Stricter IN")
    found = column(page, "main", 5)
    assert found == sorted(found, reverse=True)  # type: ignore[type-var]
    page.locator("label.sort select").first.select_option(label="table order")
    assert page.locator("table.main tbody th").first.inner_text() == "rar_sum_norm"


@pytest.mark.parametrize(("width", "kind"), [(360, "narrow"), (1280, "wide")])
def test_letters_of_the_trade_off_do_not_run_into_each_other(
    visit: Any, width: int, kind: str
) -> None:
    box = "t => [t.textContent, t.getBoundingClientRect().toJSON()]"
    boxes = f"all => all.map(s => [...s.querySelectorAll('text')].map({box}))"
    figures = visit("leaderboard.html", width=width).eval_on_selector_all(
        f"figure svg.{kind}", boxes
    )
    assert len(figures) == 2
    for figure in figures:
        assert overlapping(figure) == []


def test_without_javascript_it_is_a_plain_table(browser: Any, pages: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((pages / "leaderboard.html").as_uri())
    assert page.locator("table.main tbody tr:visible").count() == len(board.MODELS)
    assert page.locator("button, select").count() == 0
    assert page.locator(".frame img:visible").count() > 0
    context.close()
