"""Battery variants of the cam family."""

EVERYWHERE = [("grad_cam", {})]
OPTIONS = [
    ("resnet", "grad_cam", {"layer": "block1", "score": "prob"}),
    ("resnet", "grad_cam", {"layer": "stem.0", "relu": False}),
]
# a count of whole-model passes cannot see half a pass: Grad-CAM goes back to its layer only
CLAIMS = {"grad_cam": {"exact_cost": False}}
REFUSED = [
    ("grad_cam", {"layer": 3}, "grad_cam.layer", "string"),
]
