"""The page about training says what the code and the cards say, and its example runs."""

import importlib.util
import re
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "training.md").read_text(encoding="utf-8")


def test_the_table_is_the_one_that_the_code_gives():
    spec = importlib.util.spec_from_file_location("make_training", DOCS / "make_training.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = re.search(r"<!-- objectives[^\n]*\n(.*?)<!-- end of", PAGE, re.DOTALL)
    assert found is not None
    assert found[1] == module.table(), "run python docs/make_training.py"


def test_the_example_runs():
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names = {}
    exec(code, names)  # noqa: S102
    assert set(names["history"][-1]) == {"task", "alignment"}
