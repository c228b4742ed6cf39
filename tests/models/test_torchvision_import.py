"""The import trap, in fresh processes: with the installed torchvision and with stand-ins."""

import subprocess
import sys

import pytest

from robustlab.core import torchvision_ops

# Fails as a CUDA build does beside a CPU-only torch: no operator was ever declared.
MISMATCHED = """
import torch
for name in ("nms", "qnms"):
    torch.library.register_fake(f"torchvision::{name}")(lambda *_: None)
"""
# Declares its operators itself; a second declaration would be an error.
HEALTHY = """
import torch
library = torch.library.Library("torchvision", "FRAGMENT")
for name in ("nms", "qnms"):
    library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""


def run(script, folder, torchvision=None):
    if torchvision is not None:
        (folder / "torchvision").mkdir()
        (folder / "torchvision" / "__init__.py").write_text(torchvision)
    script = f"import sys; sys.path.insert(0, {str(folder)!r})\n{script}"
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)


USE = """
import gc, torch
from robustlab.core.torchvision_ops import import_torchvision
first = import_torchvision()
second = import_torchvision()
import torchvision
assert first is second is torchvision
gc.collect()
assert torch.ops.torchvision.nms.default and torch.ops.torchvision.qnms.default
"""


def test_the_installed_torchvision_works(tmp_path):
    more = "torchvision.models.resnet18; torchvision.datasets.MNIST; torchvision.transforms.Resize"
    done = run(USE + more, tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_mismatched_build_works_also_after_a_plain_import_failed(tmp_path):
    trap = """
try:
    import torchvision
except RuntimeError as error:
    assert "operator torchvision::nms does not exist" in str(error)
else:
    raise AssertionError("the stand-in does not fail")
"""
    done = run(trap + USE, tmp_path, MISMATCHED)
    assert done.returncode == 0, done.stderr


def test_a_healthy_build_is_not_touched(tmp_path):
    untouched = "from robustlab.core import torchvision_ops as o; assert o._library is None"
    done = run(USE + untouched, tmp_path, HEALTHY)
    assert done.returncode == 0, done.stderr


def test_any_other_failure_is_passed_on_and_not_tried_again(monkeypatch):
    tried = []

    def fail(name):
        tried.append(name)
        raise RuntimeError("something else")

    monkeypatch.setattr(torchvision_ops.importlib, "import_module", fail)
    with pytest.raises(RuntimeError, match="something else"):
        torchvision_ops.import_torchvision()
    assert tried == ["torchvision"]
