"""Grids and patches from an experiment file to its tables."""

import csv
import hashlib
import json

import pytest

from robustlab.core.budget import Budget
from robustlab.core.errors import InvalidInput
from robustlab.lab import keys
from robustlab.lab.run import prepare, run_experiment
from robustlab.lab.spec import parse_spec
from tests.lab import tiny
from tests.lab.test_plan import plan

BITS = {"norm": "linf", "epsilon": ["2/255"], "bits": 8}
PLAIN = {"norm": "linf", "epsilon": ["2/255"]}


def test_the_file_says_bits_and_patch():
    spec = parse_spec(tiny.raw(budgets=[BITS, {"norm": "patch", "epsilon": [0.05, "1/9"]}]))
    made = [budget for choice in spec.budgets for budget in choice.budgets()]
    expected = [Budget("linf", 2 / 255, bits=8), Budget("patch", 0.05), Budget("patch", 1 / 9)]
    assert made == expected


@pytest.mark.parametrize("bits", [7, "eight", True, 16])
def test_other_bits_are_refused_by_name(bits):
    with pytest.raises(InvalidInput, match=r"budgets\.0\.bits") as caught:
        parse_spec(tiny.raw(budgets=[{**PLAIN, "bits": bits}]))
    assert "8" in str(caught.value) and repr(bits) in str(caught.value)


def test_a_budget_without_bits_enters_the_key_as_it_always_did(monkeypatch):
    """Key = hash of four numbers of the budget; a fifth only where there is a grid."""
    hashed = []

    def digest(value):
        hashed.append(value)
        text = json.dumps(value, sort_keys=True, default=str, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:20]

    monkeypatch.setattr(keys, "digest", digest)
    plan(budgets=[PLAIN, BITS], attacks=["fgsm"], images=1)
    seen = {json.dumps(v["budget"]) for v in hashed if isinstance(v, dict) and "budget" in v}
    plain, grid = ["linf", 2 / 255, 0.0, 1.0], ["linf", 2 / 255, 0.0, 1.0, 8]
    assert seen == {json.dumps(plain), json.dumps(grid)}


def test_balls_and_grids_stay_apart_in_the_tables(tmp_path):
    changes = {"attacks": [{"name": "pgd", "steps": 2}], "images": 2, "explainers": ["gradient"]}
    run_experiment(tiny.spec(budgets=[PLAIN, BITS], **changes), tmp_path, workers=1)
    with (tmp_path / "summary.csv").open(newline="", encoding="utf-8") as lines:
        rows = [row for row in csv.DictReader(lines) if row["role"] == "attack"]
    assert {row["norm"] for row in rows} == {"linf", "linf/8bit"}
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "2/255 (8 bit)" in page and "L∞, 8 bit" in page


def test_a_patch_experiment_runs_with_its_control(tmp_path):
    budgets = [{"norm": "patch", "epsilon": [0.1]}]
    attacks = ["none", {"name": "patch", "steps": 2, "against": "grad_cam"}]
    run_experiment(tiny.spec(budgets=budgets, attacks=attacks, images=2), tmp_path, workers=1)
    records = list(tiny.numbers(tmp_path).values())
    assert {r["outcome"] for r in records} == {"ok"}, [r["error"] for r in records]
    radii = {r["cell"]["role"]: [i["radius"] for i in r["images"]] for r in records}
    share = 8**2 / 28**2  # the largest square within a tenth of the area
    assert radii["attack"] == pytest.approx([share, share])
    assert radii["control"] == pytest.approx([share, share])
    assert radii["none"] == [0.0, 0.0]


@pytest.mark.parametrize(
    ("attack", "norm", "words"),
    [
        ({"name": "patch"}, "linf", "norm patch"),
        ({"name": "carlini_wagner"}, "linf", "norm l2"),
        ({"name": "top_k", "k": 20}, "patch", "the attack named patch"),
        ({"name": "worst_case", "k": 20}, "patch", "the attack named patch"),
        ({"name": "black_box", "k": 20, "queries": 2}, "patch", "the attack named patch"),
        ({"name": "universal", "k": 20}, "patch", "the attack named patch"),
    ],
    ids=str,
)
def test_a_budget_that_does_not_fit_is_refused_before_any_work(attack, norm, words):
    spec = tiny.spec(attacks=[attack], budgets=[{"norm": norm, "epsilon": 0.1}])
    with pytest.raises(InvalidInput, match=words) as refused:
        prepare(spec)
    assert attack["name"] in str(refused.value)
