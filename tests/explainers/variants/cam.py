"""Battery variants of the cam family."""

EVERYWHERE = [
    ("grad_cam", {}),
    ("grad_cam_pp", {}),
    ("smooth_grad_cam_pp", {"samples": 2}),
    ("score_cam", {"relu": False}),  # layers without a ReLU may have no positive part
    ("layer_cam", {}),
    ("guided_grad_cam", {}),
]
OPTIONS = [
    # only these nets end with a mean and a matrix
    *((net, "cam", {}) for net in ("softplus", "convolutions", "resnet")),
    ("resnet", "grad_cam", {"layer": "block1", "score": "prob"}),
    ("resnet", "grad_cam", {"layer": "stem.0", "relu": False}),
    ("resnet", "grad_cam_pp", {"layer": "block1", "score": "prob", "epsilon": 1e-6}),
    ("resnet", "smooth_grad_cam_pp", {"samples": 3, "layer": "block1", "relu": False, "seed": 7}),
    ("resnet", "score_cam", {"layer": "block1", "channels": 4, "score": "prob"}),
    ("vgg", "score_cam", {}),
    (
        "resnet",
        "score_cam",
        {"order": "normalise_then_upsample", "weighting": "increase", "baseline": 0.5},
    ),
    ("resnet", "layer_cam", {"layer": "stem", "relu": False, "score": "margin"}),
    ("resnet", "guided_grad_cam", {"layer": "block1", "score": "prob"}),
]
# a count of whole-model passes cannot see half a pass: these go back to their layer only
CLAIMS = {
    name: {"exact_cost": False}
    for name in ("grad_cam", "grad_cam_pp", "smooth_grad_cam_pp", "layer_cam", "guided_grad_cam")
}
REFUSED = [
    ("grad_cam", {"layer": 3}, "grad_cam.layer", "string"),
    ("cam", {"layer": "block2"}, "cam.layer", "no such option"),
    ("grad_cam_pp", {"epsilon": -1e-9}, "grad_cam_pp.epsilon", "at least 0"),
    ("smooth_grad_cam_pp", {"samples": 0}, "smooth_grad_cam_pp.samples", "at least 1"),
    ("smooth_grad_cam_pp", {"sigma": -0.1}, "smooth_grad_cam_pp.sigma", "at least 0"),
    ("smooth_grad_cam_pp", {"epsilon": -1.0}, "smooth_grad_cam_pp.epsilon", "at least 0"),
    ("score_cam", {"channels": 0}, "score_cam.channels", "at least 1"),
    ("score_cam", {"order": "normalise"}, "score_cam.order", "'upsample_then_normalise'"),
    ("score_cam", {"weighting": "relu"}, "score_cam.weighting", "'softmax'"),
]
