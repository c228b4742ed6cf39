"""Results folders with all their pages, shared by the tests that only read them."""

import json
from pathlib import Path
from typing import Any

import pytest

from robustlab import reporting
from robustlab.records.scorecard import Scorecard
from robustlab.reporting import Run
from robustlab.reporting.transfer import Matrix
from tests.reporting import board, fixture, richer
from tests.reporting.page import Node, parse
from tests.reporting.scored import read_cards


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run")
    fixture.build(path)
    reporting.write_all(path)
    return path


@pytest.fixture(scope="session")
def run(folder: Path) -> Run:
    return reporting.load(folder)


@pytest.fixture(scope="session")
def rich_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rich")
    richer.build(path)
    reporting.write_all(path)
    return path


@pytest.fixture(scope="session")
def rich(rich_folder: Path) -> Run:
    return reporting.load(rich_folder)


@pytest.fixture(scope="session")
def rich_page(rich_folder: Path) -> Node:
    return parse((rich_folder / "report.html").read_text())


@pytest.fixture(scope="session")
def board_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("board")
    board.build(path)
    reporting.write_leaderboard(path)
    return path


@pytest.fixture(scope="session")
def board_cards(board_folder: Path) -> dict[str, Scorecard]:
    return {card.model.label: card for card in read_cards(board_folder)}


@pytest.fixture(scope="session")
def board_cells(board_folder: Path) -> list[dict[str, Any]]:
    """The records as their files hold them."""
    files = sorted((board_folder / "cells").glob("*.json"))
    return [json.loads(path.read_text()) for path in files]


@pytest.fixture(scope="session")
def board_page(board_folder: Path) -> Node:
    return parse((board_folder / "leaderboard.html").read_text())


@pytest.fixture
def small(rich: Run) -> Matrix:
    """A transfer matrix with gaps."""
    return Matrix(
        between="explainers",
        attack="top_k",
        norm="linf",
        epsilon=2 / 255,
        on="small_cnn",
        metric="top_k_intersection",
        info=rich.manifest.metrics["top_k_intersection"],
        rows=("a", "b"),
        columns=("a", "b", "c"),
        values=((0.2, 0.7, 0.9), (None, None, 0.5)),
        control=(0.9, 0.95, None),
        chance=0.1,
    )
