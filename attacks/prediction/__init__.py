"""Attacks on the prediction, through foolbox: they do not look at the explanation at all."""

from attacks.prediction.carlini_wagner import CarliniWagner
from attacks.prediction.deep_fool import DeepFool
from attacks.prediction.fgsm import FGSM
from attacks.prediction.mi_fgsm import MIFGSM
from attacks.prediction.pgd import PGD

__all__ = ["FGSM", "MIFGSM", "PGD", "CarliniWagner", "DeepFool"]
