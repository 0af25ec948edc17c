# make run    set up, then train mult2x2 in the cockpit
# make test   everything: lint, types, import rules, all tests (half an hour on two cores)
# make quick  the same without the slow ones: real terminals, kills, long training (ten minutes)
# PYTHON=…    the Python to build .venv with, 3.11 or newer

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable
PYTEST := $(BIN)/pytest --quiet --numprocesses auto --dist worksteal

.PHONY: run test quick lint clean

run: $(VENV)/.run
	$(BIN)/stepwise run preset mult2x2

test: lint
	$(PYTEST)

quick: lint
	$(PYTEST) -m "not slow"

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV)

$(VENV)/.run: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing stepwise and what it needs into $(VENV). PyTorch is large: this takes a minute or more."
	$(INSTALL) .
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing stepwise with its test tools into $(VENV). PyTorch is large: this takes a minute or more."
	$(INSTALL) '.[dev]'
	@touch $(VENV)/.run $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "stepwise needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) --version 2>&1 | head -n 1)." >&2; \
	  echo "Name one that is, for example: make PYTHON=python3.12 run" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "$(PYTHON) cannot make a virtual environment; on Debian or Ubuntu: apt install python3-venv" >&2; exit 1; }
