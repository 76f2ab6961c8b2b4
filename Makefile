# Needs Python 3.11 to 3.14 and make; everything else is installed into .venv.

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))
# The first Python on PATH that fits; `make setup PYTHON=…` takes another.
PYTHON ?= $(shell for name in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$name -c '$(SUPPORTED)' 2>/dev/null && echo $$name && break; done)

# Two processes, each with a broker and a Prefect server of its own: most of a test's time is waiting.
PYTEST := $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export DO_NOT_TRACK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false

.DEFAULT_GOAL := help
.PHONY: help setup demo ui test test-all chaos bench bench-stages bench-stream check format docs lock clean

help:  ## list what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

setup: $(READY)  ## make .venv with everything, and fetch the embedded broker

$(READY): requirements.lock pyproject.toml tasks/broker/jars.txt
	@test -n "$(PYTHON)" || { echo "no Python from 3.11 to 3.14 is on PATH: install one, or make setup PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c '$(SUPPORTED)' || { echo "$(PYTHON) is not Python 3.11 to 3.14: install one, or make setup PYTHON=/path/to/python3" >&2; exit 1; }
	@$(BIN)/python -c '$(SUPPORTED)' 2>/dev/null || { echo "making $(VENV)"; $(PYTHON) -m venv --clear $(VENV); }
	@echo "installing the packages of requirements.lock (once)"
	@# The lock is whole and hashed, so nothing is resolved; the build backend comes from it too.
	@$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@echo "fetching the embedded broker (once, 46 MB)"
	@$(BIN)/python -m tasks.broker.jars
	@touch $@

demo: setup  ## embedded broker, generate, sort by three keys, verify
	@$(BIN)/kafka-sort demo $(ARGS)

ui: setup  ## Prefect's pages with all deployments, a worker and an embedded Kafka, until Ctrl-C
	@$(BIN)/python -m kafka_sort.ui

test: setup  ## the tests, without the slow ones
	@$(PYTEST) -m "not slow" $(ARGS)

test-all: setup  ## all tests, also of faults and scale
	@$(PYTEST) $(ARGS)

chaos: setup  ## random faults for a while; ARGS="--seed N --minutes M"
	@$(BIN)/python -m pytest -s tests/faults/test_chaos.py::test_chaos $(ARGS)

bench: setup  ## compare with kcat and sort, which must be installed; draws docs/benchmark.png
	@$(BIN)/python -m bench.compare $(ARGS)
	@$(BIN)/python -m bench.plot bench/out/compare.json docs/benchmark.png

bench-stages: setup  ## each stage alone, beside kcat; ARGS="--profile --rounds 1" profiles
	@$(BIN)/python -m bench.stages $(ARGS)

bench-stream: setup  ## the stream's figures, a mode at a time; ARGS="backlog --records 20000000"
	@$(BIN)/python -m bench.stream $(ARGS)

check: setup  ## format, lint, types
	@$(BIN)/ruff format --check
	@$(BIN)/ruff check
	@$(BIN)/mypy

format: setup  ## format and sort imports
	@$(BIN)/ruff check --fix --select I
	@$(BIN)/ruff format

docs: setup  ## docs/errors.md, from the code
	@$(BIN)/python -m kafka_sort.catalogue > docs/errors.md.part && mv docs/errors.md.part docs/errors.md

lock: setup  ## refresh requirements.lock from pyproject.toml, and the image's
	@$(BIN)/python -m pip install --quiet uv
	@$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header --extra embedded --extra protobuf --extra registry --extra dask --extra dev --output-file requirements.lock pyproject.toml
	@# The image needs no more than what runs, Dask's workers too, and the build backend.
	@echo setuptools | $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header --constraint requirements.lock --extra dask --output-file deploy/requirements.lock pyproject.toml -

clean:  ## remove .venv and caches
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis
