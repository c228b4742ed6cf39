"""Class indices from a CSV file ``file,label``."""

import csv
from collections.abc import Container
from pathlib import Path, PurePosixPath

from robustlab.core.batch import UNLABELLED
from robustlab.core.errors import InvalidInput

_COLUMNS = "file,label"


def read_labels(path: Path, pictures: Container[str]) -> dict[str, int]:
    """Label of each picture that the file names.

    Args:
        path: CSV with a header that has the columns ``file`` and ``label``.
        pictures: the ids that rows may name.

    Raises:
        InvalidInput: the file is missing, is no such CSV, names an unknown picture or one
            picture twice, or has a label that is no class index; with the line.
    """
    labels: dict[str, int] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            rows = csv.DictReader(lines)
            if not {"file", "label"} <= set(rows.fieldnames or ()):
                raise InvalidInput("labels", f"{path}: no header {_COLUMNS!r} on its first line")
            for row in rows:
                picture, label = _entry(row, where := f"{path} line {rows.line_num}")
                if picture not in pictures:
                    raise InvalidInput("labels", f"{where}: no picture {picture!r} in the folder")
                if picture in labels:
                    raise InvalidInput("labels", f"{where}: {picture!r} is labelled twice")
                labels[picture] = label
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InvalidInput("labels", f"{path} cannot be read: {error}") from None
    return labels


def _entry(row: dict[str, str | None], where: str) -> tuple[str, int]:
    picture, text = row["file"], row["label"]
    try:
        label = int(text or "")
    except ValueError:
        raise InvalidInput("labels", f"{where}: {text!r} is not a whole number") from None
    if label < UNLABELLED:
        raise InvalidInput("labels", f"{where}: label {label}", "use -1 where unknown")
    return PurePosixPath(picture or "").as_posix(), label
