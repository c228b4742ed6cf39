"""Any ImageNet architecture of torchvision, with weights from the disk."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from robustlab.core.errors import InvalidInput
from robustlab.core.torchvision_ops import import_torchvision
from robustlab.models import imagenet
from robustlab.models.arch_names import check_arch
from robustlab.models.classifier import Classifier, at_least
from robustlab.models.seeding import seeded
from robustlab.models.torch_cache import cached_file
from robustlab.models.weight_files import load_weights, own_file, read_weights

# Their official weights were ported from TensorFlow, whose normalisation the network then
# applies by itself; torchvision switches that on only when it loads the weights itself.
_PORTED = ("googlenet", "inception_v3")
_FIXED_SIZE = ("vit_", "maxvit_")


def torchvision_archs() -> list[str]:
    """Names of its image classifiers."""
    models = import_torchvision().models
    return list(models.list_models(module=models))


@dataclass(frozen=True)
class TorchvisionModel:
    """Any image classifier of torchvision: ``torchvision:resnet50``.

    Attributes:
        arch: its name there; the part after the colon.
        weights: None for the default weights in the user's torch cache, one of torchvision's
            names for them (IMAGENET1K_V1), a .safetensors or .pth file, or "none" (random).
        seed: of random weights.
        classes: number of logits of "none" or of a file; 1000 if not given.
        download: fetch official weights that are not in the cache.
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
        """Build it with its weights; normalisation and size are those of its weights.

        Raises:
            InvalidInput: unknown architecture or weights, or weights that are missing,
                unsafe, broken or made for another network.
        """
        models = import_torchvision().models
        check_arch("torchvision.models", self.arch, torchvision_archs())
        members = {member.name: member for member in models.get_model_weights(self.arch)}
        official = members.get(str(self.weights))
        if self.weights is None:
            official = models.get_model_weights(self.arch).DEFAULT
        with seeded(self.seed):
            if official is not None:
                net = self._official(models, official)
            else:
                net = self._own(models, members)
        preset = (official or models.get_model_weights(self.arch).DEFAULT).transforms()
        side = getattr(net, "image_size", preset.crop_size[0])
        return Classifier(
            net,
            preset.mean,
            preset.std,
            self._class_names(),
            input_size=(3, side, side),
            fixed_size=self.arch.startswith(_FIXED_SIZE),
            name=name,
        ).eval()

    def _official(self, models: Any, member: Any) -> nn.Module:
        if self.classes not in (None, 1000):
            problem = f"the official weights have 1000 classes, not {self.classes}"
            raise InvalidInput("classes", problem, "give weights=FILE or weights='none'")
        path = cached_file(member.url, download=self.download)
        read_weights(path)  # refuses a damaged or unsafe file before torchvision reads it
        try:
            return models.get_model(self.arch, weights=member, progress=False)
        except RuntimeError as error:
            reason = str(error)[:300]  # torch lists every key that differs
            raise InvalidInput("weights", f"{path} does not fit {self.arch}: {reason}") from None

    def _own(self, models: Any, members: dict[str, Any]) -> nn.Module:
        weights = str(self.weights)
        known = f"known: none, {', '.join(members)}, or a file"
        path = None if weights == "none" else own_file(weights, "known", known)
        options: dict[str, Any] = {"num_classes": self.classes or 1000}
        if (
            self.arch in _PORTED
            and path
            and path.name in {Path(m.url).name for m in members.values()}
        ):
            options["transform_input"] = True
        net: nn.Module = models.get_model(self.arch, weights=None, **options)
        if path:
            load_weights(net, path)
        return net

    def _class_names(self) -> tuple[str, ...] | int:
        return imagenet.class_names() if self.classes in (None, 1000) else self.classes
