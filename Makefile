# Two commands to know: `make demo` and `make test`. Both need only python3 and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEV_STAMP := $(VENV)/.installed-dev

.PHONY: demo test test-all lint bench clean

demo: $(STAMP)
	$(BIN)/pellucid explain sample:cat --out pellucid-out
	@echo "The picture is $(CURDIR)/pellucid-out/cat.png"

test: $(DEV_STAMP)
	$(BIN)/python -m pytest -q -m "not slow"

test-all: $(DEV_STAMP)
	$(BIN)/python -m pytest -q

lint: $(DEV_STAMP)
	$(BIN)/ruff check src tests benchmarks docs
	$(BIN)/ruff format --check src tests benchmarks docs
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(DEV_STAMP)
	$(BIN)/python -m benchmarks heatmaps

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(STAMP): pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -e .
	@touch $@

$(DEV_STAMP): pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -e ".[dev]"
	@touch $@ $(STAMP)

clean:
	rm -rf $(VENV) build dist pellucid-out .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
