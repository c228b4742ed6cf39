"""The leaderboard's numbers, against a plain computation from the records' own JSON."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from robustlab import reporting
from robustlab.records import ImageRow
from robustlab.records.scorecard import Scorecard
from robustlab.records.scores import Estimate
from robustlab.reporting.estimates import wilson
from robustlab.reporting.statistics import RESAMPLES
from tests.reporting import board
from tests.reporting.board import EPSILON, PGD, PUBLISHED, STRICT, control
from tests.reporting.scored import metric_of, read_cards

Raw = dict[str, Any]


def images(
    board_cells: list[Raw],
    model: str,
    attack: str,
    against: str | None = None,
    epsilon: float = EPSILON,
) -> Iterator[tuple[int, Raw]]:
    """(seed, image) of every cell of one attack, as the files hold them."""
    for record in board_cells:
        cell = record["cell"]
        here = cell["model"], cell["attack"], cell["against"]
        if here == (model, attack, against) and cell["budget"]["epsilon"] == epsilon:
            yield from ((cell["seed"], image) for image in record["images"])


def brute(
    found: Iterator[tuple[int, Raw]],
    value: Callable[[Raw], float],
    keep: Callable[[Raw], bool],
) -> tuple[int, float]:
    """Number of images and mean over them, seeds of an image first."""
    table: dict[str, list[float]] = {}
    for _, image in found:
        if keep(image):
            table.setdefault(image["id"], []).append(value(image))
    return len(table), float(np.mean([np.mean(values) for values in table.values()]))


def right(image: Raw) -> bool:
    return bool(image["label"] >= 0 and image["prediction"] == image["label"])


def same(estimate: Estimate, expected: tuple[int, float]) -> bool:
    assert estimate.mean is not None
    return estimate.n == expected[0] and abs(estimate.mean - expected[1]) < 1e-12


# --- accuracies ------------------------------------------------------------------------------


@pytest.mark.parametrize("model", board.MODELS)
def test_accuracies(board_cards: dict[str, Scorecard], board_cells: list[Raw], model: str) -> None:
    def labelled(image: Raw) -> bool:
        return bool(image["label"] >= 0)

    clean, after = board_cards[model].clean, board_cards[model].adversarial
    assert clean and after and after.attack and not clean.attack
    assert clean.share.mean == pytest.approx(9 / 11, abs=1e-15)  # by hand: 2 wrong, 1 unlabelled
    idle = images(board_cells, model, "nothing", epsilon=0.0)
    assert same(clean.share, brute(idle, right, labelled))
    survived = brute(
        images(board_cells, model, PGD),
        lambda i: i["prediction"] == i["label"] == i["prediction_after"],
        labelled,
    )
    assert same(after.share, survived)
    assert (after.attack.name, after.attack.epsilon) == ("pgd", EPSILON)  # the plan's first budget
    # canary: forgiving an image that was wrong and is right by accident gives another number
    forgiving = brute(
        images(board_cells, model, PGD), lambda i: i["label"] == i["prediction_after"], labelled
    )
    assert not same(after.share, forgiving)


def test_wilson_is_the_root_of_the_score_test() -> None:
    for share, n in ((0.0, 20), (0.3, 10), (0.82, 200), (1.0, 7)):
        made = wilson(share, n)
        for end in (made.low, made.high):
            assert end is not None
            if 0 < end < 1:  # |p̂ − p| = z √(p(1−p)/n) at both ends
                assert abs(share - end) == pytest.approx(
                    1.959963984540054 * np.sqrt(end * (1 - end) / n), rel=1e-9
                )
    assert wilson(0.0, 20).high == pytest.approx(0.1611, abs=1e-4)  # a bootstrap would say 0
    assert wilson(0.0, 0) == Estimate()


# --- maps ------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["top_100", "tau"])
@pytest.mark.parametrize("model", board.MODELS)
def test_published_protocol_in_both_conventions(
    board_cards: dict[str, Scorecard], board_cells: list[Raw], model: str, metric: str
) -> None:
    ig = "integrated_gradients"
    found = board_cards[model].published
    stability = metric_of(found, metric)

    def value(image: Raw) -> float:
        return float(image["values"][ig][metric])

    ones = brute(images(board_cells, model, PUBLISHED, ig), value, right)
    dropped = brute(
        images(board_cells, model, PUBLISHED, ig),
        value,
        lambda image: right(image) and image["outcome"] != "infeasible",
    )
    assert same(stability.ones, ones)
    assert same(stability.dropped, dropped)
    # canaries: the conventions differ, and so do all images, right at first or not
    assert stability.ones.mean > stability.dropped.mean + 0.003
    assert (stability.ones.n, stability.dropped.n) == (9, 8)
    assert not same(
        stability.ones, brute(images(board_cells, model, PUBLISHED, ig), value, lambda _: True)
    )
    noise = brute(images(board_cells, model, control(PUBLISHED), ig), value, right)
    assert same(stability.random_sign, noise)
    assert stability.difference.mean == pytest.approx(ones[1] - noise[1], abs=1e-12)
    assert stability.chance == {"top_100": pytest.approx(100 / 784), "tau": 0.0}[metric]
    assert found is not None
    assert (found.images, found.seeds, found.infeasible, found.left_out) == (9, 3, 4, 0)
    assert (found.attack.label, found.attack.epsilon) == (PUBLISHED, EPSILON)


@pytest.mark.parametrize("explainer", board.EXPLAINERS)
def test_stricter_protocol_and_deletion(
    board_cards: dict[str, Scorecard], board_cells: list[Raw], explainer: str
) -> None:
    (found,) = [one for one in board_cards["natural"].strict if one.explainer == explainer]

    def value(metric: str, table: str = "values") -> Callable[[Raw], float]:
        return lambda image: float(image[table][explainer][metric])

    def under(attack: str) -> Iterator[tuple[int, Raw]]:
        return images(board_cells, "natural", attack, explainer)

    def clean() -> Iterator[tuple[int, Raw]]:
        return images(board_cells, "natural", "nothing", epsilon=0.0)

    for metric in ("top_100", "tau"):
        stability = metric_of(found, metric)
        assert same(stability.ones, brute(under(STRICT), value(metric), right))
        assert same(stability.random_sign, brute(under(control(STRICT)), value(metric), right))
        seeds = [
            np.mean([value(metric)(i) for s, i in under(STRICT) if s == seed and right(i)])
            for seed in board.SEEDS
        ]
        assert stability.seed_range == pytest.approx(max(seeds) - min(seeds), abs=1e-12)
    deletion = found.deletion
    assert deletion is not None
    for estimate, rows, table in (
        (deletion.clean, clean(), "values"),
        (deletion.clean_random, clean(), "chance"),
        (deletion.attacked, under(STRICT), "values"),
        (deletion.attacked_random, under(STRICT), "chance"),
    ):
        assert same(estimate, brute(rows, value("removal", table), right))
    rows = [image for _, image in under(STRICT) if right(image)]
    assert found.kept == sum(image["kept"] for image in rows)
    assert found.kept + found.changed == len(rows) == 27


def test_intervals_are_over_images_and_not_over_seeds(
    board_cards: dict[str, Scorecard], board_cells: list[Raw]
) -> None:
    found = images(board_cells, "natural", PUBLISHED, "integrated_gradients")
    table: dict[str, list[float]] = {}
    for _, image in found:
        if right(image):
            value = image["values"]["integrated_gradients"]["top_100"]
            table.setdefault(image["id"], []).append(value)
    means = np.array([np.mean(values) for values in table.values()])
    draws = np.random.default_rng(5).choice(means, (20 * RESAMPLES, len(means))).mean(1)
    made = metric_of(board_cards["natural"].published, "top_100").ones
    low, high = np.percentile(draws, ends(len(means)))
    assert made.low == pytest.approx(low, abs=0.015)
    assert made.high == pytest.approx(high, abs=0.015)
    every = np.concatenate(list(table.values()))  # canary: seeds as if they were images
    narrow = np.random.default_rng(5).choice(every, (20 * RESAMPLES, len(every))).mean(1)
    low, high = np.percentile(narrow, ends(len(every)))
    assert made.high - made.low > high - low + 0.03


def ends(count: int) -> tuple[float, float]:
    """In per cent, those of Hesterberg's expanded interval."""
    low = stats.norm.cdf(-np.sqrt(count / (count - 1)) * stats.t.ppf(0.975, count - 1))
    return 100 * low, 100 * (1 - low)


def test_values_that_broke_the_rules_count_nowhere(tmp_path: Path) -> None:
    def odd(image: ImageRow) -> ImageRow:
        outcome = {board.IDS[0]: "budget_violated", board.IDS[1]: "diverged"}.get(image.id)
        return replace(image, outcome=outcome) if outcome else image  # type: ignore[arg-type]

    plan = board.cells(("natural",), seeds=(0,))
    store = board.build(tmp_path, plan, models=("natural",), pictures=False)
    for cell in plan:
        if cell.attack in (PUBLISHED, PGD):
            made = board.record(cell)
            store.write(replace(made, images=tuple(map(odd, made.images))))
    reporting.write_leaderboard(tmp_path)
    (card,) = read_cards(tmp_path)
    assert card.published and card.adversarial and card.clean
    assert (card.published.images, card.published.left_out) == (7, 2)
    assert (card.adversarial.share.n, card.clean.share.n) == (9, 11)
    assert metric_of(card.published, "tau").seed_range is None  # one seed has no spread
