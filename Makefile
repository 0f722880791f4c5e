# Headgate's tasks. `make` alone lists them. Needs Linux and Python 3.11 or newer with its venv module; no node, no compiler.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# The first Python that will do; `make PYTHON=/path/to/python3.12 demo` takes another.
PYTHON ?= $(firstword $(foreach python,python3.11 python3.12 python3.13 python3,$(shell command -v $(python) 2>/dev/null)))
VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/stamps
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
UV_VERSION := 0.13.9
BENCHMARKS = $(shell grep -l '"--json"' benchmarks/*.py | xargs -r grep -l '^if __name__')
say = @printf '\n== %s\n' "$(1)"

.PHONY: help demo test unit check lint types imports sizes docs bench lock build clean

help: ## list the tasks
	@echo "make TASK, where TASK is one of:"
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(STAMPS)/base ## install what serving needs, then show capacity moving between three small models (about 2 minutes)
	$(call say,Demo: three pipelines on this machine under a load that moves from one to another)
	@$(BIN)/headgate demo

test: $(STAMPS)/dev ## install what tests need, then run all of them: unit, simulation, contract, flow, docs
	$(call say,Tests)
	@$(BIN)/python -m pytest $(TESTS)

unit: TESTS = tests/unit tests/simulation
unit: test ## only the tests that need no processes (seconds)

check: lint types imports sizes test ## everything that must hold before a change lands; what CI runs

lint: $(STAMPS)/dev ## ruff: rules and format
	$(call say,Lint and format)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(STAMPS)/dev ## pyright, strict on src/
	$(call say,Types)
	@PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright

imports: $(STAMPS)/dev ## the floors of the house: imports go down only
	$(call say,Import rules)
	@$(BIN)/lint-imports

sizes: $(STAMPS)/dev ## files past 400 lines and functions past 60, as a list to think about; never fails
	$(call say,Sizes)
	@$(BIN)/python -m tools.sizes

docs: $(STAMPS)/dev ## write docs/reference/ anew from the code
	$(call say,Reference pages)
	@$(BIN)/python -m tools.reference

bench: $(STAMPS)/dev ## run every benchmark; results go to benchmarks/results/ (needs wrk)
	@command -v wrk >/dev/null || { echo "benchmarks/gateway.py needs wrk: apt-get install wrk" >&2; exit 1; }
	@mkdir -p benchmarks/results
	@for name in $(basename $(notdir $(BENCHMARKS))); do \
	  printf '\n== %s\n' "$$name"; \
	  $(BIN)/python -m benchmarks.$$name --json benchmarks/results/$$name.json; \
	done

lock: $(BIN)/python ## resolve the three lock files again (UPGRADE=--upgrade takes newer versions)
	$(call say,Lock files)
	@[ -x $(BIN)/uv ] || $(PIP) install --quiet uv==$(UV_VERSION)
	@UV=$(BIN)/uv UPGRADE="$(UPGRADE)" tools/lock.sh

build: $(STAMPS)/dev ## build the wheel and the source archive into dist/
	$(call say,Wheel and source archive)
	@$(BIN)/python -m hatchling build

clean: ## remove the virtual environment, caches and builds
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests tools benchmarks recipes -name __pycache__ -type d -prune -exec rm -rf {} +

# -- the virtual environment ------------------------------------------------------------------------------------------

$(BIN)/python:
	$(call say,Making $(VENV) with $(PYTHON))
	@[ -n "$(PYTHON)" ] || { echo "No Python found. On Debian: apt-get install python3 python3-venv" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Headgate needs Python 3.11 or newer; this is $$($(PYTHON) --version). Name another: make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  || { echo "Python's venv module is missing. On Debian: apt-get install python3-venv" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(STAMPS)/base: requirements.lock requirements-build.lock pyproject.toml | $(BIN)/python
	$(call say,Installing what Headgate needs: exact versions with checked hashes)
	@$(PIP) install --quiet --progress-bar off --no-compile --require-hashes -r requirements.lock -r requirements-build.lock
	@$(BIN)/python -m compileall -q -j 0 $(VENV)/lib >/dev/null || true # on all cores: pip would use one
	$(call say,Installing Headgate itself from this folder)
	@$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/dev: requirements-dev.lock $(STAMPS)/base
	$(call say,Installing what tests and checks need)
	@$(PIP) install --quiet --progress-bar off --no-compile --require-hashes -r requirements-dev.lock
	@touch $@
