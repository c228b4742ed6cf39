"""One finished run of the tiny experiment, shared by the tests that only read it."""

import shutil
from pathlib import Path

import pytest

from robustlab.lab.run import run_experiment
from tests.lab import tiny


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read only; take `again` to change it."""
    folder = tmp_path_factory.mktemp("finished")
    outcome = run_experiment(tiny.spec(), folder, workers=1)
    assert (outcome.cells, outcome.resumed, outcome.crashed) == (tiny.CELLS, 0, ())
    return folder


@pytest.fixture
def again(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, free to be damaged."""
    return Path(shutil.copytree(finished, tmp_path / "again"))
