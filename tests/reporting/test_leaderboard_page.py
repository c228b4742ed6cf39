"""The leaderboard's page: the cards' numbers, sortable, and harmless whoever sent them."""

import re
from dataclasses import replace
from pathlib import Path

from robustlab import reporting
from robustlab.records.plain import dumps
from robustlab.records.scorecard import Scorecard
from robustlab.reporting.comparison import leading
from robustlab.reporting.wording import number
from tests.reporting import board
from tests.reporting.page import Node, parse
from tests.reporting.scored import metric_of


def test_the_main_table_holds_the_cards_numbers(
    board_page: Node, board_cards: dict[str, Scorecard]
) -> None:
    (table,) = board_page.all("table", "main")
    rows = table.all("tbody")[0].all("tr")
    ranked = [row.all("th")[0].text for row in rows]
    assert ranked == list(reversed(board.MODELS))  # as the fixture's strengths are
    for row in rows:
        card = board_cards[row.all("th")[0].text]
        shown = {c.attributes["data-label"]: c for c in row.all("td")}
        lead = leading(card.strict)
        expected = {
            "Published IN": metric_of(card.published, "top_100"),
            "Published CO": metric_of(card.published, "tau"),
            "Stricter IN": metric_of(lead, "top_100"),
            "Stricter CO": metric_of(lead, "tau"),
        }
        for label, stability in expected.items():
            cell = shown[label]
            assert cell.attributes["data-value"] == str(stability.ones.mean)
            assert cell.text.startswith(number(stability.ones.mean))
            assert f"{number(stability.dropped.mean)} dropping 4" in cell.text
            assert f"random sign {number(stability.random_sign.mean)}" in cell.text
            assert f"[{number(stability.ones.low)}, {number(stability.ones.high)}]" in cell.text


def test_the_picture_that_never_moves_is_there_and_says_why(board_page: Node) -> None:
    (table,) = board_page.all("table", "strict")
    groups = table.all("tbody")
    assert [g.all("tr")[0].text.split()[0] for g in groups] == list(board.EXPLAINERS)
    fixed = groups[-1]
    assert "stability alone proves nothing" in fixed.text
    assert len(fixed.all("tr")) == 1 + len(board.MODELS)
    first = fixed.all("tr")[1].all("td")
    assert first[0].attributes["data-value"] == "1.0"


def test_it_is_sortable_and_a_plain_table_without_a_script(
    board_folder: Path, board_page: Node
) -> None:
    for css in ("main", "strict"):
        (table,) = board_page.all("table", css)
        assert "sortable" in table.attributes["class"]
        (head,) = table.all("tr", "sort-by")
        width = len(head.all("th"))
        for row in table.all("tbody")[0].all("tr"):
            if "group" in row.attributes.get("class", ""):
                continue
            cells = [c for c in row.children if isinstance(c, Node)]
            assert len(cells) == width  # a header's index is its column's
            for th, cell in zip(head.all("th"), cells, strict=True):
                # numbers say what they are, so that "1.000" and "−0.1" do not sort as words
                assert ("num" in th.attributes.get("class", "")) == (
                    "data-value" in cell.attributes
                )
    before_script = (board_folder / "leaderboard.html").read_text().split("<script>")[0]
    assert "<button" not in before_script  # nothing that would do nothing
    assert not re.search(r"\shidden\b", before_script.split("</style>")[1])


def test_nothing_points_outside_and_identifiers_are_unique(board_folder: Path) -> None:
    text = (board_folder / "leaderboard.html").read_text()
    links = re.findall(r"https?://[^\s\"'<]+", text)
    assert all(link.startswith("http://www.w3.org/") for link in links)
    assert not re.search(r"(?:src|href)=\"(?!#|data:)", text)
    assert "default-src &#39;none&#39;; img-src data:;" in text
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    used = set(re.findall(r'(?:url\(#|href="#|aria-(?:labelled|described)by=")([^)"]+)', text))
    assert used <= set(ids)


EVIL = "<script>alert(1)</script>&\"'{{7*7}}|$x_1$"


def test_text_that_is_sent_in_is_harmless(
    board_cards: dict[str, Scorecard], tmp_path: Path
) -> None:
    card = board_cards["natural"]
    told = {"arch": EVIL, "objective": EVIL, "trained_on": EVIL, "command": EVIL, "sha256": EVIL}
    model = replace(card.model, label=EVIL, settings={EVIL: EVIL}, **told)
    scenes = tuple(replace(s, image_id=EVIL, before=EVIL, explainer=EVIL) for s in card.scenes)
    strict = tuple(replace(one, explainer=EVIL + one.explainer) for one in card.strict)
    sent = replace(
        card, model=model, data=EVIL, notes=(EVIL,), experiment=EVIL, strict=strict, scenes=scenes
    )
    (tmp_path / "leaderboard").mkdir()
    (tmp_path / "leaderboard" / sent.file_name).write_text(dumps(sent.to_dict()))
    reporting.write_leaderboard(tmp_path)
    text = (tmp_path / "leaderboard.html").read_text()
    assert "<script>alert" not in text
    assert EVIL in parse(text).text
    assert len(parse(text).all("script")) == 1
    markdown = (tmp_path / "leaderboard.md").read_text()
    assert "<script>" not in markdown
    (row,) = [line for line in markdown.splitlines() if line.startswith("| &lt;script")]
    assert len(re.findall(r"(?<!\\)\|", row)) == 13
