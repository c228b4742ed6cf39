"""The leaderboard's numbers, against a plain computation from the records' own JSON."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robustlab import reporting
from robustlab.records import ImageRow, RunRecord, Store, UnreadableResults
from robustlab.records.plain import dumps
from robustlab.records.scorecard import Estimate, Robustness, Scorecard
from robustlab.reporting.leaderboard_page import without_prefix
from robustlab.reporting.ordering import orderings, paper_breaks, step
from robustlab.reporting.published import FASHION_MNIST, MNIST, paper_rows
from robustlab.reporting.scoring import leading, wilson
from robustlab.reporting.statistics import RESAMPLES
from robustlab.reporting.tradeoff_plot import Point, TradeoffPlot, wrapped
from robustlab.reporting.wording import number
from tests.reporting import board, fixture
from tests.reporting.board import EPSILON, PGD, PUBLISHED, STRICT, control
from tests.reporting.page import Node, parse

Raw = dict[str, Any]
SMALL = ("natural", "adversarial")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("board")
    board.build(path)
    reporting.write_leaderboard(path)
    return path


@pytest.fixture(scope="module")
def cards(home: Path) -> dict[str, Scorecard]:
    files = sorted((home / "leaderboard").glob("*.json"))
    made = [Scorecard.from_dict(json.loads(path.read_text())) for path in files]
    return {card.model.label: card for card in made}


@pytest.fixture(scope="module")
def raw(home: Path) -> list[Raw]:
    return [json.loads(path.read_text()) for path in sorted((home / "cells").glob("*.json"))]


@pytest.fixture(scope="module")
def page(home: Path) -> Node:
    return parse((home / "leaderboard.html").read_text())


def images(
    raw: list[Raw], model: str, attack: str, against: str | None = None, epsilon: float = EPSILON
) -> Iterator[tuple[int, Raw]]:
    """(seed, image) of every cell of one attack, as the files hold them."""
    for record in raw:
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
def test_accuracies(cards: dict[str, Scorecard], raw: list[Raw], model: str) -> None:
    def labelled(image: Raw) -> bool:
        return bool(image["label"] >= 0)

    clean, after = cards[model].clean, cards[model].adversarial
    assert clean and after and after.attack and not clean.attack
    assert clean.share.mean == pytest.approx(9 / 11, abs=1e-15)  # by hand: 2 wrong, 1 unlabelled
    idle = images(raw, model, "nothing", epsilon=0.0)
    assert same(clean.share, brute(idle, right, labelled))
    survived = brute(
        images(raw, model, PGD),
        lambda i: i["prediction"] == i["label"] == i["prediction_after"],
        labelled,
    )
    assert same(after.share, survived)
    assert (after.attack.name, after.attack.epsilon) == ("pgd", EPSILON)  # the plan's first budget
    # canary: forgiving an image that was wrong and is right by accident gives another number
    forgiving = brute(
        images(raw, model, PGD), lambda i: i["label"] == i["prediction_after"], labelled
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


def of(found: Robustness | None, metric: str) -> Any:
    assert found is not None
    return {"top_100": found.intersection, "tau": found.kendall}[metric]


@pytest.mark.parametrize("metric", ["top_100", "tau"])
@pytest.mark.parametrize("model", board.MODELS)
def test_published_protocol_in_both_conventions(
    cards: dict[str, Scorecard], raw: list[Raw], model: str, metric: str
) -> None:
    ig = "integrated_gradients"
    found = cards[model].published
    stability = of(found, metric)

    def value(image: Raw) -> float:
        return float(image["values"][ig][metric])

    ones = brute(images(raw, model, PUBLISHED, ig), value, right)
    dropped = brute(
        images(raw, model, PUBLISHED, ig),
        value,
        lambda image: right(image) and image["outcome"] != "infeasible",
    )
    assert same(stability.ones, ones)
    assert same(stability.dropped, dropped)
    # canaries: the conventions differ, and so do all images, right at first or not
    assert stability.ones.mean > stability.dropped.mean + 0.003
    assert (stability.ones.n, stability.dropped.n) == (9, 8)
    assert not same(stability.ones, brute(images(raw, model, PUBLISHED, ig), value, lambda _: True))
    noise = brute(images(raw, model, control(PUBLISHED), ig), value, right)
    assert same(stability.random_sign, noise)
    assert stability.difference.mean == pytest.approx(ones[1] - noise[1], abs=1e-12)
    assert stability.chance == {"top_100": pytest.approx(100 / 784), "tau": 0.0}[metric]
    assert found is not None
    assert (found.images, found.seeds, found.infeasible, found.left_out) == (9, 3, 4, 0)
    assert (found.attack.label, found.attack.epsilon) == (PUBLISHED, EPSILON)


@pytest.mark.parametrize("explainer", board.EXPLAINERS)
def test_stricter_protocol_and_deletion(
    cards: dict[str, Scorecard], raw: list[Raw], explainer: str
) -> None:
    (found,) = [one for one in cards["natural"].strict if one.explainer == explainer]

    def value(metric: str, table: str = "values") -> Callable[[Raw], float]:
        return lambda image: float(image[table][explainer][metric])

    def under(attack: str) -> Iterator[tuple[int, Raw]]:
        return images(raw, "natural", attack, explainer)

    def clean() -> Iterator[tuple[int, Raw]]:
        return images(raw, "natural", "nothing", epsilon=0.0)

    for metric in ("top_100", "tau"):
        stability = of(found, metric)
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


def test_an_explainer_that_was_not_attacked_itself_does_not_lead(tmp_path: Path) -> None:
    names = (STRICT, control(STRICT))
    plan = [
        replace(cell, explainers=board.EXPLAINERS) if cell.attack in names else cell
        for cell in board.cells(SMALL, seeds=(0,))
        if cell.attack not in names or cell.against == "gradient"
    ]
    board.build(tmp_path, plan, models=SMALL, pictures=False)
    reporting.write_leaderboard(tmp_path)
    for card in read(tmp_path):
        assert [one.explainer for one in card.strict] == list(board.EXPLAINERS)
        assert {one.attack.against for one in card.strict} == {"gradient"}
        lead = leading(card.strict)
        assert lead is not None
        assert lead.explainer == "gradient"
    shown = parse((tmp_path / "leaderboard.html").read_text())
    (table,) = shown.all("table", "main")
    assert "Stricter protocol, gradient" in table.text
    (table,) = shown.all("table", "strict")
    told = ["made against gradient" in group.text for group in table.all("tbody")]
    assert told == [True, False, False]  # the fixed map has its own words


def test_intervals_are_over_images_and_not_over_seeds(
    cards: dict[str, Scorecard], raw: list[Raw]
) -> None:
    found = images(raw, "natural", PUBLISHED, "integrated_gradients")
    table: dict[str, list[float]] = {}
    for _, image in found:
        if right(image):
            value = image["values"]["integrated_gradients"]["top_100"]
            table.setdefault(image["id"], []).append(value)
    means = np.array([np.mean(values) for values in table.values()])
    draws = np.random.default_rng(5).choice(means, (20 * RESAMPLES, len(means))).mean(1)
    made = of(cards["natural"].published, "top_100").ones
    assert made.low == pytest.approx(np.percentile(draws, 2.5), abs=0.006)
    assert made.high == pytest.approx(np.percentile(draws, 97.5), abs=0.006)
    every = np.concatenate(list(table.values()))  # canary: seeds as if they were images
    narrow = np.random.default_rng(5).choice(every, (20 * RESAMPLES, len(every))).mean(1)
    width = np.percentile(narrow, 97.5) - np.percentile(narrow, 2.5)
    assert made.high - made.low > width + 0.012


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
    (card,) = read(tmp_path)
    assert card.published and card.adversarial and card.clean
    assert (card.published.images, card.published.left_out) == (7, 2)
    assert (card.adversarial.share.n, card.clean.share.n) == (9, 11)
    assert of(card.published, "tau").seed_range is None  # one seed has no spread


# --- what is missing ---------------------------------------------------------------------------


def read(folder: Path) -> list[Scorecard]:
    files = sorted((folder / "leaderboard").glob("*.json"))
    return [Scorecard.from_dict(json.loads(path.read_text())) for path in files]


@pytest.mark.parametrize(
    ("gone", "empty"),
    [
        ((PGD,), ("adversarial",)),
        ((PUBLISHED,), ("published",)),
        (("nothing",), ("clean",)),
        ((STRICT,), ("strict",)),
        ((PGD, STRICT, "nothing"), ("adversarial", "strict", "clean")),
    ],
)
def test_a_part_that_was_not_measured_is_a_dash(
    tmp_path: Path, gone: tuple[str, ...], empty: tuple[str, ...]
) -> None:
    names = {*gone, *map(control, gone)}
    plan = [c for c in board.cells(SMALL, seeds=(0,)) if c.attack not in names]
    board.build(tmp_path, plan, models=SMALL, pictures=False)
    reporting.write_leaderboard(tmp_path)
    parts = ("clean", "adversarial", "published", "strict")
    for card in read(tmp_path):
        assert tuple(p for p in parts if not getattr(card, p)) == tuple(
            p for p in parts if p in empty
        )
    shown = parse((tmp_path / "leaderboard.html").read_text())
    (table,) = shown.all("table", "main")
    cells = {c.attributes["data-label"]: c.text for c in table.all("tbody")[0].all("td")}
    assert (cells["PGD"] == "–") == ("adversarial" in empty)
    assert (cells["Published IN"] == "–") == ("published" in empty)
    assert (cells["Clean"] == "–") == ("clean" in empty)
    assert "| – |" in (tmp_path / "leaderboard.md").read_text()


def test_an_unfinished_run_says_so(tmp_path: Path) -> None:
    plan = board.cells(("natural",), seeds=(0,))
    store = board.build(tmp_path, plan, models=("natural",), pictures=False)
    store.record_path(board.key_of(plan[0])).unlink()
    store.write(RunRecord.crashed(board.key_of(plan[-1]), plan[-1], "boom"))
    reporting.write_leaderboard(tmp_path)
    (card,) = read(tmp_path)
    assert card.notes == (
        f"1 of {len(plan)} cells have not been run",
        f"1 of {len(plan)} cells failed",
    )
    assert "natural: 1 of" in parse((tmp_path / "leaderboard.html").read_text()).text


def test_a_crashed_first_budget_is_not_replaced_by_the_second(tmp_path: Path) -> None:
    plan = board.cells(("natural",), seeds=(0,))
    store = board.build(tmp_path, plan, models=("natural",), pictures=False)
    for cell in plan:
        if cell.attack == PUBLISHED and cell.budget.epsilon == EPSILON:
            store.write(RunRecord.crashed(board.key_of(cell), cell, "boom"))
    reporting.write_leaderboard(tmp_path)
    assert read(tmp_path)[0].published is None


def test_another_experiment_is_refused_with_what_to_run(tmp_path: Path) -> None:
    plan = [c for c in board.cells(SMALL, seeds=(0,)) if board.WEAK in c.attack or c.role == "none"]
    board.build(tmp_path / "other", plan, models=SMALL, pictures=False)
    with pytest.raises(UnreadableResults, match="robustlab run attributional_robustness"):
        reporting.write_leaderboard(tmp_path)
    with pytest.raises(UnreadableResults, match="holds no results"):
        reporting.write_leaderboard(tmp_path / "other" / "models")
    with pytest.raises(UnreadableResults, match="is not a folder"):
        reporting.write_leaderboard(tmp_path / "nowhere")
    plan = board.cells(("natural",), seeds=(0,))
    board.build(tmp_path / "deep" / "good", plan, models=("natural",), pictures=False)
    written = reporting.write_leaderboard(tmp_path, tmp_path / "out")
    assert written.passed_over == (tmp_path / "other",)
    assert (tmp_path / "out" / "leaderboard" / "clothes--natural.json") in written.files
    shutil.copytree(tmp_path / "deep", tmp_path / "twice")
    with pytest.raises(UnreadableResults, match="give one of the two"):
        reporting.write_leaderboard(tmp_path)


# --- files -------------------------------------------------------------------------------------


def test_pages_from_the_files_alone_are_the_same(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home / "leaderboard", tmp_path / "leaderboard")
    reporting.write_leaderboard(tmp_path)
    for name in ("leaderboard.html", "leaderboard.md"):
        assert (tmp_path / name).read_bytes() == (home / name).read_bytes()
    for path in (home / "leaderboard").iterdir():
        assert (tmp_path / "leaderboard" / path.name).read_bytes() == path.read_bytes()


def test_equal_records_give_equal_bytes_in_another_process(home: Path, tmp_path: Path) -> None:
    code = "import sys; from robustlab import reporting; reporting.write_leaderboard(*sys.argv[1:])"
    run = [sys.executable, "-c", f"{code}; assert 'torch' not in sys.modules"]
    subprocess.run([*run, str(home), str(tmp_path)], check=True)
    for name in ("leaderboard.html", "leaderboard.md", "leaderboard/clothes--natural.json"):
        assert (tmp_path / name).read_bytes() == (home / name).read_bytes()


def test_a_model_that_was_sent_in_stands_beside_the_others(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home / "leaderboard", tmp_path / "leaderboard")
    card = read(home)[0]
    sent = replace(card, model=replace(card.model, label="from afar", objective="magic"))
    (tmp_path / "leaderboard" / sent.file_name).write_text(dumps(sent.to_dict()))
    reporting.write_leaderboard(tmp_path)
    assert "from afar" in (tmp_path / "leaderboard.md").read_text()
    (tmp_path / "leaderboard" / "clothes--wrong.json").write_text(dumps(sent.to_dict()))
    with pytest.raises(UnreadableResults, match=r"name it clothes--from-afar\.json"):
        reporting.write_leaderboard(tmp_path)
    (tmp_path / "leaderboard" / "clothes--wrong.json").write_text("{}")
    with pytest.raises(UnreadableResults, match="not a scorecard: schema: missing"):
        reporting.write_leaderboard(tmp_path)


def test_the_card_says_what_the_model_is(cards: dict[str, Scorecard]) -> None:
    model = cards["rar_norm"].model
    assert (model.objective, model.arch, model.trained_on) == (
        "rar_norm", "small_cnn", "fashion_mnist",
    )  # fmt: skip
    assert model.settings == {
        "objective": {"epsilon": 0.1, "steps": 7}, "epochs": 4, "learning_rate": 0.001,
    }  # fmt: skip
    assert (model.minutes, model.train_images) == (3.0, 40_000)
    assert model.sha256 == board.training("rar_norm").sha256


def test_a_model_of_the_zoo_has_the_card_that_ships(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "package" / "models" / "weights" / "zoo"
    place.mkdir(parents=True)
    shipped = {
        "model": "small_cnn", "objective": {"name": "art", "epsilon": 0.3}, "data": "mnist",
        "train_images": 7, "seconds": 90, "sha256": "ab", "command": "make it", "epochs": 2,
    }  # fmt: skip
    (place / "mine.json").write_text(json.dumps(shipped))
    where = "robustlab.reporting.model_cards.files"
    monkeypatch.setattr(where, lambda _: tmp_path / "package")
    spec = {
        "data": "clothes",
        "models": [{"name": "zoo:mine", "label": "natural"}, {"name": "zoo:lost"}],
    }
    names = ("natural", "zoo:lost")
    plan = board.cells(("natural",), seeds=(0,))
    plan += [replace(cell, model="zoo:lost") for cell in plan]
    store = Store(tmp_path / "run")
    store.claim({**board.manifest(plan, names), "spec": spec, "trainings": []})
    reporting.write_leaderboard(tmp_path / "run")
    known = {card.model.label: card.model for card in read(tmp_path / "run")}
    one = known["natural"]
    assert (one.objective, one.sha256, one.minutes) == ("art", "ab", 1.5)
    assert one.settings == {"objective": {"epsilon": 0.3}, "epochs": 2}
    assert known["zoo:lost"].objective == ""  # a card that is gone is no error
    assert (tmp_path / "run" / "leaderboard" / "clothes--zoo-lost.json").is_file()


# --- pictures ----------------------------------------------------------------------------------


def test_pictures_are_of_the_first_image_that_all_share_and_predict_right(
    home: Path, cards: dict[str, Scorecard], tmp_path: Path
) -> None:
    for card in cards.values():
        assert [s.protocol for s in card.scenes] == ["published", "strict"]
        assert {s.image_id for s in card.scenes} == {board.IDS[0]}
    plan = board.cells(SMALL, seeds=(0,))
    store = board.build(tmp_path, plan, models=SMALL)
    for cell in plan:  # in one model the first image is now wrong
        if cell.model == "natural" and cell.attack in (PUBLISHED, STRICT):
            made = board.record(cell)
            first = replace(made.images[0], prediction=5)
            if cell.ids == board.CHUNKS[0]:
                store.write(replace(made, images=(first, *made.images[1:])))
    reporting.write_leaderboard(tmp_path)
    assert {s.image_id for card in read(tmp_path) for s in card.scenes} == {board.IDS[1]}


# --- pages -------------------------------------------------------------------------------------


def test_the_main_table_holds_the_cards_numbers(page: Node, cards: dict[str, Scorecard]) -> None:
    (table,) = page.all("table", "main")
    rows = table.all("tbody")[0].all("tr")
    ranked = [row.all("th")[0].text for row in rows]
    assert ranked == list(reversed(board.MODELS))  # as the fixture's strengths are
    for row in rows:
        card = cards[row.all("th")[0].text]
        shown = {c.attributes["data-label"]: c for c in row.all("td")}
        lead = leading(card.strict)
        expected = {
            "Published IN": of(card.published, "top_100"),
            "Published CO": of(card.published, "tau"),
            "Stricter IN": of(lead, "top_100"),
            "Stricter CO": of(lead, "tau"),
        }
        for label, stability in expected.items():
            cell = shown[label]
            assert cell.attributes["data-value"] == str(stability.ones.mean)
            assert cell.text.startswith(number(stability.ones.mean))
            assert f"{number(stability.dropped.mean)} dropping 4" in cell.text
            assert f"random sign {number(stability.random_sign.mean)}" in cell.text
            assert f"[{number(stability.ones.low)}, {number(stability.ones.high)}]" in cell.text


def test_the_picture_that_never_moves_is_there_and_says_why(page: Node) -> None:
    (table,) = page.all("table", "strict")
    groups = table.all("tbody")
    assert [g.all("tr")[0].text.split()[0] for g in groups] == list(board.EXPLAINERS)
    fixed = groups[-1]
    assert "stability alone proves nothing" in fixed.text
    assert len(fixed.all("tr")) == 1 + len(board.MODELS)
    first = fixed.all("tr")[1].all("td")
    assert first[0].attributes["data-value"] == "1.0"


def test_it_is_sortable_and_a_plain_table_without_a_script(home: Path, page: Node) -> None:
    for css in ("main", "strict"):
        (table,) = page.all("table", css)
        assert "sortable" in table.attributes["class"]
        (head,) = table.all("tr", "sort-by")
        width = len(head.all("th"))
        for row in table.all("tbody")[0].all("tr"):
            if "group" in row.attributes.get("class", ""):
                continue
            cells = [c for c in row.children if isinstance(c, Node)]
            assert len(cells) == width  # a header's index is its column's
            for th, cell in zip(head.all("th"), cells, strict=True):
                # numbers say what they are, so that "1.000" and "−0.1" do not sort as words
                assert ("num" in th.attributes.get("class", "")) == (
                    "data-value" in cell.attributes
                )
    before_script = (home / "leaderboard.html").read_text().split("<script>")[0]
    assert "<button" not in before_script  # nothing that would do nothing
    assert not re.search(r"\shidden\b", before_script.split("</style>")[1])


def test_nothing_points_outside_and_identifiers_are_unique(home: Path) -> None:
    text = (home / "leaderboard.html").read_text()
    links = re.findall(r"https?://[^\s\"'<]+", text)
    assert all(link.startswith("http://www.w3.org/") for link in links)
    assert not re.search(r"(?:src|href)=\"(?!#|data:)", text)
    assert "default-src &#39;none&#39;; img-src data:;" in text
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    used = set(re.findall(r'(?:url\(#|href="#|aria-(?:labelled|described)by=")([^)"]+)', text))
    assert used <= set(ids)


EVIL = "<script>alert(1)</script>&\"'{{7*7}}|$x_1$"


def test_text_that_is_sent_in_is_harmless(cards: dict[str, Scorecard], tmp_path: Path) -> None:
    card = cards["natural"]
    told = {"arch": EVIL, "objective": EVIL, "trained_on": EVIL, "command": EVIL, "sha256": EVIL}
    model = replace(card.model, label=EVIL, settings={EVIL: EVIL}, **told)
    scenes = tuple(replace(s, image_id=EVIL, before=EVIL, explainer=EVIL) for s in card.scenes)
    strict = tuple(replace(one, explainer=EVIL + one.explainer) for one in card.strict)
    sent = replace(
        card, model=model, data=EVIL, notes=(EVIL,), experiment=EVIL, strict=strict, scenes=scenes
    )
    (tmp_path / "leaderboard").mkdir()
    (tmp_path / "leaderboard" / sent.file_name).write_text(dumps(sent.to_dict()))
    reporting.write_leaderboard(tmp_path)
    text = (tmp_path / "leaderboard.html").read_text()
    assert "<script>alert" not in text
    assert EVIL in parse(text).text
    assert len(parse(text).all("script")) == 1
    markdown = (tmp_path / "leaderboard.md").read_text()
    assert "<script>" not in markdown
    (row,) = [line for line in markdown.splitlines() if line.startswith("| &lt;script")]
    assert len(re.findall(r"(?<!\\)\|", row)) == 13


def test_markdown_is_a_table(home: Path, cards: dict[str, Scorecard]) -> None:
    lines = (home / "leaderboard.md").read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("| Model |"))
    table = lines[start : start + 2 + len(board.MODELS)]
    assert {line.count("|") for line in table} == {13}
    assert set(table[1]) <= set("| :-")
    assert [line.split(" | ")[0][2:] for line in table[2:]] == list(reversed(board.MODELS))
    share = cards["natural"].clean
    assert share and f"{number(share.share.mean)} [{number(share.share.low)}" in table[-1]


# --- the paper ---------------------------------------------------------------------------------


def test_the_papers_values_are_called_unverified(page: Node) -> None:
    (table,) = page.all("table", "paper")
    assert "unverified" in table.text
    assert "another network" in table.text
    for row, line in zip(FASHION_MNIST, table.all("tbody")[0].all("tr"), strict=True):
        shown = [c.text for c in line.all("td")[:4]]
        values = (row.natural, row.adversarial, row.intersection, row.kendall)
        assert shown == [f"{value:.4f}" for value in values]
    assert paper_rows("mnist_1k") == MNIST
    assert paper_rows("photos") == ()
    assert paper_breaks(FASHION_MNIST) == ["CO falls from Madry to IG-NORM, 0.625 to 0.617"]
    assert paper_breaks(MNIST) == []


def at(mean: float, reach: float = 0.01) -> Estimate:
    return Estimate(n=9, mean=mean, low=mean - reach, high=mean + reach)


def test_a_step_of_the_order() -> None:
    assert step(at(0.4), at(0.5)) == "holds"
    assert step(at(0.5), at(0.4)) == "fails"
    assert step(at(0.4), at(0.5, 0.2)) == "undecided"
    assert step(at(0.5), at(0.49), no_worse=True) == "holds"
    assert step(at(0.5), at(0.4), no_worse=True) == "fails"
    assert step(Estimate(n=1, mean=0.1), at(0.9)) == "undecided"


def test_the_order_names_the_step_that_breaks_it(cards: dict[str, Scorecard]) -> None:
    def with_in(model: str, value: float) -> Scorecard:
        card = cards[model]
        strict = tuple(
            replace(one, intersection=replace(of(one, "top_100"), ones=at(value)), kendall=None)
            for one in card.strict
        )
        return replace(card, published=None, strict=strict)

    values = (0.3, 0.5, 0.7, 0.7)
    good = [with_in(m, v) for m, v in zip(board.MODELS, values, strict=True)]
    (order,) = orderings(good, "integrated_gradients")
    assert (order.verdict, order.remarks) == ("holds", ())
    assert order.chain == "natural 0.300 < adversarial 0.500 < rar_norm 0.700 ≤ rar_sum_norm 0.700"
    (order,) = orderings([*good[:2], with_in("rar_norm", 0.4), good[3]], "gradient")
    assert (order.verdict, order.remarks) == ("fails", ("rar_norm is below adversarial",))
    (order,) = orderings([good[0], with_in("adversarial", 0.31), *good[3:]], "gradient")
    assert order.verdict == "undecided"
    assert order.remarks == ("intervals meet: natural and adversarial", "no rar_norm here")


# --- the figure --------------------------------------------------------------------------------


def test_labels_of_the_trade_off_do_not_meet_however_close_the_points() -> None:
    points = [Point(f"a_model_{i}_with_a_name", i, at(0.9), at(0.5, 0.1)) for i in range(9)]
    for width, kind in ((5.6, "wide"), (3.45, "narrow")):
        plot = TradeoffPlot("t", "title", "IN", points, chance=0.1, still=1.0)
        text = plot.draw(width, kind)
        found = re.findall(r'translate\(([\d.]+) ([\d.]+)\)">([^<]*)</text>', text)
        found += re.findall(r'<text [^>]*\bx="([\d.]+)" y="([\d.]+)"[^>]*>([^<]*)</text>', text)
        (edge,) = {x for x, _, words in found if words.startswith("a_model")}
        lines = [(float(y), words) for x, y, words in found if x == edge]
        assert len([w for _, w in lines if w.startswith("a_model")]) == 9
        heights = sorted(y for y, _ in lines)
        assert min(np.diff(heights)) > 9  # points, the size of its letters


def test_names_lose_what_all_begin_with_and_break_at_signs() -> None:
    assert without_prefix(["zoo:mnist_art", "zoo:mnist_natural"]) == ["art", "natural"]
    assert without_prefix(["art", "artful"]) == ["art", "artful"]
    assert without_prefix(["mnist_art"]) == ["mnist_art"]
    assert without_prefix(["a_b", "a_b"]) == ["b", "b"]
    assert wrapped("rar_sum_norm", 8) == "rar_sum_\nnorm"
    assert wrapped("one two", 20) == "one two"
    assert wrapped("x" * 30, 10) == "x" * 9 + "…"


def test_other_experiments_of_the_lab_may_have_pgd_alone(tmp_path: Path) -> None:
    fixture.build(tmp_path)
    reporting.write_leaderboard(tmp_path)
    (card,) = read(tmp_path)
    assert (card.data, card.published, card.strict) == ("photos", None, ())
    assert card.adversarial is not None
