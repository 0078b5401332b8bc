# Every target makes the virtual environment it needs: Python >= 3.10 and make are all a machine must have.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

# What is installed, remembered by stamp files: the package alone, or the package and its `dev` extra.
PACKAGE := $(VENV)/package.stamp
DEV := $(VENV)/dev.stamp
DOCS := $(VENV)/docs.stamp
TORCH := build/torch/torch.stamp
NODE := node_modules/npm.stamp
PINS := pyproject.toml constraints.txt

# On Linux the usual build of torch brings gigabytes of CUDA with it; TORCH_BUILD=torch==2.13.0+cpu does not.
TORCH_BUILD ?= torch~=2.13.0
NOTEBOOKS = $(wildcard examples/*.ipynb)

OLDEST ?= python3.10
EXTRAS = distributed explore mcp notebook optimum parquet widget

.DEFAULT_GOAL := help
.PHONY: help demo test test-all test-oldest fuzz lint lint-js format notebooks update-notebooks board docs benchmark update-constraints clean .venv

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1	\2/p' $(MAKEFILE_LIST) | expand -t 26

demo: $(PACKAGE)  ## compare DualPipe with 1F1B, ZB-H1 and Chimera on DeepSeek-V3 and draw demo.png
	$(BIN)/dualpipe-sim compare configs/deepseek_v3.yaml --plot demo.png
	@echo "The Gantt charts are in $(CURDIR)/demo.png"

test: $(DEV)  ## run the tests on all cores, but for those that ask more of the same
	$(BIN)/python -m pytest -n auto -m "not thorough"

test-all: $(TORCH)  ## every test, none skipped: brings PyTorch and transformers beside the environment, needs Chromium
	PYTHONPATH=$(CURDIR)/build/torch $(BIN)/python -m pytest -n auto --none-skipped

# Tools of the tests may be the newest; of what users get each is the oldest that pyproject.toml allows.
# (Old libraries warn of what is new beside them.)
test-oldest: $(DEV)  ## the quick tests with the oldest Python, which OLDEST= can name, and the oldest dependencies allowed
	$(BIN)/uv venv --quiet --clear --python $(OLDEST) build/oldest
	$(BIN)/uv pip compile --quiet --resolution lowest-direct --python $(OLDEST) $(EXTRAS:%=--extra %) \
		--output-file build/oldest/pins.txt pyproject.toml
	$(BIN)/uv pip install --quiet --python build/oldest --requirements build/oldest/pins.txt --editable . \
		hatchling hypothesis httpx jsonschema protobuf psutil pytest pytest-xdist uv
	build/oldest/bin/python -m pytest -n auto -W default -m "not slow and not thorough" --ignore tests/project/test_import_rules.py

fuzz: $(DEV)  ## a hundred thousand inputs made by chance (FUZZ= for some kinds); goes on where it was interrupted
	$(BIN)/python -m tests.fuzz $(FUZZ)

# (lint-imports' cache overlooks new modules)
lint: $(DEV) lint-js  ## ruff, mypy --strict, the import rules and lint-js
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

ifeq ($(shell command -v npm 2>/dev/null),)
lint-js:
	@echo "LEFT OUT: no npm to check the report's viewer with; apt-get install nodejs npm brings it"
else
lint-js:  ## biome and tsc on the report's viewer and the site's script, where npm can install them
	@if $(MAKE) --no-print-directory $(NODE); then npm run --silent lint; \
	else echo "LEFT OUT: npm did not install what checks the report's viewer, for the reason above"; fi
endif

format: $(DEV)  ## let ruff format and fix what it can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

notebooks: $(DEV)  ## run every example notebook as a check, storing nothing
	$(BIN)/jupyter-execute $(NOTEBOOKS)

update-notebooks: $(DEV)  ## run every example notebook, store its outputs, write docs/reports.md
	$(BIN)/jupyter-execute --inplace $(NOTEBOOKS)
	$(BIN)/python docs/make_reports.py

board: $(DEV)  ## predict the published runs, write docs/accuracy.md with its pictures
	$(BIN)/python docs/make_accuracy.py

docs: $(DOCS)  ## build the site into build/site, every link checked
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo "The site is in $(CURDIR)/build/site/index.html"

benchmark: $(PACKAGE)  ## measure how fast the program is on this machine
	$(BIN)/python -m benchmarks

update-constraints: $(DEV)  ## pin new dependencies, or with UPGRADE=--upgrade the newest of all
	$(BIN)/uv pip compile --quiet $(UPGRADE) --universal --python-version 3.10 --all-extras --no-annotate \
		--custom-compile-command "make update-constraints" --output-file constraints.txt pyproject.toml

clean:  ## remove the virtual environment, builds and caches
	rm -rf $(VENV) node_modules build dist demo.png .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache

.venv: $(DEV)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "dualpipe-sim needs Python 3.10 or newer; name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(PACKAGE): $(PINS) | $(BIN)/python
	$(PIP) install --quiet --constraint constraints.txt --editable .
	@touch $@

$(DEV): $(PINS) | $(BIN)/python
	$(PIP) install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@ $(PACKAGE)

# (without a network npm's own patience is over a minute, and a quarter of an hour where nothing answers)
$(NODE): package.json package-lock.json
	npm ci --loglevel=error --no-audit --no-fund --fetch-retries=1 --fetch-retry-mintimeout=1000 --fetch-timeout=60000
	@touch $@

$(TORCH): | $(DEV)
	$(PIP) install --quiet --upgrade --constraint constraints.txt --target build/torch '$(TORCH_BUILD)' plotly transformers~=5.24
	$(PIP) install --quiet --upgrade --no-deps --target build/torch HolisticTraceAnalysis==0.5.0
	@touch $@

$(DOCS): $(PINS) $(DEV)
	$(PIP) install --quiet --constraint constraints.txt --editable '.[docs]'
	@touch $@
