"""Writing files so that a reader sees the old one or the new one, never half of one.

The new content goes to a temporary file in the same folder, is flushed to the disk and
then renamed over the old one, which file systems do in one step. A process that is killed
on the way leaves only its temporary file; its name says whose it was.
"""

import os
import secrets
import socket
import time
from hashlib import sha256
from pathlib import Path
from typing import Final

SUFFIX: Final = ".tmp"
STALE_AFTER: Final = 3600.0  # seconds; a write takes milliseconds


def atomic_write(path: Path, content: bytes | str, *, replace: bool = True) -> None:
    """Write ``content`` to ``path`` in one step; text becomes UTF-8 as it stands.

    Args:
        path: its folder must exist.
        content: the whole new content.
        replace: where False, an existing file wins.

    Raises:
        FileExistsError: ``replace`` is False and another writer was first.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{_owner()}-{os.getpid()}-{secrets.token_hex(4)}")
    temporary = temporary.with_name(temporary.name + SUFFIX)
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            temporary.replace(path)
        else:
            _rename_if_free(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> list[Path]:
    """Delete temporary files of writers that no longer run; returns what it deleted."""
    removed = []
    for path in sorted(folder.glob(f".*{SUFFIX}")):
        if _is_stale(path):
            path.unlink(missing_ok=True)
            removed.append(path)
    return removed


def _rename_if_free(temporary: Path, path: Path) -> None:
    try:
        path.hardlink_to(temporary)  # unlike a rename, it fails where the name is taken
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if path.exists():
            raise FileExistsError(path) from None
        temporary.replace(path)


def _is_stale(path: Path) -> bool:
    try:
        age = time.time() - path.stat().st_mtime
        owner, pid, _ = path.name.removesuffix(SUFFIX).rpartition(".")[2].split("-")
        return age > STALE_AFTER or (owner == _owner() and not _is_running(int(pid)))
    except (FileNotFoundError, ValueError):  # just finished, or not one of ours
        return False


def _owner() -> str:
    """This machine: process numbers mean nothing on another one."""
    return sha256(socket.gethostname().encode()).hexdigest()[:8]


def _is_running(pid: int) -> bool:
    if os.name != "posix":  # signal 0 is harmless on POSIX only
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    """Has it died, and its parent not asked yet how? It keeps its number and never writes again."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:  # gone in the meantime, or no Linux
        return False
