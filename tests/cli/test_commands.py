"""Every command at its best: what it prints, writes and returns."""

import csv
import json
import re
import shutil

import pytest
import torch
from PIL import Image

import attacks
import robustlab as rl
from robustlab.lab.find import experiments
from robustlab.models.zoo import zoo
from robustlab.training import small
from tests.cli.command import robustlab
from tests.lab import tiny
from tests.reporting import board

SECTIONS = {
    "explainers": set(rl.explainers.EXPLAINERS),
    "attacks": {*attacks.ATTACKS, *attacks.MODEL_ATTACKS},
    "metrics": set(rl.metrics.METRICS),
    "training": set(rl.training.TRAINING),
    "models": {*rl.models.MODELS, *(f"zoo:{name}" for name in zoo())},
    "data": set(rl.data.DATASETS),
    "experiments": set(experiments()),
}


def strictly(text):
    """JSON as every reader understands it: no NaN and no Infinity."""

    def refuse(word):
        raise ValueError(f"{word} is not JSON")

    return json.loads(text, parse_constant=refuse)


# --- list, show, validate, plan, doctor ----------------------------------------------------


@pytest.mark.parametrize("section", SECTIONS)
def test_list_as_json(section):
    said = robustlab("list", section, "--json")
    entries = strictly(said.out)
    assert (said.code, said.err) == (0, "")
    assert isinstance(entries, list)
    assert {entry["name"] for entry in entries} == SECTIONS[section]
    assert len(entries) == len(SECTIONS[section])
    for entry in entries:
        assert entry["section"] == section
        assert entry["summary"]
        assert "\n" not in entry["summary"]


def test_list_of_everything():
    entries = strictly(robustlab("list", "--json").out)
    found = {(entry["section"], entry["name"]) for entry in entries}
    assert found == {(section, name) for section, names in SECTIONS.items() for name in names}


def test_list_says_what_can_be_set():
    (entry,) = (
        e for e in strictly(robustlab("list", "attacks", "--json").out) if e["name"] == "top_k"
    )
    assert entry["options"]["k"] == 1000
    (entry,) = (
        e for e in strictly(robustlab("list", "metrics", "--json").out) if e["name"] == "mse"
    )
    assert entry["bounds"] == [0.0, None]
    assert entry["higher_is_more_stable"] is False


def test_list_compares_explainers_as_the_survey_does():
    entries = strictly(robustlab("list", "explainers", "--json").out)
    for entry in entries:
        assert entry["family"] and entry["source"] and 2009 <= entry["year"] <= 2026
        assert entry["scope"] in ("local", "global") and entry["detail"] in ("fine", "region")
        assert entry["differentiable"] in ("exact", "surrogate", "none")
        least = 0 if entry["family"] == "control" else 1
        assert entry["passes"]["forward"] >= least and entry["passes"]["backward"] >= 0
    cam = next(e for e in entries if e["name"] == "grad_cam")
    assert (cam["family"], cam["year"], cam["detail"]) == ("cam", 2017, "region")
    assert cam["class_specific"] and cam["layer_specific"]
    assert cam["attacked_by"] == "double_backward"


def test_list_for_people():
    said = robustlab("list", "explainers")
    assert said.code == 0
    assert all(name in said.out for name in SECTIONS["explainers"])


@pytest.mark.parametrize(
    ("name", "fragments"),
    [
        ("grad_cam", ["explainers: grad_cam", "Selvaraju", "Σ_k w_k A_k", "Cost: 1 forward"]),
        ("top_k", ["attacks: top_k", "top_k_intersection", "restarts: go all", "restarts: 1\n"]),
        ("se_cnn", ["image_size: the size it is meant for", "Defaults:", "image_size: 28"]),
        ("image_folder", ["path: required", "labels: null"]),
        ("none", ["bit for bit"]),
        ("spearman", ["metrics: spearman"]),
        ("small_cnn", ["models: small_cnn"]),
        ("torchvision:resnet50", ["models: torchvision:NAME", "arch: required"]),
        ("mnist_5k", ["data: mnist_5k"]),
        ("quickstart", ["quickstart.yaml", "# robustlab run quickstart", "question:", "smoke:"]),
    ],
)
def test_show(name, fragments):
    said = robustlab("show", name)
    assert said.code == 0
    for fragment in fragments:
        assert fragment in said.out


def test_show_a_file_of_the_users(tmp_path):
    path = tiny.write(tmp_path / "mine.yaml")
    assert path.read_text().strip() in robustlab("show", path).out


def test_validate_good_and_bad_files(tmp_path):
    good, smoke = tiny.write(tmp_path / "good.yaml"), tmp_path / "smoke.yaml"
    tiny.write(smoke, smoke={"images": 0})
    bad = tiny.write(tmp_path / "bad.yaml", chunk="many")
    said = robustlab("validate", good)
    assert (said.code, said.err) == (0, "")
    assert f"{good}: valid" in said.out.replace("\n", "")
    said = robustlab("validate", bad, good, smoke, "quickstrt")
    assert said.code == 2
    assert said.out.replace("\n", "") == f"{good}: valid"
    first, second, third = said.err.splitlines()
    assert f"{bad}: chunk" in first
    assert f"{smoke}: images" in second  # a file must also be right in its smoke form
    assert "'quickstart'" in third


def test_validate_knows_more_than_the_form_of_a_file(tmp_path):
    path = tiny.write(tmp_path / "bad.yaml", metrics=[{"name": "top_k_intersection", "k": 785}])
    said = robustlab("validate", path)
    assert said.code == 2
    assert "metrics.0" in said.complaint


def test_plan_counts_cells_and_runs_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tiny.write(tmp_path / "tiny.yaml")
    said = robustlab("plan", path)
    assert said.code == 0
    assert f"{tiny.CELLS} cells, about " in said.out
    assert "random_sign" in said.out
    assert list(tmp_path.iterdir()) == [path]
    assert "1 cells, about " in robustlab("plan", path, "--set", "attacks=[none]",
                                          "--set", "chunk=5").out  # fmt: skip


def test_plan_of_the_quickstart():
    said = robustlab("plan", "quickstart", "--smoke")
    assert said.code == 0
    assert "gradient passes" in said.out


def test_doctor_is_content():
    said = robustlab("doctor")
    assert said.code == 0
    assert "bad" not in said.out.split()
    for name in ("torch", "torchvision", "numpy", "attacks", "experiments"):
        assert name in said.out


# --- train ---------------------------------------------------------------------------------


def test_train_gives_the_bytes_of_the_module(tmp_path, monkeypatch):
    seen, train = [], small.train

    def watched(*arguments):
        seen.append((torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()))
        train(*arguments)

    monkeypatch.setattr(small, "train", watched)
    monkeypatch.setitem(small.RECIPES, "small_cnn", {**small.RECIPES["small_cnn"], "epochs": 1})
    said = robustlab("train", "small_cnn", "--out", tmp_path / "command")
    assert said.code == 0
    card = strictly(said.out)
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    small.main(["small_cnn", "--out", str(tmp_path / "module")])
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before
    assert seen == [(1, True), (1, True)]
    for suffix in ("safetensors", "json"):
        one, other = (tmp_path / f / f"small_cnn_mnist_5k.{suffix}" for f in ("command", "module"))
        assert one.read_bytes() == other.read_bytes()
    assert card == json.loads(other.read_text())


# --- run, report, gallery, evaluate ---------------------------------------------------------


def test_run_prints_a_short_table_and_where_everything_is(ran):
    folder, said = ran
    assert said.code == 0
    for name in ("results.csv", "summary.csv", "report.html", "gallery.html"):
        assert str(folder / name) in said.out
        assert (folder / name).is_file()
    assert "top_k" in said.out
    assert "cell " in said.err  # the progress bar


def test_a_run_in_a_log_tells_how_far_it_is(ran):
    _, said = ran
    told = re.findall(r"cell (\d+) of (\d+), \d+ s, about \d+ s left", said.err)
    numbers = [int(number) for number, _ in told]
    assert 1 <= len(numbers) <= 10
    assert numbers == sorted(set(numbers))
    assert told[-1][0] == told[-1][1]


def test_run_writes_to_results_by_default(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny.write(tmp_path / "tiny.yaml", smoke={"images": 1, "attacks": ["none"]})
    said = robustlab("run", "./tiny.yaml", "--smoke", "--workers", 1)
    assert said.code == 0
    assert (tmp_path / "results" / "tiny-smoke" / "results.csv").is_file()
    said = robustlab("run", "tiny.yaml", "--set", "images=1", "--set", "attacks=[none]")
    assert said.code == 0
    assert (tmp_path / "results" / "tiny" / "results.csv").is_file()


def test_report_and_gallery_are_rebuilt_to_the_same_bytes(ran, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(ran[0], folder)
    made = {"report": ("results.csv", "summary.csv", "report.html"), "gallery": ("gallery.html",)}
    for command, names in made.items():
        for name in names:
            (folder / name).unlink()
        said = robustlab(command, folder)
        assert said.code == 0
        for name in names:
            assert str(folder / name) in said.out
            assert (folder / name).read_bytes() == (ran[0] / name).read_bytes()


def test_leaderboard_from_records_and_from_its_own_files(tmp_path):
    plan = board.cells(("natural",), seeds=(0,))
    board.build(tmp_path / "run", plan, models=("natural",), pictures=False)
    said = robustlab("leaderboard", tmp_path / "run", "--out", tmp_path / "made")
    made = [
        tmp_path / "made" / name
        for name in ("leaderboard/clothes--natural.json", "leaderboard.html", "leaderboard.md")
    ]
    assert (said.code, said.out.split()) == (0, [str(path) for path in made])
    before = [path.read_bytes() for path in made]
    assert robustlab("leaderboard", tmp_path / "made").code == 0
    assert [path.read_bytes() for path in made] == before
    said = robustlab("leaderboard", tmp_path)
    assert said.code == 0  # at any depth
    (tmp_path / "empty").mkdir()
    said = robustlab("leaderboard", tmp_path / "empty")
    assert said.code == 2
    assert "robustlab run attributional_robustness" in said.complaint


def test_evaluate_a_model_on_data_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = robustlab(
        "evaluate", "--model", "small_cnn", "--data", "mnist_5k", "--smoke", "--workers", 1,
        "--set", "images=3",
    )  # fmt: skip
    assert said.code == 0
    table = tmp_path / "results" / "evaluate-small_cnn-smoke" / "results.csv"
    with table.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert {(row["model"], row["data"]) for row in rows} == {("small_cnn", "mnist_5k")}
    assert len({row["image_id"] for row in rows}) == 3


def test_evaluate_by_a_protocol_of_ones_own_on_its_own_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny.write(tmp_path / "mine.yaml", images=2, attacks=["none"], budgets=[])
    said = robustlab(
        "evaluate", "--model", "small_resnet", "--protocol", "./mine.yaml", "--workers", 1,
        "--out", tmp_path / "out",
    )  # fmt: skip
    assert said.code == 0
    with (tmp_path / "out" / "results.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert {(row["model"], row["data"]) for row in rows} == {("small_resnet", "mnist_5k")}


@pytest.fixture
def pictures(tmp_path):
    """Two small colour pictures and one that is broken."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, colour in (("a.png", (200, 30, 30)), ("c.png", (30, 30, 200))):
        Image.new("RGB", (40, 28), colour).save(folder / name)
    (folder / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n but then it ends")
    return folder


COLOUR_NET = json.dumps([{"name": "small_cnn", "in_channels": 3, "weights": "none"}])


def test_evaluate_a_folder_of_pictures_and_skip_the_broken_one(tmp_path, pictures):
    said = robustlab(
        "evaluate", "--model", "small_cnn", "--data", pictures, "--smoke", "--workers", 1,
        "--out", tmp_path / "out", "--set", f"models={COLOUR_NET}", "--set", "data.size=28",
    )  # fmt: skip
    assert said.code == 0
    (line,) = (line for line in said.err.splitlines() if line.startswith("skipped"))
    assert "b.png" in line
    with (tmp_path / "out" / "results.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert {row["image_id"] for row in rows} == {"a.png", "c.png"}
    assert {(row["data"], row["label"]) for row in rows} == {("image_folder", "-1")}
    assert "b.png" in (tmp_path / "out" / "experiment.json").read_text()
