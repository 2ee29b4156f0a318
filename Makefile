# Two commands to know: `make demo` and `make test`. Both need only python3 and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# A process a core, one thread each: many small networks gain nothing from more threads.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist loadfile
STAMP := $(VENV)/.installed
DEV_STAMP := $(VENV)/.installed-dev

.PHONY: demo test test-slow test-ray test-all lint bench clean

demo: $(STAMP)
	$(BIN)/pellucid explain sample:cat --method auto,grad-cam,hires-cam --check --out pellucid-out/demo
	$(BIN)/pellucid report pellucid-out/demo -o pellucid-out/report.html
	@echo "The picture is $(CURDIR)/pellucid-out/demo/cat.png, the page $(CURDIR)/pellucid-out/report.html"

test: $(DEV_STAMP)
	$(PYTEST) -m "not slow"

test-slow: $(DEV_STAMP)
	$(PYTEST) -m slow

# On clusters of this machine; not in CI, see docs/architecture.md.
test-ray: $(DEV_STAMP)
	$(BIN)/python -m pip install --quiet -e ".[ray]"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/runs/test_cluster.py tests/runs/test_cluster_nodes.py

test-all: $(DEV_STAMP)
	$(PYTEST)

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
