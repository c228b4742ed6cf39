"""Where an installed package keeps a data file, without importing the package."""

from importlib.util import find_spec
from pathlib import Path

from robustlab.core.errors import InvalidInput, MissingDependency

_INSTALL = {"skimage": "scikit-image", "sklearn": "scikit-learn"}


def package_file(package: str, relative: str) -> Path:
    """Path of ``relative`` inside the installed ``package``.

    Importing scikit-image or scikit-learn for one picture costs a second, and scikit-image's
    own reader downloads what it does not find; this does neither.

    Raises:
        MissingDependency: the package is not installed.
        InvalidInput: this version of the package does not ship the file.
    """
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        install = _INSTALL.get(package, package)
        raise MissingDependency(f"{relative} comes with {install}: pip install {install}")
    path = Path(spec.submodule_search_locations[0], relative)
    if not path.is_file():
        raise InvalidInput(package, f"the installed version does not ship {relative}: {path}")
    return path
