"""The gallery in a real browser: filters, their state in the address, and the large view."""

from typing import Any

import pytest

from tests.browser.test_report_page import tab_to

pytestmark = pytest.mark.browser

CARDS = "all => all.filter(c => !c.hidden).map(c => ({...c.dataset}))"


def cards(page: Any) -> list[dict[str, str]]:
    return page.eval_on_selector_all("article", CARDS)


def test_filters_work_by_keyboard_and_stay_in_the_address(visit: Any) -> None:
    page = visit("gallery.html")
    everything = len(cards(page))
    tab_to(page, "select[name=explainer]")
    for _ in range(page.locator("select[name=explainer] option").count()):
        if page.locator("select[name=explainer]").input_value() == "grad_cam":
            break
        page.keyboard.press("ArrowDown")  # letters must follow each other within a second
    tab_to(page, "select[name=epsilon]")
    page.keyboard.press("ArrowDown")
    shown = cards(page)
    assert 0 < len(shown) < everything
    assert {(card["explainer"], card["epsilon"]) for card in shown} == {("grad_cam", "0.5/255")}
    assert page.url.endswith("#explainer=grad_cam&epsilon=0.5%2F255")
    assert page.locator("output").inner_text() == f"{len(shown)} of {everything} cards"


def test_an_address_opens_with_its_filters(visit: Any) -> None:
    page = visit("gallery.html", state="#attack=top_k&explainer=gradient&alone=1&bogus=1")
    assert {(c["attack"], c["explainer"]) for c in cards(page)} == {("top_k", "gradient")}
    assert page.locator("select[name=attack]").input_value() == "top_k"
    assert page.locator("input[name=alone]").is_checked()


def test_a_filter_that_fits_nothing_says_so(visit: Any) -> None:
    page = visit("gallery.html", state="#attack=top_k&explainer=smooth_grad&epsilon=2/255")
    assert cards(page) == []
    assert page.get_by_text("No card fits these filters.").is_visible()


def test_pictures_appear_as_they_come_near(visit: Any) -> None:
    page = visit("gallery.html")
    loaded = "all => all.filter(i => i.naturalWidth > 0).length"
    page.wait_for_function("document.querySelector('article img').naturalWidth > 0")
    near = page.eval_on_selector_all("article img", loaded)
    page.locator("article").last.scroll_into_view_if_needed()
    page.wait_for_function(
        "[...document.querySelectorAll('article')].at(-1).querySelector('img').naturalWidth > 0"
    )
    assert near < page.eval_on_selector_all("article img", loaded)


def test_a_picture_opens_large_by_keyboard_and_gives_the_focus_back(visit: Any) -> None:
    page = visit("gallery.html")
    tab_to(page, ".views button")
    page.keyboard.press("Enter")
    words = page.locator("dialog p")
    assert words.inner_text().startswith("picture · gradient, pgd")
    page.keyboard.press("ArrowLeft")
    assert words.inner_text().startswith("map after")
    assert page.locator("dialog img").count() == 2
    sizes = page.eval_on_selector_all("dialog img", "all => all.map(i => i.naturalWidth)")
    assert min(sizes) > 0
    assert page.locator("dialog .frame").bounding_box()["width"] > 400
    page.keyboard.press("Escape")
    assert not page.locator("dialog").is_visible()
    assert (
        page.evaluate("document.activeElement.querySelector('.caption').textContent") == "map after"
    )


def test_the_mouse_opens_and_closes_it_too(visit: Any) -> None:
    page = visit("gallery.html", width=360)
    page.locator(".views button").nth(2).click()
    assert page.locator("dialog p").inner_text().startswith("difference ×")
    page.get_by_role("button", name="Next picture").click()
    assert page.locator("dialog p").inner_text().startswith("map before")
    page.get_by_role("button", name="Close").click()
    assert not page.locator("dialog").is_visible()


def test_maps_alone_hide_the_photograph(visit: Any) -> None:
    page = visit("gallery.html")
    base = page.locator(".frame.positive img").first
    assert base.evaluate("i => getComputedStyle(i).visibility") == "visible"
    page.check("input[name=alone]")
    assert base.evaluate("i => getComputedStyle(i).visibility") == "hidden"
    assert page.url.endswith("#alone=1")


def test_small_pictures_are_crisp(visit: Any) -> None:
    page = visit("gallery.html")
    for selector in (".frame img", ".frame.positive img + img"):
        look = page.locator(selector).first.evaluate("i => getComputedStyle(i).imageRendering")
        assert look == "pixelated"
