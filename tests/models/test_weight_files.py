"""Weights from disk: what fits is loaded, everything else is refused with the reason."""

import copy
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from robustlab.core.errors import InvalidInput
from robustlab.core.files import sha256
from robustlab.models.weight_files import (
    load_weights,
    read_weights,
    save_weights,
    weights_revision,
)


def net():
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))


def refused(path, words, network=None):
    """``path`` is refused, and what was in the network is still there."""
    network = net() if network is None else network
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(InvalidInput, match=words):
        load_weights(network, path)
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())


@pytest.mark.parametrize("suffix", ["safetensors", "pth", "pt", "bin"])
def test_round_trip(tmp_path, suffix):
    source, target, path = net(), net(), tmp_path / f"w.{suffix}"
    source(torch.rand(2, 1, 4, 4))  # moves the running statistics away from their start
    if suffix == "safetensors":
        save_weights(source, path)
    else:
        torch.save(source.state_dict(), path)
    load_weights(target, path)
    for name, tensor in source.state_dict().items():
        assert torch.equal(tensor, target.state_dict()[name]), name


def test_a_checkpoint_that_wraps_its_state_dict(tmp_path):
    source, target = net(), net()
    torch.save({"epoch": 3, "state_dict": source.state_dict()}, tmp_path / "w.pth")
    load_weights(target, tmp_path / "w.pth")
    assert torch.equal(source[0].weight, target[0].weight)


def test_old_files_without_batch_counters(tmp_path):
    state = {k: v for k, v in net().state_dict().items() if "num_batches" not in k}
    torch.save(state, tmp_path / "w.pth")
    load_weights(net(), tmp_path / "w.pth")


@pytest.mark.parametrize("suffix", ["safetensors", "pth", "pt", "bin"])
def test_a_users_file_has_the_revision_of_its_contents(tmp_path, suffix):
    path = tmp_path / f"w.{suffix}"
    path.write_bytes(b"one")
    first = weights_revision(path)
    assert first == weights_revision(str(path)) == sha256(path)
    path.write_bytes(b"two")
    assert weights_revision(path) not in ("", first)


def test_weights_that_are_no_file_of_the_users_have_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # a file of that name is not what these options mean
    for name in ("none", "mnist_5k", "IMAGENET1K_V1"):
        Path(name).write_bytes(b"mine")
        assert weights_revision(name) == ""
    Path("folder.pth").mkdir()
    too_long, homeless = "x" * 9999 + ".pt", "~nobody at all/w.pth"
    for odd in (None, 3, "", "missing.pth", "folder.pth", too_long, homeless):
        assert weights_revision(odd) == ""


class RunsCode:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path, zipped):
    marker = tmp_path / "ran"
    content = {"0.weight": RunsCode(marker)}
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    refused(tmp_path / "w.pth", r"would run code when read: .*; save its state_dict\(\) as safe")
    assert not marker.exists()


def test_a_whole_pickled_model_is_refused(tmp_path):
    torch.save(net(), tmp_path / "model.pth")
    refused(tmp_path / "model.pth", "would run code when read")


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
@pytest.mark.parametrize("content", [b"", b"no weights at all", None])
def test_damaged_files(tmp_path, suffix, content):
    path = tmp_path / f"w.{suffix}"
    if content is None:  # a whole file cut in half
        save_weights(net(), path) if suffix == "safetensors" else torch.save(
            net().state_dict(), path
        )
        content = path.read_bytes()[: path.stat().st_size // 2]
    path.write_bytes(content)
    refused(path, rf"w\.{suffix} is damaged")


def test_no_file_and_unknown_kind(tmp_path):
    refused(tmp_path / "none.pth", r"no file .*none\.pth")
    (tmp_path / "w.onnx").write_bytes(b"x")
    refused(tmp_path / "w.onnx", r"unknown kind of file; known: \.safetensors, \.pth")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([torch.zeros(1)], "holds list, expected named tensors"),
        (torch.zeros(1), "holds Tensor"),
        ({}, "holds dict, expected named tensors"),
        ({"epoch": 3}, "entry 'epoch' is a int, not a tensor"),
        (OrderedDict({1: torch.zeros(1)}), "entry 1 is a Tensor"),
    ],
)
def test_files_of_something_else(tmp_path, content, words):
    torch.save(content, tmp_path / "w.pth")
    refused(tmp_path / "w.pth", words)


def changed(**changes):
    state = net().state_dict()
    state.update({k.replace("__", "."): v for k, v in changes.items()})
    return {k: v for k, v in state.items() if v is not None}


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (changed(**{"0__weight": None}), r"another network: 1 missing \(0\.weight\)"),
        (changed(fc__bias=torch.zeros(2)), r"another network: 1 foreign \(fc\.bias\)"),
        (
            {f"module.{k}": v for k, v in net().state_dict().items()},
            r"6 missing \(0\.weight, 0\.bias, 1\.weight, \.\.\.\); 7 foreign \(module\.0\.bias",
        ),
        (
            changed(**{"0__weight": torch.zeros(2, 3, 3, 3)}),
            r"\(2, 3, 3, 3\), the network has \(2, 1",
        ),
        (changed(**{"0__bias": torch.zeros(2).int()}), r"0\.bias is torch\.int32, the network has"),
        (changed(**{"0__bias": torch.tensor([0, float("nan")])}), r"0\.bias has NaN or infinite"),
        (changed(**{"1__running_var": torch.tensor([1, float("inf")])}), "has NaN or infinite"),
    ],
)
@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_weights_that_do_not_fit(tmp_path, state, words, suffix):
    path = tmp_path / f"w.{suffix}"
    save_file(state, path) if suffix == "safetensors" else torch.save(state, path)
    refused(path, words)


def test_saved_weights_own_their_memory(tmp_path):
    shared = nn.Linear(4, 4)
    tied = nn.Sequential(shared, nn.ReLU(), shared)
    save_weights(tied, tmp_path / "w.safetensors")  # plain safetensors refuses shared tensors
    assert set(read_weights(tmp_path / "w.safetensors")) == set(tied.state_dict())
