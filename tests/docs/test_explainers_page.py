"""The comparison page says what the code says."""

import importlib.util
import re
from pathlib import Path

from robustlab.lab.catalogue import catalogue

DOCS = Path(__file__).resolve().parents[2] / "docs"


def script():
    spec = importlib.util.spec_from_file_location("make_explainers", DOCS / "make_explainers.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_is_the_one_that_the_code_gives():
    page = (DOCS / "explainers.md").read_text(encoding="utf-8")
    found = re.search(r"<!-- comparison table[^\n]*\n(.*?)<!-- end of", page, re.DOTALL)
    assert found is not None
    assert found[1] == script().table(catalogue("explainers")), "run python docs/make_explainers.py"


def test_every_picture_of_the_page_is_there():
    page = (DOCS / "explainers.md").read_text(encoding="utf-8")
    names = re.findall(r"!\[[^]]*\]\(([^)]+)\)", page)
    assert len(names) == 3
    assert all((DOCS / name).is_file() for name in names)
