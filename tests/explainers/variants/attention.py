"""Battery variants of the attention family, on nets that have what it reads."""

from torch import nn

from robustlab.core.torchvision_ops import import_torchvision
from robustlab.models.abn_cnn import AbnCnnNet
from robustlab.models.cbam_cnn import CbamCnnNet
from robustlab.models.se_cnn import SeCnnNet
from robustlab.models.small_vit import SmallVitNet
from tests.nets import Normalised, seeded


def torchvision_vit() -> nn.Module:
    """Two layers of torchvision's own transformer; its head, made of zeros, gets weights."""
    net = import_torchvision().models.VisionTransformer(
        image_size=12,
        patch_size=4,
        num_layers=2,
        num_heads=2,
        hidden_dim=8,
        mlp_dim=12,
        num_classes=5,
    )
    nn.init.normal_(net.heads.head.weight)
    nn.init.normal_(net.class_token)
    return net


EVERYWHERE = []
NETS = {
    "se": lambda: seeded(lambda: SeCnnNet(3, 5)),
    "cbam": lambda: seeded(lambda: Normalised(CbamCnnNet(3, 5))),
    "abn": lambda: seeded(lambda: AbnCnnNet(3, 5)),
    "small vit": lambda: seeded(lambda: SmallVitNet(3, 5, 12)),
    "torchvision vit": lambda: seeded(torchvision_vit),
}
OPTIONS = [
    ("se", "se_attention", {}),
    ("cbam", "se_attention", {"layer": "net.stage1"}),
    ("cbam", "cbam_attention", {}),
    ("abn", "cbam_attention", {"layer": ""}),
    ("abn", "class_attention", {}),
    ("small vit", "attention_rollout", {}),
    ("small vit", "attention_rollout", {"gradient": True}),
    ("torchvision vit", "attention_rollout", {"head_fusion": "max", "discard_ratio": 0.3}),
    ("torchvision vit", "attention_rollout", {"gradient": True, "score": "prob"}),
    ("torchvision vit", "attention_rollout", {"head_fusion": "min", "pooling": "mean"}),
]
# a count of whole-model passes cannot see a backward pass that ends at the first layer
CLAIMS = {"attention_rollout": {"exact_cost": False}}
REFUSED = [
    ("se_attention", {"layer": 3}, "se_attention.layer", "string"),
    ("attention_rollout", {"discard_ratio": 1}, "attention_rollout.discard_ratio", "below 1"),
    ("attention_rollout", {"discard_ratio": -0.1}, "attention_rollout.discard_ratio", "at least 0"),
    ("attention_rollout", {"head_fusion": "sum"}, "attention_rollout.head_fusion", "'mean'"),
    ("attention_rollout", {"pooling": "last"}, "attention_rollout.pooling", "'auto'"),
    (
        "attention_rollout",
        {"gradient": True, "head_fusion": "max"},
        "attention_rollout.head_fusion",
        "averages over heads",
    ),
    (
        "attention_rollout",
        {"gradient": True, "discard_ratio": 0.5},
        "attention_rollout.discard_ratio",
        "discards nothing",
    ),
]
