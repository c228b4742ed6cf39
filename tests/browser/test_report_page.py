"""The report in a real browser: readable, quiet, and usable without a mouse."""

from typing import Any

import pytest

pytestmark = pytest.mark.browser

WIDER = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


def shown(page: Any, attribute: str) -> list[str]:
    return page.eval_on_selector_all(
        ".summary tbody tr", f"rows => rows.filter(r => !r.hidden).map(r => r.dataset.{attribute})"
    )


def tab_to(page: Any, selector: str, limit: int = 60) -> None:
    """Reach an element with the Tab key alone."""
    for _ in range(limit):
        page.keyboard.press("Tab")
        if page.evaluate("s => document.activeElement.matches(s)", selector):
            return
    raise AssertionError(f"{selector} cannot be reached with the keyboard")


@pytest.mark.parametrize("name", ["report.html", "gallery.html"])
def test_nothing_spills_out_of_the_window(visit: Any, name: str) -> None:
    page = visit(name)
    assert page.locator("h1").inner_text() == "fragile_maps"
    for width in (320, 360, 480, 768, 1024, 1280, 1920):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate(WIDER) <= 0, width


@pytest.mark.parametrize("name", ["report.html", "gallery.html"])
def test_dark_readers_get_a_dark_page(visit: Any, name: str) -> None:
    brightness = "Math.max(...getComputedStyle(document.body).backgroundColor.match(/\\d+/g))"
    page = visit(name)
    assert page.evaluate(brightness) > 240
    page.emulate_media(color_scheme="dark")
    assert page.evaluate(brightness) < 40
    page.emulate_media(media="print")  # paper is white
    assert page.evaluate(brightness) > 240


@pytest.mark.parametrize(("width", "kind"), [(360, "narrow"), (1280, "wide")])
def test_figures_are_drawn_for_the_width(visit: Any, width: int, kind: str) -> None:
    page = visit("report.html", width=width)
    boxes = page.eval_on_selector_all(
        "figure svg",
        "all => all.map(s => [s.getAttribute('class'), s.getBoundingClientRect().width])",
    )
    assert {name for name, size in boxes if size > 0} == {kind}
    letters = page.eval_on_selector_all(
        f"figure svg.{kind} text",
        "all => all.map(t => parseFloat(getComputedStyle(t).fontSize) * t.getCTM().a)",
    )
    assert min(letters) > 9.5


@pytest.mark.parametrize(("width", "kind"), [(360, "narrow"), (1280, "wide")])
def test_letters_of_a_figure_do_not_run_into_each_other(visit: Any, width: int, kind: str) -> None:
    box = "t => [t.textContent, t.getBoundingClientRect().toJSON()]"
    boxes = f"all => all.map(s => [...s.querySelectorAll('text')].map({box}))"
    figures = visit("report.html", width=width).eval_on_selector_all(f"figure svg.{kind}", boxes)
    assert len(figures) == 6
    for figure in figures:
        assert overlapping(figure) == []


def overlapping(boxes: list[Any]) -> list[tuple[str, str]]:
    def meet(a: Any, b: Any) -> bool:
        across = min(a["right"], b["right"]) - max(a["left"], b["left"])
        down = min(a["bottom"], b["bottom"]) - max(a["top"], b["top"])
        return across > 1 and down > 3  # line boxes are taller than letters

    return [
        (one, other)
        for i, (one, a) in enumerate(boxes)
        for other, b in boxes[i + 1 :]
        if meet(a, b)
    ]


def test_canary_overlap_is_seen() -> None:
    box = {"left": 0, "right": 9, "top": 0, "bottom": 9}
    assert overlapping([["a", box], ["b", {**box, "left": 5}]]) == [("a", "b")]


def test_the_table_opens_on_the_primary_metric_without_controls(visit: Any) -> None:
    page = visit("report.html")
    assert set(shown(page, "metric")) == {"top_k_intersection"}
    assert set(shown(page, "role")) == {"attack"}


def test_filters_work_by_keyboard(visit: Any) -> None:
    page = visit("report.html")
    tab_to(page, "select[name=metric]")
    page.keyboard.press("ArrowDown")
    assert set(shown(page, "metric")) == {"spearman"}
    tab_to(page, "select[name=explainer]")
    page.keyboard.type("grad_cam")
    assert set(shown(page, "explainer")) == {"grad_cam"}
    before = len(shown(page, "role"))
    tab_to(page, "input[name=controls]")
    page.keyboard.press("Space")
    assert {"attack", "control", "none"} == set(shown(page, "role"))
    assert page.locator("output").inner_text().startswith(f"{len(shown(page, 'role'))} of ")
    assert len(shown(page, "role")) > before


def test_columns_sort_by_keyboard_with_missing_values_last(visit: Any) -> None:
    page = visit("report.html")
    values = (
        "all => all.filter(c => !c.parentNode.hidden).map(c => c.dataset.value)"
        ".map(v => v === '' ? null : Number(v))"
    )
    tab_to(page, "th:nth-child(5) button")
    for direction, sign in (("ascending", 1), ("descending", -1)):
        page.keyboard.press("Enter")
        assert page.locator("th[aria-sort]").get_attribute("aria-sort") == direction
        column = page.eval_on_selector_all("td[data-column=mean]", values)
        known = [value for value in column if value is not None]
        assert known == sorted(known, key=lambda value: sign * value)
        assert None in column
        assert None not in column[: len(known)]


def test_narrow_pages_sort_too(visit: Any) -> None:
    page = visit("report.html", width=360)
    page.select_option(".sort select", label="After attack")
    values = page.eval_on_selector_all(
        "td[data-column=mean]",
        "all => all.filter(c => !c.parentNode.hidden).map(c => c.dataset.value)",
    )
    known = [float(value) for value in values if value]
    assert known == sorted(known)
    assert len(known) > 5


def test_a_section_can_be_reached_from_the_top(visit: Any) -> None:
    page = visit("report.html")
    page.click("nav a[href='#cautions']")
    assert page.evaluate("document.querySelector('#cautions').getBoundingClientRect().top") < 200


def test_without_javascript_the_numbers_are_all_there(browser: Any, pages: Any) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((pages / "report.html").as_uri())
    assert page.locator(".summary tbody tr:visible").count() == 90
    assert not page.locator("form.filters").is_visible()
    context.close()
