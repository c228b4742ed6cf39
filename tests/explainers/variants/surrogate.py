"""Battery variants of the surrogate family."""

from tests.nets import ResNetLike, VGGLike, pictures, seeded


def patches(channels=3):
    """Sixteen squares of one colour each and a little noise: pictures with parts to find."""
    squares = pictures(size=4, channels=channels).repeat_interleave(3, 2).repeat_interleave(3, 3)
    return 0.9 * squares + 0.1 * pictures(channels=channels)


NETS = {
    "patches": lambda: seeded(ResNetLike),
    "grey": lambda: seeded(lambda: VGGLike(channels=1)),
}
IMAGES = {"patches": patches, "grey": lambda: pictures(channels=1)}
GRID = {"superpixels": "grid", "segments": 9}  # few passes
EVERYWHERE = [
    ("lime", {**GRID, "samples": 12}),
    ("kernel_shap", {**GRID, "samples": 20}),
]
SLIC = {"superpixels": "slic", "segments": 9}  # 10 to 13 parts of the patches
OPTIONS = [
    ("resnet", "lime", {**GRID, "samples": 12, "seed": 7, "score": "logit", "alpha": 0.01}),
    ("resnet", "lime", {"superpixels": "quickshift", "samples": 12, "kernel_width": 1.0}),
    ("patches", "lime", {**SLIC, "samples": 14, "baseline": 0.5}),
    ("grey", "lime", {"superpixels": "felzenszwalb", "segments": 9, "samples": 18}),
    ("resnet", "kernel_shap", {**GRID, "segments": 4, "samples": 16, "score": "prob"}),
    ("patches", "kernel_shap", {**SLIC, "samples": 29, "baseline": 0.5}),
    ("grey", "kernel_shap", {**GRID, "segments": 12, "samples": 28, "seed": 7}),
]
REFUSED = [
    (name, {field: value}, f"{name}.{field}", words)
    for name in ("lime", "kernel_shap")
    for field, value, words in (
        ("superpixels", "watershed", "'slic'"),
        ("segments", 1, "at least 2"),
        ("samples", 2, "at least"),
        ("baseline", "blur", "'mean'"),
        ("baseline", float("nan"), "nan"),
    )
] + [
    ("lime", {"kernel_width": 0}, "lime.kernel_width", "above 0"),
    ("lime", {"alpha": 0.0}, "lime.alpha", "above 0"),
    ("kernel_shap", {"kernel_width": 0.25}, "kernel_shap.kernel_width", "no such option"),
]
