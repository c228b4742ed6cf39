"""Shared by all tests: one thread per process, and oracles that import torchvision can load."""

import torch

from robustlab.core.torchvision_ops import import_torchvision

import_torchvision()
torch.set_num_threads(1)
