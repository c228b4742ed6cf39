"""Battery variants of the relevance family."""

from tests.explainers.relevance_nets import Dense, Gated, Tokens
from tests.nets import seeded

EVERYWHERE = [
    ("lrp", {}),
    ("excitation_backprop", {}),
    ("deep_lift", {}),
    ("deep_taylor", {}),
]
NETS = {
    "dense": lambda: seeded(Dense),
    "gated": lambda: seeded(Gated),
    "tokens": lambda: seeded(Tokens),
}
# with a visible ε: second derivatives of R/(z + ε) near z = 0 defeat finite differences
LRP = [
    {"rule": "epsilon", "epsilon": 0.02},
    {"rule": "gamma", "gamma": 0.4},
    {"rule": "z_plus"},
    {"rule": "alpha_beta", "alpha": 3.0, "beta": 2.0},
    {"rule": "w_square"},
    {"rule": "flat"},
    {"rule": "z_box", "epsilon": 0.02},
    {"composite": "epsilon_plus", "epsilon": 0.02, "bias": False},
    {"composite": "epsilon_gamma_box"},
    {"composite": "epsilon_alpha2_beta1"},
]
OPTIONS = [
    ("resnet", "lrp", {"bias": False}),
    ("normalised", "lrp", {"layer": "net.features.2", "epsilon": 0.02}),
    *(("resnet", "lrp", options) for options in LRP),
    ("normalised", "lrp", {"rule": "z_box", "epsilon": 0.02}),  # the box goes through the model's
    ("normalised", "lrp", {"composite": "epsilon_gamma_box"}),  # own normalisation
    *((net, "lrp", {"rule": "epsilon", "epsilon": 0.02}) for net in NETS),
    *((net, "lrp", {"bias": False, "epsilon": 0.02}) for net in NETS),
    ("dense", "deep_taylor", {"pool": "sum"}),
    ("gated", "deep_taylor", {}),
    ("tokens", "sglrp", {"composite": "epsilon_plus", "epsilon": 0.02}),
    *((net, name, {}) for net in ("functional", "normalised") for name in ("clrp", "sglrp")),
    ("resnet", "sglrp", {}),
    ("resnet", "clrp", {"dual": "negated"}),
    ("softplus", "clrp", {"composite": "epsilon_plus", "epsilon": 0.02, "bias": True}),
]
EXCITATION = [{"layer": "input"}, {"contrastive": True}]
DEEP_LIFT = [{"baseline": "mean"}, {"baseline": "blur", "blur_sigma": 2.0, "post": "signed"}]
OPTIONS += [
    *(("resnet", "excitation_backprop", options) for options in EXCITATION),
    ("convolutions", "excitation_backprop", {"layer": "input", "contrastive": True}),
    *(("resnet", "deep_lift", options) for options in DEEP_LIFT),
    ("normalised", "deep_lift", {"baseline": 0.4}),
]
# a count of whole passes cannot see the convolutions of a rule: test_lrp counts them one by one
CLAIMS = {
    name: {"exact_cost": False}
    for name in ("lrp", "excitation_backprop", "deep_taylor", "clrp", "sglrp")
}
REFUSED = [
    ("lrp", {"composit": "epsilon_plus"}, "lrp.composit", "did you mean 'composite'"),
    ("lrp", {"rule": "epsilon", "composite": "epsilon_plus"}, "lrp.rule", "not both"),
    ("lrp", {"rule": "zplus"}, "lrp.rule", "'z_plus'"),
    ("lrp", {"epsilon": 0}, "lrp.epsilon", "above 0"),
    ("lrp", {"gamma": -1}, "lrp.gamma", "at least 0"),
    ("lrp", {"rule": "alpha_beta", "alpha": 2, "beta": 2}, "lrp.alpha", "must be 1"),
    ("lrp", {"rule": "alpha_beta", "alpha": 0.5, "beta": -0.5}, "lrp.alpha", "negative"),
    ("deep_taylor", {"pool": "max"}, "deep_taylor.pool", "'winner'"),
    ("clrp", {"dual": "both"}, "clrp.dual", "'others'"),
    ("clrp", {"dual": "negated", "composite": "epsilon_plus"}, "clrp.dual", "z_plus_box"),
    ("sglrp", {"composite": "epsilon"}, "sglrp.composite", "'epsilon_plus'"),
    ("sglrp", {"epsilon": -1}, "sglrp.epsilon", "above 0"),
    ("excitation_backprop", {"layer": 3}, "excitation_backprop.layer", "string"),
    ("deep_lift", {"baseline": "median"}, "deep_lift.baseline", "got 'median'"),
    ("deep_lift", {"baseline": True}, "deep_lift.baseline", "expected a number"),
    ("deep_lift", {"baseline": float("nan")}, "deep_lift.baseline", "finite"),
    ("deep_lift", {"blur_sigma": 0}, "deep_lift.blur_sigma", "above 0"),
]
