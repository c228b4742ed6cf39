"""Two results folders with all their pages, shared by the tests that only read them."""

from pathlib import Path

import pytest

from robustlab import reporting
from robustlab.reporting import Run
from robustlab.reporting.transfer import Matrix
from tests.reporting import fixture, richer
from tests.reporting.page import Node, parse


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
