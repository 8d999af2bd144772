# Everything a newcomer needs: `make quickstart` and `make test`. Both set up .venv first, once.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.setup-done
PLUGINS := $(sort $(wildcard plugins/*/pyproject.toml))
EDITABLE_PLUGINS := $(foreach file,$(PLUGINS),-e $(dir $(file)))

.PHONY: help setup browser quickstart test test-all lint format benchmark clean

help:
	@echo "make quickstart   set up .venv, train a small RetinaNet on generated images, evaluate it, show where the report is"
	@echo "make test         set up .venv, run the tests of the core, the plugins and the whole"
	@echo "make test-all     the same with the slow tests"
	@echo "make setup        the set-up alone"
	@echo "make lint | format | benchmark | clean"

setup: $(STAMP)

# Redone only where what is to be installed has changed.
$(STAMP): setup.py pyproject.toml constraints.txt $(PLUGINS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "Vertebra needs Python 3.10 or newer; $(PYTHON) is older. Name another: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --upgrade 'setuptools>=77' wheel
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --constraint constraints.txt \
	  -e '.[test,timm,tensorboard,fast,onnx,video]' $(EDITABLE_PLUGINS)
	@touch $@

quickstart: setup
	$(BIN)/vertebra train retinanet:retinanet_shapes_quick

# A browser for the test of the report, where it can be had; tried once, and without one that test is skipped.
browser: $(VENV)/.browser-tried

$(VENV)/.browser-tried: | $(STAMP)
	@sh tools/install_browser.sh
	@touch $@

# The fast tests, then the built wheels of the core and every plugin in a fresh environment outside the source tree.
test: setup browser
	$(BIN)/python -m pytest -m 'not slow'
	$(BIN)/python -m pytest tests/distribution/test_wheels.py

test-all: setup browser
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/python tools/lint_words.py

format: setup
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

benchmark: setup
	$(BIN)/python tools/benchmark.py

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis
