# Two commands do everything on a fresh machine: make demo, make test.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
DEMO := .venv-demo
DOCS := .venv-docs
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest
export RAY_USAGE_STATS_ENABLED := 0

.PHONY: help demo test fast-tests test-all test-matrix lint format bench bench-quick bench-quick-accept bench-gpu bench-long docs clean

help:
	@echo "make demo      the main job on a small sky, start to end (own environment)"
	@echo "make test      lint, types, layers and every test not marked slow"
	@echo "make test-all  everything; writes tests/RESULTS.md"
	@echo "make test-matrix  some of every room on other Pythons, newest and lowest dependencies; writes tests/MATRIX.md"
	@echo "make lint      ruff, mypy, import layers"
	@echo "make docs      the site, in docs/_build/html (own environment); warnings are errors"
	@echo "make bench     the figures of benchmarks/RESULTS.md"
	@echo "make bench-quick   has the engine become slower? three minutes; exit 1 and a table if it has"
	@echo "make bench-gpu tests and figures of this machine's GPU in ten minutes (benchmarks/gpu_kit)"

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[dev,sim,s3,classical,fast,optuna,index,onnx,openvino,alerts,slurm,docs,explain]'
	@$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib >/dev/null 2>&1 || true  # on all cores; pip compiles on one
	touch $@

$(DEMO)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(DEMO)
	$(DEMO)/bin/python -m pip install --quiet --upgrade pip
	$(DEMO)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[sim]'
	touch $@

demo: $(DEMO)/.ready
	$(DEMO)/bin/astroml-plugin demo --out demo-output

$(DOCS)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install --quiet --upgrade pip
	$(DOCS)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $@

docs: $(DOCS)/.ready
	rm -rf docs/_build docs/generated
	$(DOCS)/bin/python -m sphinx -W --keep-going -q docs docs/_build/html
	@echo "open docs/_build/html/index.html"

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: $(VENV)/.ready
	@$(MAKE) --no-print-directory --jobs=2 lint fast-tests

fast-tests: $(VENV)/.ready
	$(PYTEST) -n 2 --dist worksteal -m "not slow"

test-all: lint
	$(PYTEST) -n 2 --dist worksteal --junit-xml=.test-all.xml; status=$$?; $(BIN)/python -m tests.summary .test-all.xml && exit $$status

test-matrix:
	$(PYTHON) -m tests.matrix

format: $(VENV)/.ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.ready
	$(BIN)/python -m benchmarks

bench-quick: $(VENV)/.ready
	$(BIN)/python -m benchmarks.quick

bench-quick-accept: $(VENV)/.ready
	$(BIN)/python -m benchmarks.quick --accept

bench-gpu:
	PYTHON=$(PYTHON) bash benchmarks/gpu_kit/run.sh

bench-long: $(VENV)/.ready
	$(BIN)/python -m benchmarks --long

clean:
	rm -rf $(VENV) $(DEMO) $(DOCS) .venv-matrix-* docs/_build docs/generated demo-output build dist *.egg-info
