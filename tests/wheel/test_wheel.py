"""The wheel holds the two packages and nothing else, and works away from the checkout."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytest.importorskip("hatchling", reason="the wheel is built by `make check`")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (built,) = folder.glob("*.whl")
    return built


def test_top_level_is_exactly_two_packages(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    top = {name.split("/")[0] for name in names}
    (info,) = (name for name in top if name.endswith(".dist-info"))
    assert top == {"robustlab", "attacks", info}


def test_nothing_that_the_packages_need_is_missing(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for package in ("robustlab", "attacks"):
        for path in (ROOT / package).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert str(path.relative_to(ROOT)) in names
    for path in (ROOT / "experiments").glob("*.yaml"):
        assert f"robustlab/_experiments/{path.name}" in names


def test_it_works_away_from_the_checkout(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    code = (
        f"import sys; sys.path.insert(0, {str(site)!r});"
        "from robustlab.lab.find import experiments;"
        "paths = experiments();"
        "assert 'quickstart' in paths, paths;"
        "assert all('_experiments' in str(p) for p in paths.values()), paths;"
        "import attacks; print(attacks.__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(site))
