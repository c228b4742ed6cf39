"""Which settings of which explainers go through the battery, one file per family.

``EVERYWHERE``: (name, options) for every kind of net, few passes for speed. ``OPTIONS``:
(net, name, options); the nets are those of `tests.explainers.nets` and the family's own
``NETS``, with ``IMAGES`` where the usual pictures do not fit one of them. ``CLAIMS``:
arguments of `check_explainer` by explainer. ``REFUSED``: (name, options, field, words).
"""

import importlib
import pkgutil

FAMILIES = [
    importlib.import_module(f"{__name__}.{file.name}") for file in pkgutil.iter_modules(__path__)
]
