"""The leaderboard as Markdown."""

from pathlib import Path

from robustlab.records.scorecard import Scorecard
from robustlab.reporting.wording import number
from tests.reporting import board


def test_markdown_is_a_table(board_folder: Path, board_cards: dict[str, Scorecard]) -> None:
    lines = (board_folder / "leaderboard.md").read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("| Model |"))
    table = lines[start : start + 2 + len(board.MODELS)]
    assert {line.count("|") for line in table} == {13}
    assert set(table[1]) <= set("| :-")
    assert [line.split(" | ")[0][2:] for line in table[2:]] == list(reversed(board.MODELS))
    share = board_cards["natural"].clean
    assert share and f"{number(share.share.mean)} [{number(share.share.low)}" in table[-1]
