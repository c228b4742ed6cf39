"""Any classifier of timm, which is an optional package, with weights from the disk."""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import nn

from robustlab.core.errors import InvalidInput, MissingDependency
from robustlab.core.torchvision_ops import import_torchvision
from robustlab.models import imagenet
from robustlab.models.arch_names import check_arch
from robustlab.models.classifier import Classifier, at_least
from robustlab.models.seeding import seeded
from robustlab.models.torch_cache import cached_file
from robustlab.models.weight_files import load_weights, own_file, read_weights

_HUB_FILES = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class TimmModel:
    """Any image classifier of timm: ``timm:resnet18.a1_in1k``.

    Attributes:
        arch: its name there, with or without the tag of its weights
            (``resnet18`` or ``resnet18.a1_in1k``); the part after the colon.
        weights: None for its pretrained weights in the user's cache, a .safetensors or .pth
            file, or "none" (random).
        seed: of random weights.
        classes: number of logits of "none" or of a file; timm's own if not given.
        download: fetch pretrained weights that are not in the cache.
    """

    arch: str
    weights: str | Path | None = None
    seed: int = 0
    classes: int | None = None
    download: bool = False

    def __post_init__(self) -> None:
        if self.classes is not None:
            at_least("classes", self.classes, 2)

    def load(self, name: str) -> Classifier:
        """Build it with its weights; normalisation and size are those timm states.

        Raises:
            MissingDependency: timm is not installed.
            InvalidInput: unknown architecture or tag, or weights that are missing, unsafe,
                broken or made for another network.
        """
        timm = _timm()
        check_arch("timm", self.arch.partition(".")[0], timm.list_models())
        with seeded(self.seed):
            net = self._pretrained(timm) if self.weights is None else self._own(timm)
        config = net.pretrained_cfg
        classes = int(net.num_classes)
        return Classifier(
            net,
            config["mean"],
            config["std"],
            imagenet.class_names() if classes == 1000 else classes,
            input_size=tuple(config["input_size"]),
            fixed_size=bool(config.get("fixed_input_size", False)),
            name=name,
        ).eval()

    def _pretrained(self, timm: Any) -> Any:
        try:
            config = timm.get_pretrained_cfg(self.arch)
        except RuntimeError as error:  # an unknown tag
            raise InvalidInput("arch", f"timm: {error}") from None
        if config is None or not config.has_weights:
            raise InvalidInput("weights", f"timm has no pretrained weights for {self.arch}")
        if self.classes not in (None, config.num_classes):
            problem = f"the pretrained weights have {config.num_classes} classes"
            raise InvalidInput("classes", problem, "give weights=FILE or weights='none'")
        state = read_weights(_cached(config, download=self.download))
        return self._create(timm, pretrained=True, pretrained_cfg_overlay={"state_dict": state})

    def _own(self, timm: Any) -> Any:
        path = None if self.weights == "none" else own_file(str(self.weights), "'none'")
        options = {} if self.classes is None else {"num_classes": self.classes}
        net = self._create(timm, pretrained=False, **options)
        if path:
            load_weights(net, path)
        return net

    def _create(self, timm: Any, **options: Any) -> nn.Module:
        try:
            net: nn.Module = timm.create_model(self.arch, **options)
        except RuntimeError as error:
            raise InvalidInput("weights", f"timm: {str(error)[:300]}") from None
        return net


def _timm() -> Any:
    import_torchvision()  # timm imports it and would meet the same trap
    try:
        return import_module("timm")
    except ModuleNotFoundError:
        raise MissingDependency("timm:NAME needs: pip install 'robustlab[timm]'") from None


def _cached(config: Any, *, download: bool) -> Path:
    """The weights file in the cache that timm itself would use."""
    if not config.hf_hub_id:
        return cached_file(config.url, download=download)
    hub = import_module("huggingface_hub")
    names = (config.hf_hub_filename,) if config.hf_hub_filename else _HUB_FILES
    for file in names:
        found = hub.try_to_load_from_cache(config.hf_hub_id, file)
        if isinstance(found, str):
            return Path(found)
    remedy = "copy that cache folder from another machine, or give weights=FILE or weights='none'"
    if not download:
        problem = f"{names[0]} of {config.hf_hub_id} is not in {hub.constants.HF_HUB_CACHE}"
        raise InvalidInput("weights", problem, f"{remedy}, or allow download=True")
    try:
        return Path(hub.hf_hub_download(config.hf_hub_id, names[0]))
    except Exception as error:  # the hub's and the network's errors share no base
        problem = f"{names[0]} of {config.hf_hub_id} could not be fetched: {error}"
        raise InvalidInput("download", problem, remedy) from error
