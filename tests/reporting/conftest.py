"""One results folder with all its pages, shared by the tests that only read it."""

from pathlib import Path

import pytest

from robustlab import reporting
from robustlab.reporting import Run
from tests.reporting import fixture


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run")
    fixture.build(path)
    reporting.write_all(path)
    return path


@pytest.fixture(scope="session")
def run(folder: Path) -> Run:
    return reporting.load(folder)
