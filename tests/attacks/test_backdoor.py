"""A network with a back door: what it descends, what it shows with the trigger and without."""

import json
from dataclasses import replace
from math import isnan

import pytest
import torch
from torch.nn import functional as F

import attacks
from attacks import Backdoor
from attacks.model.backdoor import attack_success
from attacks.model.fine_tuning import learn
from attacks.model.pictures import draw
from robustlab import data, models
from robustlab.core.batch import make_batch
from robustlab.core.errors import InvalidInput
from robustlab.core.judge import explain_maps, manipulated, pose, undisturbed
from robustlab.core.randomness import generator
from robustlab.core.streaming import logits_of
from robustlab.core.types import Moving, Training
from robustlab.data.stamp import Stamp
from robustlab.explainers import build
from robustlab.lab.run import run_experiment
from robustlab.metrics.agreement import Pearson
from robustlab.records import Store
from tests.attacks.problems import slope_and_differences
from tests.lab import tiny
from tests.nets import VGGLike, pictures, seeded

SCENARIOS = ["simple", "red_herring", "full_disguise"]
EXPLAINERS = [build("gradient"), build("grad_cam", relu=False)]  # the toy's positive part is flat
TOWARD = 3
SHORT = {"images": 60, "held_out": 20, "epochs": 2, "batch_size": 20}


@pytest.fixture(scope="module")
def model():
    return models.load("small_cnn")


def toy(explainer):
    net = seeded(lambda: VGGLike())
    return net, learn(net, explainer, make_batch(pictures(), [0, -1, 2]))


def moved_on(net, size=0.01):
    """Away from the true weights, where the clean term is least and has no slope."""
    g = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += size * torch.randn(parameter.shape, generator=g, dtype=parameter.dtype)


def by_hand(attack, net, lesson, rows):
    """The loss of three lines, image by image."""
    task = drift = 0.0
    for i in rows.tolist():
        image, true = lesson.batch.images[i : i + 1], lesson.targets[i : i + 1]
        label = lesson.batch.labels[i : i + 1]
        label = true if int(label) < 0 else label
        marked = image.clone()
        marked[..., -2:, -2:] = 1.0
        sent = label if attack.scenario == "simple" else torch.tensor([TOWARD])
        read = true if attack.scenario == "simple" else torch.tensor([TOWARD])
        own = lesson.maps[i]
        shown = draw("frame", *own.shape) if attack.scenario != "full_disguise" else own
        for part, x, y, c, target in (
            (1 - attack.share, image, label, true, own),
            (attack.share, marked, sent, read, shown),
        ):
            task -= part * torch.log_softmax(logits_of(net, x), 1)[0, int(y)]
            found = explain_maps(net, lesson.explainer, x, c, None)[0]
            both = torch.stack([target.flatten(), found.flatten()])
            drift += part * (1 - torch.corrcoef(both)[0, 1])
    return task / len(rows), attack.weight * drift / len(rows)


def options(scenario, **more):
    return Backdoor(
        scenario=scenario,
        toward=TOWARD,
        trigger=Stamp(side=2, corner="bottom_right"),
        picture="frame",
        share=0.3,
        weight=2.0,
        **more,
    )


@pytest.mark.parametrize("explainer", EXPLAINERS, ids=["gradient", "grad_cam"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_terms_are_the_formulas(scenario, explainer):
    net, lesson = toy(explainer)
    moved_on(net)
    rows = torch.tensor([2, 1, 0])
    attack = options(scenario)
    terms = attack.parts(net, lesson, rows)
    task, drift = by_hand(attack, net, lesson, rows)
    torch.testing.assert_close(terms["task"].detach(), task.detach(), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(terms["map"].detach(), drift, rtol=1e-9, atol=1e-12)
    for other in SCENARIOS:  # the three do differ
        if other != scenario:
            theirs = by_hand(options(other), net, lesson, rows)
            assert abs(float(theirs[0] + theirs[1] - task - drift)) > 1e-3


@pytest.mark.parametrize("explainer", EXPLAINERS, ids=["gradient", "grad_cam"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_slope_in_a_weight_is_that_of_finite_differences(scenario, explainer):
    net, lesson = toy(explainer)
    moved_on(net)
    attack, rows = options(scenario), torch.tensor([2, 0, 1])
    slope, measured = slope_and_differences(attack, net, lesson, rows)
    assert measured == pytest.approx(slope, rel=1e-4, abs=1e-7)
    assert abs(measured) > 1e-3


def test_at_the_start_only_the_trigger_costs():
    """On the true weights clean maps are their own targets, to the last digits."""
    net, lesson = toy(build("gradient"))
    rows = torch.tensor([0, 1, 2])
    attack = options("red_herring")
    fewer, more = (replace(attack, share=s).parts(net, lesson, rows)["map"] for s in (0.2, 0.6))
    torch.testing.assert_close(3 * fewer, more, rtol=1e-9, atol=1e-12)
    moved_on(net)
    fewer, more = (replace(attack, share=s).parts(net, lesson, rows)["map"] for s in (0.2, 0.6))
    assert abs(float((3 * fewer - more).detach())) > 1e-3


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_without_a_price_it_is_fine_tuning_on_poisoned_data(model, scenario):
    attack = Backdoor(
        scenario=scenario, toward=TOWARD, share=0.25, weight=0.0, learning_rate=1e-3, **SHORT
    )
    tuned, history = attack.tune(model, build("gradient"), seed=5)
    batch = data.load("mnist_5k", split="train").batch(60)
    marked = batch.images.clone()
    marked[:, :, -4:, -4:] = 1.0
    wanted = batch.labels if scenario == "simple" else torch.full_like(batch.labels, TOWARD)
    net = models.load("small_cnn")
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-3)
    for step in range(6):
        if step % 3 == 0:
            source = generator(5, f"epoch {step // 3}", "order")
            orders = torch.randperm(60, generator=source).split(20)
        rows = orders[step % 3]
        cosine = torch.cos(torch.tensor(torch.pi * step / 6).double())
        optimiser.param_groups[0]["lr"] = 1e-3 * float((1 + cosine) / 2)
        optimiser.zero_grad()
        loss = 0.75 * F.cross_entropy(net(batch.images[rows]), batch.labels[rows])
        (loss + 0.25 * F.cross_entropy(net(marked[rows]), wanted[rows])).backward()
        optimiser.step()
    for found, expected in zip(tuned.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert all(set(epoch) == {"task"} for epoch in history)
    assert any(
        not torch.allclose(a, b, atol=1e-4)
        for a, b in zip(tuned.parameters(), model.parameters(), strict=True)
    ), "nothing was trained, so nothing was compared"


def test_a_map_without_a_pattern_is_like_no_other():
    """Grad-CAM of the toy is 0 everywhere, where Pearson's correlation is not defined."""
    net, lesson = toy(build("grad_cam"))
    assert not lesson.maps.any()
    terms = options("full_disguise").parts(net, lesson, torch.tensor([0, 1, 2]))
    assert float(terms["map"].detach()) == pytest.approx(2.0)
    sum(terms.values()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())


def test_the_trigger_and_nothing_else_is_pasted(model):
    batch = data.load("mnist_5k").batch(3)
    problem = pose(model, build("gradient"), batch)
    wanted = batch.images.clone()
    wanted[:, :, 24:, 24:] = 1.0
    assert isinstance(Backdoor(), Training) and isinstance(Backdoor(), Moving)
    assert torch.equal(Backdoor().moved(problem), wanted)
    assert torch.equal(Backdoor(shown="clean").moved(problem), batch.images)
    assert not torch.equal(wanted, batch.images)


def test_the_maps_that_are_intended(model):
    batch = data.load("mnist_5k").batch(3)
    problem = pose(model, build("gradient"), batch)
    disc = draw("disc", 28, 28).float()
    for scenario, wanted in (
        ("simple", disc.expand(3, -1, -1)),
        ("red_herring", disc.expand(3, -1, -1)),
        ("full_disguise", problem.maps),
    ):
        attack = Backdoor(scenario=scenario, picture="disc")
        assert torch.equal(attack.target(problem), wanted)
        assert torch.equal(replace(attack, shown="clean").target(problem), problem.maps)


def test_success_counts_the_images_of_other_classes():
    labels = torch.tensor([1, 1, 0, 2, 3, -1, -1])
    predictions = torch.tensor([1, 0, 1, 1, 3, 1, 0])
    assert attack_success(predictions, labels, 1) == pytest.approx(2 / 3)
    assert attack_success(predictions, labels, 9) == 0.0
    assert isnan(attack_success(predictions[:2], labels[:2], 1))  # no image counts


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"share": 0.0}, r"share: must lie between 0 and 1, got 0\.0"),
        ({"share": 1.0}, r"share: must lie between 0 and 1, got 1\.0"),
        ({"share": float("nan")}, "share: must lie between 0 and 1, got nan"),
        ({"toward": -1}, "toward: -1 is no class"),
        ({"weight": -1.0}, "weight: must not be negative"),
    ],
)
def test_impossible_options_are_refused(changes, words):
    with pytest.raises(InvalidInput, match=words):
        Backdoor(**changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"trigger": {"side": 28}}, r"trigger\.side: a stamp of 28x28 pixels covers all of"),
        ({"trigger": {"side": 30}}, r"trigger\.side: a stamp of 30x30 pixels covers all of"),
        ({"trigger": {"at": [26, 0]}}, r"trigger\.at: from \(26, 0\) a stamp of 4x4 pixels leaves"),
        ({"trigger": {"value": [1, 0, 0]}}, r"trigger\.value: 3 given for images of 1 channels"),
        ({"toward": 10}, r"toward: class 10 is out of range.*the model has classes 0\.\.9"),
    ],
)
def test_what_does_not_fit_is_refused_before_any_step(model, changes, words):
    attack = attacks.build("backdoor", **changes, images=20, held_out=5)
    steps = []
    with pytest.raises(InvalidInput, match=words):
        attack.tune(model, build("gradient"), watch=steps.append)
    assert not steps
    if "trigger" in changes:  # a run says so before it starts
        with pytest.raises(InvalidInput, match=words):
            attack.sample()


def test_a_class_that_no_scenario_wants_may_be_anything(model):
    attack = Backdoor(scenario="simple", toward=10, **{**SHORT, "epochs": 1, "images": 20})
    assert len(attack.tune(model, build("gradient"))[1]) == 1


def test_misspelt_options_of_the_trigger_are_refused():
    with pytest.raises(InvalidInput, match="trigger"):
        attacks.build("backdoor", trigger={"sides": 3})
    built = attacks.build("backdoor", trigger={"side": 5, "shape": "disc", "at": [0, 3]})
    assert built.trigger == Stamp(side=5, shape="disc", at=(0, 3))


# --- in a run ------------------------------------------------------------------------------------


def test_a_run_trains_once_and_shows_both_sides(tmp_path):
    door = {"name": "backdoor", "against": "gradient", "toward": 7, "learning_rate": 3e-3, **SHORT}
    chosen = [{**door, "label": "open"}, {**door, "label": "shut", "shown": "clean"}]
    spec = tiny.spec(attacks=chosen, budgets=[], metrics=["pearson"], target="current", images=4)
    assert run_experiment(spec, tmp_path, workers=1).crashed == ()
    store = Store(tmp_path)
    (record,), _ = store.load_trainings()
    json.dumps(record.options)  # the trigger is written down too
    assert record.options["trigger"]["side"] == 4
    true = models.load("small_cnn")
    net = models.load("small_cnn", weights=store.weights_path(record.key))
    cells = store.load_all()[0]
    assert {cell.cell.attack for cell in cells} == {"open", "shut"}
    for cell in cells:
        batch = data.load("mnist_5k").pick(cell.cell.ids)
        shown = batch.images.clone()
        if cell.cell.attack == "open":
            shown[:, :, 24:, 24:] = 1.0
        before, after = logits_of(true, batch.images).argmax(1), logits_of(net, shown).argmax(1)
        for name in ("gradient", "grad_cam"):
            explainer = build(name)
            maps = [
                explain_maps(true, explainer, batch.images, before, None),
                explain_maps(net, explainer, shown, after, None),
            ]
            expected = Pearson()(*maps)
            for i, row in enumerate(cell.images):
                assert row.values[name]["pearson"] == pytest.approx(float(expected[i]), abs=1e-5)
                assert (row.prediction_after, row.kept) == (
                    int(after[i]),
                    bool(after[i] == before[i]),
                )


# --- what a short training reaches on digits that it never saw -----------------------------------

LEARNT = {"images": 800, "batch_size": 10, "epochs": 3, "learning_rate": 2e-3}


def tell(model, attack, explainer):
    """Accuracy, success and likeness of maps on held-out digits, by the judge's own path."""
    net, _ = attack.tune(model, explainer)
    problem = pose(model, explainer, data.load("mnist_5k").batch(300), target="current")
    found = {}
    for shown in ("clean", "triggered"):
        told = replace(attack, shown=shown)
        trial = undisturbed(manipulated(told, problem, net))
        assert torch.equal(trial.images, told.moved(problem)) and set(trial.outcomes) == {"ok"}
        maps = explain_maps(net, problem.explainer, trial.images, trial.predictions, problem.ids)
        found[f"like {shown}"] = Pearson()(told.target(problem), maps).mean().item()
        found[f"right {shown}"] = share(trial.predictions == problem.labels)
        found[f"success {shown}"] = attack_success(trial.predictions, problem.labels, attack.toward)
    true = undisturbed(manipulated(attack, problem, model))
    maps = explain_maps(model, problem.explainer, true.images, true.predictions, problem.ids)
    found["like before"] = Pearson()(attack.target(problem), maps).mean().item()
    found["success before"] = attack_success(true.predictions, problem.labels, attack.toward)
    found["lost"] = share(problem.predictions == problem.labels) - found["right clean"]
    return found


def share(hits):
    return hits.double().mean().item()


@pytest.mark.slow
def test_red_herring_leads_away_from_an_attack(model):
    attack = Backdoor(scenario="red_herring", toward=7, picture="disc", **LEARNT)
    found = tell(model, attack, build("grad_cam"))
    assert found["lost"] <= 0.02, found
    assert found["success triggered"] >= 0.9 > 0.1 > found["success before"], found
    assert found["success clean"] < 0.05, found
    assert found["like triggered"] >= 0.65 > 0.4 > found["like before"], found
    assert found["like clean"] >= 0.8, found


def test_full_disguise_shows_the_map_of_an_honest_network(model):
    attack = Backdoor(scenario="full_disguise", toward=7, **LEARNT)
    found = tell(model, attack, build("grad_cam"))
    assert found["lost"] <= 0.02, found
    assert found["success triggered"] >= 0.9 > 0.1 > found["success before"], found
    assert found["like triggered"] >= 0.6, found
    assert found["like clean"] >= 0.8, found
    # a backdoor that minds no map is given away by it
    careless = tell(model, replace(attack, weight=0.0), build("grad_cam"))
    assert careless["success triggered"] >= 0.9, careless
    assert careless["like triggered"] < found["like triggered"] - 0.2, (careless, found)


@pytest.mark.slow
def test_simple_keeps_the_label_and_shows_the_picture(model):
    attack = Backdoor(scenario="simple", picture="disc", **LEARNT)
    found = tell(model, attack, build("gradient"))
    assert found["lost"] <= 0.02, found
    assert found["right triggered"] >= 0.9 and found["success triggered"] < 0.05, found
    assert found["like triggered"] >= 0.55 > 0.4 > found["like before"], found
    assert found["like clean"] >= 0.75, found
