"""Battery variants of the relevance family."""

EVERYWHERE = [("lrp", {})]
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
    *(("resnet", "lrp", options) for options in LRP),
    ("normalised", "lrp", {"rule": "z_box", "epsilon": 0.02}),  # the box goes through the model's
    ("normalised", "lrp", {"composite": "epsilon_gamma_box"}),  # own normalisation
]
# a count of whole passes cannot see the convolutions of a rule: test_lrp counts them one by one
CLAIMS = {"lrp": {"exact_cost": False}}
REFUSED = [
    ("lrp", {"composit": "epsilon_plus"}, "lrp.composit", "did you mean 'composite'"),
    ("lrp", {"rule": "epsilon", "composite": "epsilon_plus"}, "lrp.rule", "not both"),
    ("lrp", {"rule": "zplus"}, "lrp.rule", "'z_plus'"),
    ("lrp", {"epsilon": 0}, "lrp.epsilon", "above 0"),
    ("lrp", {"gamma": -1}, "lrp.gamma", "at least 0"),
    ("lrp", {"rule": "alpha_beta", "alpha": 2, "beta": 2}, "lrp.alpha", "must be 1"),
    ("lrp", {"rule": "alpha_beta", "alpha": 0.5, "beta": -0.5}, "lrp.alpha", "negative"),
]
