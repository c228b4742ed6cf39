"""The store never shows half a file, never mixes experiments, and goes on after a kill."""

import json
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from robustlab.records import OtherExperiment, RunRecord, Store, UnreadableResults
from robustlab.records import atomic as atomic_module
from robustlab.records.atomic import atomic_write, remove_leftovers
from tests.records.examples import manifest, record


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "run")
    made.claim(manifest("k2", "k1", "k3"))
    return made


def test_records_come_in_plan_order_whatever_order_they_were_written_in(store: Store) -> None:
    for key in ("k3", "k1", "k2"):
        store.write(record(key))
    records, problems = store.load_all()
    assert [item.key for item in records] == ["k2", "k1", "k3"]
    assert problems == []
    assert store.read("k1") == record("k1")


def test_a_cell_without_a_file_is_missing_and_no_problem(store: Store) -> None:
    assert store.read("k1") is None
    assert store.load_all() == ([], [])


@pytest.mark.parametrize("kept", [0, 1, 40, 400, -2])
def test_a_truncated_file_is_reported_and_counts_as_missing(store: Store, kept: int) -> None:
    path = store.write(record("k1"))
    path.write_bytes(path.read_bytes()[:kept])
    records, problems = store.load_all()
    assert records == []
    assert store.read("k1") is None
    assert [problem.path for problem in problems] == [path]
    assert "not a run record" in problems[0].reason


def test_a_record_under_another_key_is_a_problem(store: Store) -> None:
    store.record_path("k1").write_text(store.write(record("k2")).read_text())
    records, (problem,) = store.load_all()
    assert [item.key for item in records] == ["k2"]
    assert "another cell, 'k2'" in problem.reason


def test_a_record_that_nobody_planned_is_a_problem(store: Store) -> None:
    store.write(record("k9"))
    records, (problem,) = store.load_all()
    assert records == []
    assert "not in the plan" in problem.reason


@pytest.mark.parametrize("key", ["../k1", "a/b", "", ".k", "k 1", "k\n"])
def test_a_key_cannot_leave_the_folder(store: Store, key: str) -> None:
    with pytest.raises(ValueError, match="key:"):
        store.record_path(key)


def test_the_same_experiment_goes_on(store: Store) -> None:
    store.write(record("k1"))
    assert store.claim(manifest("k2", "k1", "k3")) is True
    assert store.read("k1") is not None


def test_newer_words_about_the_same_experiment_are_kept(store: Store) -> None:
    store.claim(manifest("k2", "k1", "k3", question="Why?"))
    assert store.manifest().question == "Why?"


def test_another_experiment_is_refused_with_a_remedy(store: Store) -> None:
    with pytest.raises(OtherExperiment, match=r"'trial'.*--out") as caught:
        store.claim(manifest("k1", name="other", fingerprint="bbbb"))
    assert caught.value.found == "trial"
    assert store.manifest().name == "trial"


def test_a_new_folder_is_not_a_resumed_one(tmp_path: Path) -> None:
    assert Store(tmp_path / "deep" / "er").claim(manifest("k1")) is False


def test_a_file_in_the_folders_place(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(UnreadableResults, match="is not a folder"):
        Store(tmp_path / "run").claim(manifest("k1"))


def test_no_manifest_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(UnreadableResults, match=r"holds no experiment\.json"):
        Store(tmp_path).load_all()


def test_a_broken_manifest_is_named(store: Store) -> None:
    path = store.folder / "experiment.json"
    path.write_text(path.read_text()[:30])
    with pytest.raises(UnreadableResults, match=r"experiment\.json: not a manifest"):
        store.manifest()
    with pytest.raises(UnreadableResults):
        store.claim(manifest("k1"))


def test_a_manifest_that_cannot_be_read_back_is_never_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"plan.*key"):
        Store(tmp_path).claim(manifest("k1", plan=[{"attack": "x"}]))
    assert list(tmp_path.iterdir()) == []


def test_unbounded_metrics_survive(tmp_path: Path) -> None:
    data = manifest("k1")
    data["metrics"]["spearman"]["bounds"] = [0.0, float("inf")]
    store = Store(tmp_path)
    store.claim(data)
    assert store.manifest().metrics["spearman"].bounds == (0.0, None)


def test_a_failed_write_leaves_the_old_file_and_no_trace(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = store.write(record("k1"))
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        store.write(record("k1", path="new"))
    assert path.read_bytes() == before
    assert [item.name for item in store.cells.iterdir()] == ["k1.json"]


def test_the_record_is_whole_before_it_has_its_name(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    replace = Path.replace

    def watched(self: Path, target: Path) -> Path:
        seen.append(self.read_text())
        assert self.parent == target.parent
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", watched)
    path = store.write(record("k1"))
    assert seen == [path.read_text()]


KILLED = """
import os, signal, sys
from pathlib import Path
from robustlab.records import atomic_write
os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
atomic_write(Path(sys.argv[1]), "half")
"""


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_leftovers_of_a_killed_writer_are_cleaned(store: Store) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(store.record_path("k1"))])
    assert done.returncode < 0
    assert len(list(store.cells.iterdir())) == 1
    assert store.load_all() == ([], [])
    store.claim(manifest("k2", "k1", "k3"))
    assert list(store.cells.iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_a_dead_writer_that_nobody_asked_about_is_dead(store: Store) -> None:
    writer = subprocess.Popen([sys.executable, "-c", KILLED, str(store.record_path("k1"))])
    os.waitid(os.P_PID, writer.pid, os.WEXITED | os.WNOWAIT)  # it stays what is called a zombie
    try:
        os.kill(writer.pid, 0)  # the canary: its number is still there
        assert len(remove_leftovers(store.cells)) == 1
    finally:
        writer.wait()


def test_a_running_writers_file_is_left_alone(tmp_path: Path) -> None:
    ours = tmp_path / f".a.json.{atomic_module._owner()}-{os.getpid()}-00.tmp"
    ours.write_text("")
    assert remove_leftovers(tmp_path) == []
    os.utime(ours, (0, 0))
    assert remove_leftovers(tmp_path) == [ours]


def test_the_first_writer_wins_where_asked(tmp_path: Path) -> None:
    atomic_write(tmp_path / "a", "one", replace=False)
    with pytest.raises(FileExistsError):
        atomic_write(tmp_path / "a", "two", replace=False)
    assert (tmp_path / "a").read_text() == "one"
    assert len(list(tmp_path.iterdir())) == 1


def _write_many(folder: str, worker: int) -> None:
    store = Store(folder)
    for i in range(15):
        store.write(record("k1", seconds=float(100 * worker + i)))
        assert store.read("k1") is not None


def _claim(folder: str, fingerprint: str) -> str:
    try:
        Store(folder).claim(manifest("k1", fingerprint=fingerprint))
    except OtherExperiment:
        return "refused"
    return fingerprint


def test_several_processes_write_without_ever_showing_half_a_record(tmp_path: Path) -> None:
    store = Store(tmp_path / "run")
    store.claim(manifest("k1"))
    with ProcessPoolExecutor(3) as pool:
        list(pool.map(_write_many, [str(store.folder)] * 3, range(3)))
        claims: Any = list(pool.map(_claim, [str(tmp_path / "new")] * 6, "abcabc"))
    records, problems = store.load_all()
    assert len(records) == 1
    assert problems == []
    assert len(set(claims) - {"refused"}) == 1
    assert Store(tmp_path / "new").manifest().fingerprint in claims


def test_a_record_is_small_reviewable_text(store: Store) -> None:
    text = store.write(record("k1")).read_text()
    assert text.endswith("}\n")
    assert json.loads(text)["key"] == "k1"
    assert RunRecord.from_dict(json.loads(text)).to_dict() == json.loads(text)
