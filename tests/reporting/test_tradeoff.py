"""The trade-off figure: names that do not run into each other, in few letters."""

import re

import numpy as np

from robustlab.reporting.board_figures import without_prefix
from robustlab.reporting.tradeoff_plot import Point, TradeoffPlot, wrapped
from tests.reporting.scored import around


def test_labels_of_the_trade_off_do_not_meet_however_close_the_points() -> None:
    points = [Point(f"a_model_{i}_with_a_name", i, around(0.9), around(0.5, 0.1)) for i in range(9)]
    for width, kind in ((5.6, "wide"), (3.45, "narrow")):
        plot = TradeoffPlot("t", "title", "IN", points, chance=0.1, still=1.0)
        text = plot.draw(width, kind)
        found = re.findall(r'translate\(([\d.]+) ([\d.]+)\)">([^<]*)</text>', text)
        found += re.findall(r'<text [^>]*\bx="([\d.]+)" y="([\d.]+)"[^>]*>([^<]*)</text>', text)
        (edge,) = {x for x, _, words in found if words.startswith("a_model")}
        lines = [(float(y), words) for x, y, words in found if x == edge]
        assert len([w for _, w in lines if w.startswith("a_model")]) == 9
        heights = sorted(y for y, _ in lines)
        assert min(np.diff(heights)) > 9  # points, the size of its letters


def test_names_lose_what_all_begin_with_and_break_at_signs() -> None:
    assert without_prefix(["zoo:mnist_art", "zoo:mnist_natural"]) == ["art", "natural"]
    assert without_prefix(["art", "artful"]) == ["art", "artful"]
    assert without_prefix(["mnist_art"]) == ["mnist_art"]
    assert without_prefix(["a_b", "a_b"]) == ["b", "b"]
    assert wrapped("rar_sum_norm", 8) == "rar_sum_\nnorm"
    assert wrapped("one two", 20) == "one two"
    assert wrapped("x" * 30, 10) == "x" * 9 + "…"
