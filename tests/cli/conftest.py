"""One finished run, made by the command line, for the tests that only read it."""

from pathlib import Path

import pytest

from tests.cli.command import Said, robustlab
from tests.lab import tiny


@pytest.fixture(scope="session")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Said]:
    """(folder, what was said)."""
    place = tmp_path_factory.mktemp("cli")
    path = tiny.write(place / "tiny.yaml")
    said = robustlab("run", path, "--out", place / "out", "--workers", 1)
    return place / "out", said
