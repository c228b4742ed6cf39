"""The leaderboard's files: pages come from them alone, and they say what each model is."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from robustlab import reporting
from robustlab.records import Store, UnreadableResults
from robustlab.records.plain import dumps
from robustlab.records.scorecard import Scorecard
from tests.reporting import board
from tests.reporting.board import PUBLISHED, SMALL, STRICT
from tests.reporting.scored import read_cards


def test_pages_from_the_files_alone_are_the_same(board_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(board_folder / "leaderboard", tmp_path / "leaderboard")
    reporting.write_leaderboard(tmp_path)
    for name in ("leaderboard.html", "leaderboard.md"):
        assert (tmp_path / name).read_bytes() == (board_folder / name).read_bytes()
    for path in (board_folder / "leaderboard").iterdir():
        assert (tmp_path / "leaderboard" / path.name).read_bytes() == path.read_bytes()


def test_equal_records_give_equal_bytes_in_another_process(
    board_folder: Path, tmp_path: Path
) -> None:
    code = "import sys; from robustlab import reporting; reporting.write_leaderboard(*sys.argv[1:])"
    run = [sys.executable, "-c", f"{code}; assert 'torch' not in sys.modules"]
    subprocess.run([*run, str(board_folder), str(tmp_path)], check=True)
    for name in ("leaderboard.html", "leaderboard.md", "leaderboard/clothes--natural.json"):
        assert (tmp_path / name).read_bytes() == (board_folder / name).read_bytes()


def test_a_model_that_was_sent_in_stands_beside_the_others(
    board_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(board_folder / "leaderboard", tmp_path / "leaderboard")
    card = read_cards(board_folder)[0]
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


# --- what the model is ----------------------------------------------------------------------


def test_the_card_says_what_the_model_is(board_cards: dict[str, Scorecard]) -> None:
    model = board_cards["rar_norm"].model
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
    known = {card.model.label: card.model for card in read_cards(tmp_path / "run")}
    one = known["natural"]
    assert (one.objective, one.sha256, one.minutes) == ("art", "ab", 1.5)
    assert one.settings == {"objective": {"epsilon": 0.3}, "epochs": 2}
    assert known["zoo:lost"].objective == ""  # a card that is gone is no error
    assert (tmp_path / "run" / "leaderboard" / "clothes--zoo-lost.json").is_file()


# --- pictures -------------------------------------------------------------------------------


def test_pictures_are_of_the_first_image_that_all_share_and_predict_right(
    board_folder: Path, board_cards: dict[str, Scorecard], tmp_path: Path
) -> None:
    for card in board_cards.values():
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
    assert {s.image_id for card in read_cards(tmp_path) for s in card.scenes} == {board.IDS[1]}
