"""The user's torch cache, where torchvision and timm leave what they once downloaded."""

from pathlib import Path
from urllib.parse import urlparse

import torch

from robustlab.core.errors import InvalidInput


def cached_file(url: str, *, download: bool) -> Path:
    """Where ``url`` lies in torch's cache (``TORCH_HOME``, else ``~/.cache/torch``).

    Args:
        url: official address of a weights file.
        download: fetch it if it is not there, and check the hash in its name.

    Raises:
        InvalidInput: it is not there and may not be fetched, or fetching failed; says which
            file is expected where.
    """
    folder = Path(torch.hub.get_dir(), "checkpoints")
    path = folder / Path(urlparse(url).path).name
    if path.is_file():
        return path
    remedy = f"put {url} there, or give weights=FILE or weights='none'"
    if not download:
        remedy += ", or allow download=True"
        raise InvalidInput("weights", f"{path.name} is not in {folder}", remedy)
    found = torch.hub.HASH_REGEX.search(path.name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), found.group(1) if found else None)
    except (OSError, RuntimeError) as error:
        raise InvalidInput("download", f"{url} could not be fetched: {error}", remedy) from error
    return path
