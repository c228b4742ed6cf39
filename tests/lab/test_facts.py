"""What is recorded of imitations, patches and certificates, computed again by hand."""

import numpy as np
import pytest
import torch

import attacks
import robustlab as rl
from robustlab.core.judge import explain_maps
from robustlab.core.streaming import logits_of
from robustlab.explainers.defended.certificate import certified_overlap
from robustlab.lab.run import run_experiment
from robustlab.records import Store
from robustlab.reporting import load, summarise
from robustlab.reporting.report import report_html
from tests.lab import tiny


def run(folder, **changes):
    spec = tiny.spec(images=2, saving=[], gallery={"images": 2}, **changes)
    outcome = run_experiment(spec, folder, workers=1)
    assert outcome.crashed == ()
    found, _ = Store(folder).load_all()
    return [r for r in found if r.cell.role == "attack"], Store(folder)


def scene(record, explainer):
    batch = rl.data.load("mnist_5k").pick(record.cell.ids)
    return rl.models.load("small_cnn"), rl.explainers.build(explainer), batch


def test_an_imitation_says_how_like_its_target_it_is(tmp_path):
    records, store = run(tmp_path, attacks=[{"name": "target_map", "steps": 3}])
    for record in records:
        (name,) = record.cell.explainers
        model, explainer, batch = scene(record, name)
        made = rl.attack(
            model, explainer, attacks.build("target_map", steps=3), batch, rl.Budget("linf", 0.1)
        )
        target = made.clean_maps.roll(-1, 0)
        before, after = (torch.softmax(logits_of(model, x), 1) for x in (batch.images, made.images))
        for i, image in enumerate(record.images):
            facts = image.facts[name]
            assert facts["pearson_to_target"] == pytest.approx(pearson(target, made.maps, i))
            assert facts["pearson_to_original"] == pytest.approx(
                pearson(made.clean_maps, made.maps, i)
            )
            assert facts["pearson_to_target_before"] == pytest.approx(
                pearson(target, made.clean_maps, i)
            )
            change = float((after[i] - before[i]).abs().max())
            assert facts["output_change"] == pytest.approx(change, abs=1e-7)
            assert facts["image_ssim"] == pytest.approx(ssim(batch.images, made.images, i))
        with np.load(store.artefact_path(record.key)) as arrays:
            shown = torch.from_numpy(arrays["maps_target"][:, 0].astype(np.float32))
        scale = target / target.abs().amax((1, 2), keepdim=True)
        torch.testing.assert_close(shown, scale, atol=1e-3, rtol=0)


@pytest.mark.parametrize("toward", ["runner_up", 3])
def test_a_targeted_attack_says_whom_it_led_to_its_class(tmp_path, toward):
    attack = {"name": "pgd", "steps": 8, "toward": toward}
    records, store = run(tmp_path, attacks=[attack], budgets=[{"norm": "linf", "epsilon": [0.3]}])
    found = []
    for record in records:
        model, _, batch = scene(record, record.cell.explainers[0])
        order = logits_of(model, batch.images).argsort(1, descending=True)
        for i, image in enumerate(record.images):
            wanted = int(order[i, 1]) if toward == "runner_up" else toward
            hit = None if image.prediction == wanted else float(image.prediction_after == wanted)
            assert {facts["reached"] for facts in image.facts.values()} == {hit}
            found.append(hit)
    known = [hit for hit in found if hit is not None]
    assert known and sum(known) > 0
    for row in summarise(load(store.folder)):
        if row.role == "attack":
            assert (row.n_reached, row.n_aimed) == (sum(known), len(known))
            assert row.reached_rate == sum(known) / len(known)
    assert f"{int(sum(known))} of {len(known)} led to the class" in report_html(load(store.folder))


def test_an_attack_that_only_leaves_a_class_leads_to_none(tmp_path):
    records, store = run(tmp_path, attacks=[{"name": "pgd", "steps": 2}])
    assert all(
        "reached" not in facts for r in records for i in r.images for facts in i.facts.values()
    )
    assert {row.reached_rate for row in summarise(load(store.folder))} == {None}


def pearson(a, b, i):
    return np.corrcoef(a[i].numpy().ravel(), b[i].numpy().ravel())[0, 1]


def ssim(a, b, i):
    from skimage.metrics import structural_similarity

    return structural_similarity(
        a[i, 0].double().numpy(), b[i, 0].double().numpy(), data_range=1.0,
        gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
    )  # fmt: skip


def test_a_patch_says_how_much_of_the_map_lies_on_it(tmp_path):
    patch = {"name": "patch", "steps": 2}
    records, _ = run(
        tmp_path, attacks=[patch], budgets=[{"norm": "patch", "epsilon": 0.1}], target="current"
    )
    for record in records:
        (name,) = record.cell.explainers
        model, explainer, batch = scene(record, name)
        made = rl.attack(model, explainer, attacks.build(**patch), batch,
                         rl.Budget("patch", 0.1), target="current")  # fmt: skip
        on = (made.images != batch.images).any(1)
        for i, image in enumerate(record.images):
            positive = made.maps[i].clamp(min=0)
            expected = float(positive[on[i]].sum() / positive.sum())
            assert image.facts[name]["energy_in_patch"] == pytest.approx(expected, rel=1e-4)
            positive = made.clean_maps[i].clamp(min=0)
            expected = float(positive[on[i]].sum() / positive.sum())
            before = image.facts[name]["energy_in_patch_before"]
            assert before == pytest.approx(expected, rel=1e-4, abs=1e-12)


def test_a_certificate_stands_beside_the_attack(tmp_path):
    options = {"samples": 64, "sigma": 0.3, "gamma": 0.1, "tau": 0.2}
    records, _ = run(
        tmp_path,
        explainers=[{"name": "sparsified_smooth_grad", **options}],
        attacks=[{"name": "top_k", "k": 50, "steps": 1}],
        budgets=[{"norm": "l2", "epsilon": 0.01}],
    )
    (record,) = records
    model, _, batch = scene(record, "gradient")
    raw = rl.explainers.build("sparsified_smooth_grad", **options).explain(
        model, batch.images, logits_of(model, batch.images).argmax(1), ids=batch.ids
    )
    expected = certified_overlap(raw, 50, 0.01, sigma=0.3, samples=64)
    for i, image in enumerate(record.images):
        facts = image.facts["sparsified_smooth_grad"]
        assert facts["certified_overlap"] == pytest.approx(int(expected[i]) / 50)
        assert facts["certified_radius"] == 0.01
        drift = image.values["sparsified_smooth_grad"]["top_k_intersection"]
        assert facts["certified_overlap"] <= drift


def test_a_concealment_says_what_is_shown_and_what_is_used(tmp_path):
    options = {"images": 60, "epochs": 1, "held_out": 20, "learning_rate": 1e-3}
    conceal = {"name": "concealment", "against": "gradient", **options}
    records, store = run(
        tmp_path,
        attacks=[conceal],
        budgets=[],
        models=[{"name": "small_cnn", "weights": "decoy_mnist"}],
        data={"name": "decoy_mnist"},
    )
    true = rl.models.load("small_cnn", weights="decoy_mnist")
    (training,), _ = store.load_trainings()
    fooled = rl.models.load("small_cnn", weights=store.weights_path(training.key))
    for record in records:
        batch = rl.data.load("decoy_mnist").pick(record.cell.ids)
        hidden = batch.images.clone()
        hidden[..., :4, :4] = 0
        for name in record.cell.explainers:
            explainer = rl.explainers.build(name)
            targets = logits_of(true, batch.images).argmax(1)
            for model, when in ((true, "_before"), (fooled, "")):
                maps = explain_maps(model, explainer, batch.images, targets, None).clamp(min=0)
                seen, unseen = (logits_of(model, x).argmax(1) for x in (batch.images, hidden))
                for i, image in enumerate(record.images):
                    facts = image.facts[name]
                    share = 16 / 784  # of a map that points nowhere
                    if maps[i].sum() > 0:
                        share = float(maps[i, :4, :4].sum() / maps[i].sum())
                    assert facts[f"energy_hidden{when}"] == pytest.approx(share, rel=1e-4)
                    assert facts[f"changed_when_hidden{when}"] == float(seen[i] != unseen[i])
                    assert facts[f"right_when_hidden{when}"] == float(unseen[i] == batch.labels[i])


def test_an_explainers_own_noise_is_measured_without_an_attack(tmp_path):
    noisy = {"name": "smooth_grad", "samples": 2, "seed": 5}
    spec = tiny.spec(
        images=2, saving=[], explainers=["gradient", noisy], metrics=["spearman", "deletion"]
    )
    assert run_experiment(spec, tmp_path, workers=1).crashed == ()
    records, _ = Store(tmp_path).load_all()
    batch = rl.data.load("mnist_5k").batch(2)
    model = rl.models.load("small_cnn")
    first, other = (
        rl.explain(model, rl.explainers.build(**{**noisy, "seed": seed}), batch) for seed in (5, 6)
    )
    expected = rl.metrics.build("spearman")(first, other)
    assert float(expected.max()) < 1  # canary: the same draws again would be 1
    for record in records:
        for image in record.images:
            found = {k: v for f in image.facts.values() for k, v in f.items() if "rerun" in k}
            if record.cell.role == "none":
                i = batch.ids.index(image.id)
                assert found == {"rerun spearman": pytest.approx(float(expected[i]))}
                assert "rerun spearman" in image.facts["smooth_grad"]
            else:
                assert not found
