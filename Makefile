# make demo    a photo in, a label map out
# make check   the quick part of the tests: linters, types, everything that is not slow
# make test    all that CI runs
#
# Each sets up what it needs: one virtual environment, .venv, made again only when what it holds has changed.
# PYTHON=/path/to/python picks the interpreter, EXTRAS the optional dependencies.

SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := check

EXTRAS ?= host,bench,ray,dev,rtx,cuda
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest

.PHONY: setup demo check lint test native wheel clean

setup:
	@scripts/setup "$(EXTRAS)"

# On the small trained checkpoint of weights/, whose own licence is for research and evaluation only.
demo: setup
	$(BIN)/python scripts/photos demo
	$(BIN)/python -m edgeseg demo weights/ebseg-tiny.safetensors demo/china.jpg demo/camera.png --size 384x384 --size 384x640 -o demo

# A process for each core, up to four, since each holds torch; all tests of a file in one of them, since they share what
# is made once.
check: lint
	$(PYTEST) -q -n auto --maxprocesses 4 --dist loadfile -m "not slow and not gpu"

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The native code and the wheel first: they fail early. pytest's own summary is the last line.
test: lint native wheel
	$(PYTEST)

native: setup
	scripts/native

wheel: setup
	scripts/wheel

clean:
	rm -rf .venv build dist edgeseg.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
