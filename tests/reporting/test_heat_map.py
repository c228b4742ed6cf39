"""The drawing of a transfer matrix: every number, in a colour on which it can be read."""

import re
from dataclasses import replace

import pytest

from robustlab.reporting import palette
from robustlab.reporting.heat_map import STRONGEST, HeatMap
from robustlab.reporting.transfer import Matrix
from robustlab.reporting.wording import number
from tests.reporting.page import Node, parse
from tests.reporting.test_figures import _luminance


def test_colour_runs_from_unmoved_to_chance(small: Matrix) -> None:
    moved = [small.moved(value) for value in (1.0, 0.55, 0.1, 0.02, None)]
    assert moved == [pytest.approx(0), pytest.approx(0.5), pytest.approx(1), 1.0, None]


def test_the_drawing_holds_every_number_in_its_colour(small: Matrix) -> None:
    drawing = HeatMap("t", small).draw(4.5, "wide")
    texts = re.findall(r"<text[^>]*>([^<]+)</text>", drawing)
    cells = [text for text in texts if re.fullmatch(r"[\d.]+|–", text)]
    assert cells == [number(v) for _, line in small.lines for v in line]
    strong = [
        float(v)
        for v in re.findall(r"fill: var\(--series-1\); (?:fill-)?opacity: ([\d.]+)", drawing)
    ]
    expected = [
        STRONGEST * small.moved(v) for _, line in small.lines for v in line if v is not None
    ]  # type: ignore[operator]
    assert strong == pytest.approx(expected, abs=1e-5)
    assert not any(ink.light in drawing for ink in palette.INKS)


def test_the_drawing_has_a_title_and_says_every_number(small: Matrix) -> None:
    head = parse(HeatMap("t", small).draw(4.5, "wide")).all("svg")[0]
    (title,) = [c for c in head.children if isinstance(c, Node) and c.tag == "title"]
    (desc,) = [c for c in head.children if isinstance(c, Node) and c.tag == "desc"]
    assert head.attributes["aria-labelledby"] == title.attributes["id"]
    assert head.attributes["aria-describedby"] == desc.attributes["id"]
    assert title.text == "top_k on small_cnn, ε = 2/255: transfer between explainers"
    assert "made against a: a 0.200, b 0.700, c 0.900" in desc.text
    assert "random sign: a 0.900, b 0.950, c –" in desc.text


@pytest.mark.parametrize("paper", ["light", "dark"])
def test_numbers_stay_readable_on_the_strongest_colour(paper: str) -> None:
    """WCAG AA: 4.5 for text, here on a blend of the series' colour and the paper."""
    over, under = (getattr(i, paper) for i in (palette.series(0), palette.PAPER))
    mixed = [
        round(STRONGEST * int(over[i : i + 2], 16) + (1 - STRONGEST) * int(under[i : i + 2], 16))
        for i in (1, 3, 5)
    ]
    blend = "#" + "".join(f"{part:02x}" for part in mixed)
    ends = sorted(_luminance(colour) for colour in (blend, getattr(palette.TEXT, paper)))
    assert (ends[1] + 0.05) / (ends[0] + 0.05) > 4.5


def test_drawing_again_gives_the_same_bytes(small: Matrix) -> None:
    assert HeatMap("t", small).draw(4.5, "wide") == HeatMap("t", small).draw(4.5, "wide")


def test_many_columns_make_it_wider_and_not_smaller(small: Matrix) -> None:
    names = tuple(f"a_rather_long_name_{i}" for i in range(30))
    many = replace(small, columns=names, rows=names[:1], values=((0.5,) * 30,), control=())
    for kind in ("wide", "narrow"):
        width = float(re.search(r' width="([\d.]+)"', HeatMap("t", many).draw(3.45, kind))[1])  # type: ignore[index]
        assert width >= 30 * 0.56 * 96
