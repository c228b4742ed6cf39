"""Battery variants of the activation family."""

EVERYWHERE = [("activation_maximization", {"steps": 2})]
# layers are last ones: the battery looks for exceptions from there. Others: test_activation
OPTIONS = [
    (
        "resnet",
        "activation_maximization",
        {"steps": 3, "rule": "plain", "rate": 0.1, "jitter": 3, "box": False, "score": "prob"},
    ),
    (
        "resnet",
        "activation_maximization",
        {"steps": 2, "layer": "fc", "channel": 1, "seed": 7, "noise": 0.3, "tv": 0.0},
    ),
    ("digits", "dgn_am", {"steps": 2}),
    ("digits", "dgn_am", {"steps": 3, "rule": "plain", "score": "margin", "seed": 7}),
    ("digits", "dgn_am", {"steps": 2, "layer": "5", "channel": 3}),
]
REFUSED = [
    (name, {field: value, **more}, f"{name}.{field}", words)
    for name in ("activation_maximization", "dgn_am")
    for field, value, more, words in (
        ("steps", 0, {}, "at least 1"),
        ("rate", 0, {}, "above 0"),
        ("rate", float("nan"), {}, "above 0"),
        ("rate", float("inf"), {}, "finite"),
        ("l2", -0.1, {}, "at least 0"),
        ("noise", -1, {}, "at least 0"),
        ("rule", "adam", {}, "'normalised'"),
        ("channel", 3, {}, "none is named"),
        ("channel", -1, {"layer": "conv1"}, "at least 0"),
        ("position", [2, 2], {}, "none is named"),
        ("position", [0, -1], {"layer": "conv1"}, "at least 0"),
    )
] + [
    ("activation_maximization", {"tv": -1}, "activation_maximization.tv", "at least 0"),
    ("activation_maximization", {"jitter": -1}, "activation_maximization.jitter", "at least 0"),
]
