"""Any folder of pictures."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from robustlab.core.batch import UNLABELLED
from robustlab.core.errors import InvalidInput
from robustlab.core.files import sha256
from robustlab.data.dataset import Dataset, at_least_one
from robustlab.data.label_file import read_labels
from robustlab.data.picture import SUFFIXES, read_picture, to_square, to_tensor, why_broken

_DEFAULT_LABELS = "labels.csv"


@dataclass(frozen=True)
class ImageFolder:
    """Every picture below ``path``, cut to its central square.

    Attributes:
        path: the folder; searched recursively, hidden files and folders left out.
        size: side of the images in pixels.
        labels: CSV ``file,label`` with paths relative to the folder; when not given,
            ``labels.csv`` in the folder is used if there is one.
        limit: only the first so many; the rest is not even checked.
        check: decode every picture once at loading, so that broken ones are skipped with a
            reason and ids are final; False trusts the folder and starts at once.
    """

    path: str | Path
    size: int = 224
    labels: str | Path | None = None
    limit: int | None = None
    check: bool = True

    own_files: ClassVar[bool] = True  # no name says what is in them

    def __post_init__(self) -> None:
        at_least_one("size", self.size)
        at_least_one("limit", self.limit)

    def load(self) -> Dataset:
        """List (and check) the pictures; ids are their relative paths, sorted.

        Raises:
            InvalidInput: no folder, no picture, only broken ones, or a wrong label file.
        """
        root = Path(self.path).expanduser()
        if not root.is_dir():
            problem = "is not a folder" if root.exists() else "does not exist"
            raise InvalidInput("path", f"{root} {problem}", "give a folder of pictures")
        found = sorted(_pictures(root))
        if not found:
            kinds = ", ".join(sorted(SUFFIXES))
            raise InvalidInput("path", f"no picture in {root}", f"looked for {kinds}")
        labels = self._labels(root, set(found))
        ids, skipped = self._sort_out(root, found)
        if not ids:
            listed = "; ".join(f"{name}: {reason}" for name, reason in skipped)
            raise InvalidInput("path", f"every picture in {root} is broken: {listed}")
        known = tuple(labels.get(name, UNLABELLED) for name in ids)
        return Dataset(
            name="image_folder",
            ids=tuple(ids),
            labels=known,
            names=("",) * len(ids),
            read=lambda i: self._read(root, ids[i]),
            skipped=tuple(skipped),
            # each file once, and only when asked for
            fingerprint=cache(lambda i: f"{known[i]} {_sha256(root, ids[i])}"),
        )

    def _sort_out(self, root: Path, found: list[str]) -> tuple[list[str], list[tuple[str, str]]]:
        """Pictures to use, and those to skip with the reason."""
        good: list[str] = []
        skipped: list[tuple[str, str]] = []
        for name in found:
            if len(good) == self.limit:
                break
            reason = _why_unusable(root, name, decode=self.check)
            if reason:
                skipped.append((name, reason))
            else:
                good.append(name)
        return good, skipped

    def _labels(self, root: Path, pictures: set[str]) -> dict[str, int]:
        if self.labels is not None:
            given = Path(self.labels).expanduser()
            return read_labels(given if given.exists() else root / given, pictures)
        default = root / _DEFAULT_LABELS
        return read_labels(default, pictures) if default.is_file() else {}

    def _read(self, root: Path, name: str) -> Tensor:
        try:
            picture = read_picture(root / name)
        except Exception as error:
            reason = why_broken(root / name, error)
            raise InvalidInput("path", f"{root / name}: {reason}", "check=True skips it") from error
        return to_tensor(to_square(picture, self.size))


def _pictures(root: Path) -> Iterator[str]:
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for name in files:
            path = Path(folder, name)
            if not name.startswith(".") and path.suffix.lower() in SUFFIXES:
                yield path.relative_to(root).as_posix()


def _sha256(root: Path, name: str) -> str:
    try:
        return sha256(root / name)
    except OSError as error:
        raise InvalidInput("path", f"{root / name}: {why_broken(root / name, error)}") from error


def _why_unusable(root: Path, name: str, *, decode: bool) -> str:
    try:
        name.encode()
    except UnicodeEncodeError:  # it would fail much later, when results are written
        return "its name is not valid UTF-8; rename it"
    if not (root / name).is_file():  # reading a pipe would wait for ever
        return "not a regular file"
    if decode:
        try:
            read_picture(root / name, draft=True)
        except Exception as error:
            return why_broken(root / name, error)
    return ""
