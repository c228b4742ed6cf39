"""Is this installation sound? Each check is a sentence and a verdict."""

import importlib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

CORE = ("torch", "torchvision", "numpy", "scipy", "foolbox", "captum", "pydantic")


def checks() -> list[tuple[bool, str, str]]:
    """(sound?, what was checked, what was found) for each check."""
    return [*_packages(), _attacks(), _torchvision(), _devices(), _experiments()]


def _packages() -> list[tuple[bool, str, str]]:
    found = []
    for name in CORE:
        try:
            found.append((True, name, version(name)))
        except PackageNotFoundError:
            # captum is a test oracle only
            found.append((name == "captum", name, "not installed"))
    return found


def _attacks() -> tuple[bool, str, str]:
    """`attacks` is a generic name: another distribution may have taken it."""
    module = importlib.import_module("attacks")
    ours = Path(importlib.import_module("robustlab").__file__ or "").parents[1]
    where = Path(module.__file__ or "").resolve()
    return ours.resolve() in where.parents, "the package `attacks` is robustlab's", str(where)


def _torchvision() -> tuple[bool, str, str]:
    from robustlab.core.torchvision_ops import import_torchvision

    try:
        return True, "torchvision imports", str(import_torchvision().__version__)
    except Exception as error:  # a broken build can fail in any way
        return False, "torchvision imports", f"{type(error).__name__}: {error}"


def _devices() -> tuple[bool, str, str]:
    import torch

    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return True, "devices", ", ".join(["cpu", *names])


def _experiments() -> tuple[bool, str, str]:
    from robustlab.lab.find import experiments

    names = list(experiments())
    return bool(names), "experiments are found", ", ".join(names) or "none"
