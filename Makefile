# Everything a newcomer needs: `make quickstart` and `make test`. Both set up .venv first, once.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.setup-done
PLUGINS := $(sort $(wildcard plugins/*/pyproject.toml))
LONG := golden or e2e or slow
EDITABLE_PLUGINS := $(foreach file,$(PLUGINS),-e $(dir $(file)))
REQUIREMENTS := -e core/eval -e '.[test,timm,tensorboard,fast,onnx,video]' $(EDITABLE_PLUGINS)
OLDEST_MINOR := $(shell sed -n 's/^requires-python = ">=3\.\([0-9]*\)"$$/\1/p' pyproject.toml)
define REFUSE_OLDER
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, $(OLDEST_MINOR)))' 2>/dev/null || \
	  { echo "Vertebra needs Python 3.$(OLDEST_MINOR) or newer; $(PYTHON) is older or not installed." \
	    "Name another: make PYTHON=python3.$(OLDEST_MINOR) $(MAKECMDGOALS)"; exit 2; }
endef

.PHONY: help setup browser quickstart test test-long test-all lint format check-pythons benchmark clean

help:
	@echo "make quickstart   set up .venv, train a small RetinaNet on generated images, evaluate it, show where the report is"
	@echo "make test         set up .venv, run the tests of the core, the plugins and the whole that fit into five minutes"
	@echo "make test-long    run the others: reference models, short trainings, wheels"
	@echo "make test-all     run all tests"
	@echo "make lint         check style, types and wording"
	@echo "make setup        set up .venv and nothing else"
	@echo "make format | check-pythons | benchmark | clean"

setup: $(STAMP)

# Redone only where what is to be installed has changed.
$(STAMP): setup.py pyproject.toml core/eval/pyproject.toml constraints.txt $(PLUGINS)
	$(REFUSE_OLDER)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --upgrade 'setuptools>=77' wheel
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --constraint constraints.txt \
	  $(REQUIREMENTS)
	@touch $@

quickstart: setup
	$(BIN)/vertebra train retinanet:retinanet_shapes_quick

# A browser for the test of the report, where it can be had; tried once, and without one that test is skipped.
browser: $(VENV)/.browser-tried

$(VENV)/.browser-tried: | $(STAMP)
	@sh tools/install_browser.sh
	@touch $@

# Everything that fits into five minutes on two cores.
test: setup
	$(BIN)/python -m pytest -m 'not ($(LONG) or matrix)'

# The rest, but for what the matrix of backbones and heads has beside its diagonal: reference models, short trainings, wheels in
# a fresh environment outside the source tree. PYTEST: more arguments.
test-long: setup browser
	$(BIN)/python -m pytest -m '$(LONG)' --timeout 1500 $(PYTEST)

test-all: setup browser
	$(BIN)/python -m pytest --timeout 1500

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python tools/lint_words.py

format: setup
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

# By pip's dry run, for each of these Pythons that is installed; installs nothing.
check-pythons:
	$(REFUSE_OLDER)
	@$(PYTHON) tools/check_pythons.py $(REQUIREMENTS)

benchmark: setup
	$(BIN)/python tools/benchmark.py

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis
