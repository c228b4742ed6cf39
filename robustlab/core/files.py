"""What a file holds, in one line: for cards and for keys that must change with it."""

import hashlib
from pathlib import Path


def sha256(path: Path) -> str:
    """Hex digest of a file, read piece by piece."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
