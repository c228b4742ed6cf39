"""A run that was killed, damaged or misdirected: nothing is lost and nothing is made up."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from robustlab.core.errors import InvalidInput
from robustlab.lab.run import run_experiment
from tests.cli.command import robustlab, start
from tests.lab import tiny

RESULTS = ("results.csv", "summary.csv", "report.html", "gallery.html")
# long enough to be caught in the act, short enough for a test
# seconds of work after the first record, so that a kill never comes after the end
SLOWER = {"images": 8, "attacks": ["none", "pgd", {"name": "top_k", "k": 20, "steps": 60}]}


def until(condition, seconds=120.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)


def records(folder):
    return sorted((folder / "cells").glob("*.json"))


def children(pid):
    """The processes that a process has started, on Linux; empty elsewhere."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rpartition(")")[2].split()[1])
        except OSError:  # gone in the meantime
            continue
        if parent == pid:
            found.append(int(status.parent.name))
    return found


def runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A run with two workers that was killed as soon as it had stored a record; its workers."""
    place = tmp_path_factory.mktemp("killed")
    path, folder = tiny.write(place / "tiny.yaml", **SLOWER), place / "out"
    process = start("run", path, "--out", folder, "--workers", 2, output=subprocess.DEVNULL)
    until(lambda: records(folder) or process.poll() is not None)
    workers = children(process.pid)
    process.kill()
    assert process.wait(timeout=60) == -signal.SIGKILL
    yield path, folder, workers
    for worker in filter(runs, workers):
        os.kill(worker, signal.SIGKILL)


def test_a_killed_run_leaves_no_process_behind(killed):
    _, _, workers = killed
    until(lambda: not any(map(runs, workers)), seconds=20)
    assert not any(map(runs, workers))


def test_a_killed_run_goes_on_to_the_same_bytes(killed, tmp_path):
    path, folder, workers = killed
    until(lambda: not any(map(runs, workers)), seconds=20)
    stored = {file: file.stat().st_mtime_ns for file in records(folder)}
    assert stored
    assert not (folder / "results.csv").exists()
    said = robustlab("run", path, "--out", folder, "--workers", 1)
    assert said.code == 0
    total = len(records(folder))
    assert f"{len(stored)} of {total} cells are there already" in said.err
    assert len(stored) < total
    assert all(file.stat().st_mtime_ns == when for file, when in stored.items())
    assert not list(folder.rglob("*.tmp"))

    robustlab("run", path, "--out", tmp_path, "--workers", 1)
    for name in RESULTS:
        assert (folder / name).read_bytes() == (tmp_path / name).read_bytes()
    assert tiny.numbers(folder) == tiny.numbers(tmp_path)


def test_a_finished_run_is_only_written_again(finished, again):
    before = tiny.contents(again / "cells")
    outcome = run_experiment(tiny.spec(), again, workers=1)
    assert outcome.resumed == outcome.cells
    assert tiny.contents(again / "cells") == before
    for name in RESULTS:
        assert (again / name).read_bytes() == (finished / name).read_bytes()


def _half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _empty(path):
    path.write_bytes(b"")


def _field_gone(path):
    values = json.loads(path.read_text())
    del values["images"][0]["radius"]
    path.write_text(json.dumps(values))


def _of_another_cell(path):
    other = next(p for p in records(path.parents[1]) if p != path)
    path.write_bytes(other.read_bytes())


@pytest.mark.parametrize("damage", [_half, _empty, _field_gone, _of_another_cell])
def test_a_damaged_record_is_computed_again_and_the_user_is_told(finished, again, tmp_path, damage):
    victim = records(again)[3]
    damage(victim)
    before = tiny.contents(again / "cells")
    path = tiny.write(tmp_path / "tiny.yaml")
    said = robustlab("run", path, "--out", again, "--workers", 1)
    assert said.code == 0
    assert "computing again" in said.err
    assert victim.name in said.err
    assert f"{tiny.CELLS - 1} of {tiny.CELLS} cells are there already" in said.err
    after = tiny.contents(again / "cells")
    changed = {name for name in after if after[name] != before[name]}
    assert changed <= {victim.name, victim.with_suffix(".npz").name}
    assert victim.name in changed
    assert tiny.numbers(again) == tiny.numbers(finished)
    for name in RESULTS[:2]:
        assert (again / name).read_bytes() == (finished / name).read_bytes()


def test_a_deleted_record_is_computed_again(finished, again):
    victim = records(again)[0]
    victim.unlink()
    outcome = run_experiment(tiny.spec(), again, workers=1)
    assert outcome.resumed == outcome.cells - 1
    assert (again / "results.csv").read_bytes() == (finished / "results.csv").read_bytes()


@pytest.mark.parametrize(
    "changes",
    [
        {"budgets": [{"epsilon": 0.2}]},
        {"images": 4},
        {"metrics": ["spearman"]},
        {"models": [{"name": "small_cnn", "label": "mine"}]},
    ],
    ids=str,
)
def test_the_folder_of_another_experiment_is_left_alone(again, changes):
    before = tiny.contents(again)
    with pytest.raises(InvalidInput, match=r"--out: .* another experiment"):
        run_experiment(tiny.spec(**changes), again, workers=1)
    assert tiny.contents(again) == before


def test_the_command_refuses_the_folder_of_another_experiment(again, tmp_path):
    before = tiny.contents(again)
    path = tiny.write(tmp_path / "tiny.yaml", smoke={"images": 1})
    said = robustlab("run", path, "--smoke", "--out", again)
    assert said.code == 2
    assert said.complaint.startswith(f"--out: {again}: holds the results of another experiment")
    assert tiny.contents(again) == before


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds workers in /proc")
def test_a_worker_that_dies_is_reported_and_the_run_can_go_on(tmp_path):
    path, folder = tiny.write(tmp_path / "tiny.yaml", **SLOWER), tmp_path / "out"
    process = start("run", path, "--out", folder, "--workers", 2)
    until(lambda: records(folder) or process.poll() is not None)
    # not the resource tracker, which has started first
    os.kill(max(children(process.pid)), signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "a worker process died" in err
    assert "Traceback" not in err
    assert robustlab("run", path, "--out", folder, "--workers", 1).code == 0


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds workers in /proc")
@pytest.mark.parametrize(
    ("workers", "ready"),
    [
        (1, lambda process, folder: records(folder)),
        (2, lambda process, folder: records(folder)),
        # while they are still importing; the third is the resource tracker
        (2, lambda process, folder: len(children(process.pid)) == 3),
    ],
    ids=["one worker", "two workers", "two workers at their start"],
)
def test_control_c_says_what_to_do_and_ends_at_once(tmp_path, workers, ready):
    path, folder = tiny.write(tmp_path / "tiny.yaml", **SLOWER), tmp_path / "out"
    process = start("run", path, "--out", folder, "--workers", workers)
    until(lambda: ready(process, folder) or process.poll() is not None)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "run the same command again to go on" in err
    assert "Traceback" not in err
