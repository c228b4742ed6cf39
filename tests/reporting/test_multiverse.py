"""A multiverse's claims, counted again by hand from the values that they rest on."""

from dataclasses import replace
from itertools import combinations, product

import numpy as np
import pytest
from scipy import stats

from robustlab.records import Manifest, MetricInfo
from robustlab.records.manifest import Universe
from robustlab.reporting import Run
from robustlab.reporting.multiverse import Multiverse, multiverses, sentences, tau
from robustlab.reporting.results import Measurement
from robustlab.reporting.samples import samples
from robustlab.reporting.summary import summarise

UP = MetricInfo(name="up", higher_is_more_stable=True, bounds=(0, 1), summary="", options={})
DOWN = replace(UP, name="down", higher_is_more_stable=False)
METRICS = {"up": UP, "down": DOWN}
NAMES, SCORES, IMAGES = ("a", "b", "c"), ("logit", "prob"), 12


def label(name: str, score: str) -> str:
    return name if score == "logit" or name == "c" else f"{name} (score={score})"


def values() -> dict[tuple[str, str], np.ndarray]:
    """(variant, metric) → value per image; b is far better than a by every score, c in between."""
    draws = np.random.default_rng(0)
    level = {"a": 0.2, "b": 0.8, "c": 0.5, "a (score=prob)": 0.6, "b (score=prob)": 0.9}
    found = {}
    for name, mean in level.items():
        found[name, "up"] = mean + draws.normal(0, 0.02, IMAGES)
        found[name, "down"] = 1 - found[name, "up"]
    return found


def item(variant: str, metric: str, image: int, value: float) -> Measurement:
    return Measurement(
        model="net", data="d", image_id=f"{image}", label=0, prediction=0, explainer=variant,
        attack="top_k", norm="linf", epsilon=0.1, seed=0, metric=metric, value=value,
        prediction_kept=True, radius=0.1, outcome="ok", against=variant, role="attack",
        control_of="", label_name="", prediction_after=0, confidence=1.0, confidence_after=1.0,
        target=0, chance=0.0, made_on="", cautions="",
    )  # fmt: skip


@pytest.fixture(scope="module")
def manifest(run: Run) -> Manifest:
    universes = tuple(
        Universe(choices={"score": s}, members={n: label(n, s) for n in NAMES}) for s in SCORES
    )
    return replace(run.manifest, universes=universes, metrics=METRICS)


@pytest.fixture(scope="module")
def made(manifest: Manifest) -> Multiverse:
    items = [
        item(variant, metric, i, float(v))
        for (variant, metric), row in values().items()
        for i, v in enumerate(row)
    ]
    (found,) = multiverses(samples(items), [], manifest)
    return found


def test_every_combination_is_a_world_ranked_by_its_own_values(made: Multiverse) -> None:
    assert {tuple(w.choices.items()) for w in made.worlds} == {
        (("score", s), ("attack", "top_k"), ("ε", "0.1"), ("metric", m))
        for s, m in product(SCORES, METRICS)
    }
    for world in made.worlds:
        means = {
            n: values()[label(n, world.choices["score"]), world.choices["metric"]].mean()
            for n in NAMES
        }
        down = world.choices["metric"] == "down"
        assert world.order == tuple(sorted(means, key=means.__getitem__, reverse=not down))


def test_claims_are_counted(made: Multiverse) -> None:
    said = {claim.text: claim for claim in made.orders}
    assert made.explainers[0] == "b"
    best = said["b holds best"]
    assert (best.worlds, best.holds, best.surely, best.opposite) == (4, 4, 4, 0)
    assert best.survives
    # with logits c is surely better than a, with probabilities surely worse
    turned = said.get("c holds better than a") or said["a holds better than c"]
    assert (turned.worlds, turned.holds, turned.surely, turned.opposite) == (4, 2, 2, 2)
    assert not turned.survives
    assert len(said) == 1 + 3


def test_what_a_choice_does_is_asked_of_worlds_that_differ_in_it_alone(made: Multiverse) -> None:
    axes = {axis.name: axis for axis in made.axes}
    assert set(axes) == {"score", "metric"}  # one attack, one budget: no choice
    orders = {tuple(w.choices.values()): w.order for w in made.worlds}
    for name, place in (("score", 0), ("metric", 3)):
        alike = [
            (one, other)
            for one, other in combinations(orders, 2)
            if [a == b for a, b in zip(one, other, strict=True)].count(False) == 1
            and one[place] != other[place]
        ]
        assert axes[name].pairs == len(alike) == 2
        taus = [
            stats.kendalltau(*[[orders[w].index(n) for n in NAMES] for w in pair]).statistic
            for pair in alike
        ]
        assert axes[name].agreement == pytest.approx(np.mean(taus))
    assert axes["metric"].agreement == 1  # "down" is "up" from the other end: canary for the sign
    assert "What matters most is the score" in " ".join(sentences(made))
    first = f"Of {len(made.claims)} claims, true in each of {len(made.worlds)} worlds: "
    assert sentences(made)[0].startswith(first)
    assert sentences(made)[0].endswith(f"A world has {made.worlds[0].ranking.images} images.")


def test_attacks_are_held_against_their_control_in_every_world(
    made: Multiverse, manifest: Manifest, run: Run
) -> None:
    assert [claim.worlds for claim in made.beaten] == [0, 0, 0]  # nobody asked
    like = next(row for row in summarise(run) if row.role == "attack")
    items, rows = [], []
    for (variant, metric), row in values().items():
        items += [item(variant, metric, i, float(v)) for i, v in enumerate(row)]
        place = {"model": "net", "data": "d", "attack": "top_k", "norm": "linf", "epsilon": 0.1}
        verdict = "no" if variant == "a (score=prob)" else "yes"
        made_of = {**place, "explainer": variant, "against": variant, "metric": metric}
        rows.append(replace(like, **made_of, made_on="", beats_control=verdict))
    (found,) = multiverses(samples(items), rows, manifest)
    said = {claim.text.split()[-1]: claim for claim in found.beaten}
    assert (said["a"].worlds, said["a"].holds, said["a"].opposite) == (4, 2, 2)
    assert said["b"].survives
    assert not said["a"].survives


def test_tau_agrees_with_scipy() -> None:
    draws = np.random.default_rng(1)
    for _ in range(20):
        one, other = draws.permutation(6), draws.permutation(6)
        ranks = [[list(order).index(i) for i in range(6)] for order in (one, other)]
        expected = stats.kendalltau(*ranks).statistic
        assert tau([*map(str, one)], [*map(str, other)]) == pytest.approx(expected)
    assert tau(["a", "b"], ["b", "c"]) is None


def test_an_experiment_without_choices_has_no_multiverse(run: Run) -> None:
    assert multiverses(samples([]), [], run.manifest) == []
