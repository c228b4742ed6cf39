# make demo   install, run the quickstart experiment, print where report and gallery are
# make test   install what the tests need and run them on all cores
# Everything lives in .venv; the pinned versions of constraints.txt are the tested ones.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
CORES := $(shell nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 2)
# one thread per process: the test runner and the lab use processes instead
export OMP_NUM_THREADS := 1

.PHONY: demo test test-slow check bench format clean

demo: $(VENV)/.demo
	$(BIN)/robustlab run quickstart --out results/quickstart

test: $(VENV)/.test
	$(BIN)/python -m pytest -n $(CORES) --dist worksteal -m "not slow"

test-slow: $(VENV)/.test
	$(BIN)/python -m pytest -n $(CORES) --dist worksteal -m slow

check: $(VENV)/.check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/wheel

bench: $(VENV)/.test
	$(BIN)/python -m benchmarks.passes
	$(BIN)/python -m benchmarks.training

format: $(VENV)/.check
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "robustlab needs Python 3.11 or newer; set PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.demo: $(VENV)/.python pyproject.toml constraints.txt
	@echo "installing robustlab and what it needs into $(VENV) (a few minutes, once)"
	$(PIP) -e .
	@touch $@

$(VENV)/.test: $(VENV)/.demo
	@echo "installing what the tests need into $(VENV)"
	$(PIP) -e '.[test]'
	@touch $@

$(VENV)/.check: $(VENV)/.test
	$(PIP) -e '.[test,check]'
	@touch $@

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache
