"""Battery variants of the control family."""

EVERYWHERE = [("fixed_map", {})]
OPTIONS = [
    ("resnet", "fixed_map", {"cells": 2, "seed": 7}),
    ("resnet", "fixed_map", {"cells": 40, "post": "minmax"}),  # finer than the picture
]
REFUSED = [
    ("fixed_map", {"cells": 1}, "fixed_map.cells", "no picture"),
    ("fixed_map", {"cells": 2.5}, "fixed_map.cells", "integer"),
    ("fixed_map", {"score": "prob"}, "fixed_map.score", "no such option"),
]
