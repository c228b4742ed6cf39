"""`compare`: a run beside itself, and what it says of folders that cannot be compared."""

import csv
import json
import shutil

from tests.cli.command import robustlab
from tests.cli.test_startup import AFTER_A_COMMAND, python


def test_a_run_against_itself(ran):
    folder, _ = ran
    said = robustlab("compare", folder, folder)
    assert (said.code, said.err) == (0, "")
    lines = said.out.splitlines()
    rows = [line for line in lines if line.rstrip().endswith("same numbers")][:-1]
    assert lines[-1] == f"0 of {len(rows)} rows changed; {len(rows)} with the very same numbers"
    assert "spearman" not in said.out and "by top_k_intersection" in said.out


def test_as_json_and_csv_by_every_metric(ran, tmp_path):
    folder, _ = ran
    file = tmp_path / "new" / "rows.csv"
    said = robustlab("compare", folder, folder, "--all", "--json", "--csv", file)
    assert (said.code, said.err) == (0, "")
    found = json.loads(said.out)
    rows = list(csv.DictReader(file.open(encoding="utf-8")))
    assert len(rows) == len(found["rows"]) > 0
    assert {row["metric"] for row in rows} == {"top_k_intersection", "spearman"}
    assert {row["verdict"] for row in rows} == {"same numbers"}
    assert [float(row["mean_a"]) for row in rows] == [row["mean_a"] for row in found["rows"]]
    assert found["runs"]["spec"] == found["runs"]["provenance"] == []


def test_a_changed_value_is_found(ran, tmp_path):
    folder, _ = ran
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    records = [
        (path, json.loads(path.read_text(encoding="utf-8")))
        for path in sorted((other / "cells").glob("*.json"))
    ]
    for path, record in records:
        if record["cell"]["attack"] == "pgd":
            record["images"][0]["values"]["gradient"]["spearman"] -= 0.125
            path.write_text(json.dumps(record), encoding="utf-8")
    chunks = sum(record["cell"]["attack"] == "pgd" for _, record in records)
    said = robustlab("compare", folder, other, "--metric", "spearman", "--json")
    assert said.code == 0
    first, *rest = json.loads(said.out)["rows"]
    assert (first["attack"], first["explainer"], first["n"]) == ("pgd", "gradient", 5)
    assert abs(first["difference"] + 0.125 * chunks / 5) < 1e-9
    assert first["verdict"] == "no clear difference"  # five images cannot show one
    assert {row["verdict"] for row in rest} == {"same numbers"}
    text = robustlab("compare", folder, other, "--metric", "spearman").out
    assert "too few: 5 images cannot show any clear difference" in text


def test_mistakes_are_one_line(ran, tmp_path):
    folder, _ = ran
    for arguments, words in (
        ((folder, tmp_path), "holds no experiment.json"),
        ((folder, folder, "--metric", "spearmen"), "did you mean 'spearman'?"),
        ((folder, folder, "--metric", "spearman", "--all"), "one metric and all of them"),
        ((folder, folder, "--csv", folder / "experiment.json" / "x.csv"), "cannot be written"),
    ):
        said = robustlab("compare", *arguments)
        assert (said.code, said.out) == (2, "")
        assert words in said.complaint


def test_it_needs_no_torch(ran):
    folder, _ = ran
    done = python(AFTER_A_COMMAND, "compare", folder, folder)
    assert done.returncode == 0
    assert "torch" not in done.stderr.split()
