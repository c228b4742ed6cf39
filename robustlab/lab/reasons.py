"""What a record says of a failure."""

import traceback

from robustlab.core.errors import RobustlabError


def reason(error: Exception) -> str:
    """A sentence for a mistake; for anything unforeseen, where it happened as well."""
    if isinstance(error, RobustlabError):
        return f"{type(error).__name__}: {error}"
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({where.filename}:{where.lineno} in {where.name})"
