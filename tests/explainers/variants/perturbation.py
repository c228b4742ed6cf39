"""Battery variants of the perturbation family."""

from tests.explainers.nets import NETS

# few cells and steps for speed; prices low enough that the mask does not stay empty
MEANINGFUL = {"steps": 2, "cells": 4, "l1": 1e-6, "score": "logit"}
EXTREMAL = {"steps": 2, "cells": 6, "levels": 3, "weight": 3.0}
FIDO = {"steps": 2, "samples": 2, "cells": 4}
EVERYWHERE = [
    ("rise", {"masks": 5, "cells": 3, "score": "logit"}),
    ("meaningful_perturbation", MEANINGFUL),
    ("extremal_perturbation", EXTREMAL),
    ("fido", FIDO),
]
OPTIONS = [
    # not everywhere in float32: on nets whose score hardly moves, the difference of two scores
    # is a few of their last bits. test_occlusion has a test for that
    *((net, "occlusion", {"grid": 2, "window": 0.6}) for net in NETS),
    ("resnet", "occlusion", {"window": 5, "stride": 4, "infill": 0.3, "score": "prob"}),
    ("resnet", "occlusion", {"grid": (2, 3), "window": 0.5, "infill": "blur"}),
    ("resnet", "occlusion", {"grid": 2, "window": 7, "infill": "noise", "seed": 3}),
    ("resnet", "rise", {"masks": 5, "cells": 4, "norm": "coverage", "infill": "mean"}),
    ("resnet", "rise", {"masks": 5, "norm": "centred", "shared": True, "infill": "blur"}),
    ("resnet", "rise", {"masks": 4, "keep": 0.3, "infill": "noise", "score": "margin"}),
    ("resnet", "meaningful_perturbation", MEANINGFUL | {"game": "preservation", "infill": "mean"}),
    (
        "resnet",
        "meaningful_perturbation",
        MEANINGFUL | {"infill": "noise", "jitter": 0.2, "smooth": 0.0, "score": "logprob"},
    ),
    ("resnet", "extremal_perturbation", EXTREMAL | {"variant": "delete", "infill": "noise"}),
    (
        "resnet",
        "extremal_perturbation",
        EXTREMAL | {"variant": "dual", "areas": (0.1, 0.4), "flip": True, "infill": 0.0},
    ),
    ("resnet", "fido", FIDO | {"game": "sdr", "infill": "noise", "score": "logit"}),
    ("resnet", "fido", FIDO | {"infill": "blur", "cells": 30}),
]
REFUSED = [
    ("occlusion", {"grid": 0}, "occlusion.grid", "at least 1"),
    ("occlusion", {"window": 0}, "occlusion.window", "at least 1 pixel"),
    ("occlusion", {"window": 1.5}, "occlusion.window", "a whole number counts pixels"),
    ("occlusion", {"window": True}, "occlusion.window", "expected a number"),
    ("occlusion", {"window": 3, "stride": 4}, "occlusion.stride", "leaves gaps"),
    ("occlusion", {"stride": 0}, "occlusion.stride", "at least 1"),
    ("occlusion", {"infill": "grey"}, "occlusion.infill", "'mean'"),
    ("occlusion", {"infill": "diffusion"}, "occlusion.infill", "'mean'"),
    ("rise", {"masks": 0}, "rise.masks", "at least 1"),
    ("rise", {"cells": 1}, "rise.cells", "at least 2"),
    ("rise", {"keep": 0.0}, "rise.keep", "probability"),
    ("rise", {"infill": 2.0}, "rise.infill", r"\[0, 1\]"),
    ("rise", {"norm": "mean"}, "rise.norm", "'expected'"),
    ("meaningful_perturbation", {"steps": 0}, "meaningful_perturbation.steps", "at least 1"),
    ("meaningful_perturbation", {"power": 0.5}, "meaningful_perturbation.power", "at least 1"),
    ("meaningful_perturbation", {"jitter": -0.1}, "meaningful_perturbation.jitter", "at least 0"),
    ("meaningful_perturbation", {"rate": 0.0}, "meaningful_perturbation.rate", "above 0"),
    ("meaningful_perturbation", {"blur": 0.0}, "meaningful_perturbation.blur", "above 0"),
    ("extremal_perturbation", {"areas": []}, "extremal_perturbation.areas", "between 0 and 1"),
    ("extremal_perturbation", {"areas": [1.0]}, "extremal_perturbation.areas", "between 0 and 1"),
    ("extremal_perturbation", {"levels": 1}, "extremal_perturbation.levels", "at least 2"),
    ("extremal_perturbation", {"sigma": 0.0}, "extremal_perturbation.sigma", "above 0"),
    ("extremal_perturbation", {"variant": "keep"}, "extremal_perturbation.variant", "'preserve'"),
    ("fido", {"samples": 0}, "fido.samples", "at least 1"),
    ("fido", {"temperature": 0.0}, "fido.temperature", "above 0"),
    ("fido", {"infill": "gan"}, "fido.infill", "'diffusion'"),
]
