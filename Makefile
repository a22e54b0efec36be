# make demo    simulate a small observation, reduce it, say where the products are
# make test    run the tests
# make modes   every coronagraphic mode through all commands, with known truth
# make slow    statistics over many draws
# make matrix  the tests with the oldest and newest packages, from a wheel, on every Python on PATH
# make fuzz    10,000 mutated inputs, and a table of what became of them
# make kill    1,000 commands killed at random moments, and what the next command makes of it
# make lint    style, types, layers, docstrings
# make docs    the documentation, into docs/_build
# make figures the pictures of README and documentation, from a simulation and the real data in DATA
# make wheel   a wheel and a source archive, into dist
# make parity  agreement with the official pipeline, in an environment that holds it
# make bench   speed and memory, against peers in an environment of their own
PYTHON ?= python3
DATA ?= ../shared/data
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test modes slow matrix fuzz kill lint docs figures wheel parity parity-env bench clean

demo: $(VENV)/.lyot
	$(BIN)/lyot demo

test: $(VENV)/.test
	$(BIN)/python -m pytest -n auto --dist worksteal

modes: $(VENV)/.test
	$(BIN)/python -m pytest -m "" tests/robustness/test_every_mode.py -k "not commands"
	$(BIN)/python -m pytest -n auto -m "" tests/robustness/test_every_mode.py -k commands

slow: $(VENV)/.test
	$(BIN)/python -m pytest -n auto --dist load -m slow

matrix:
	$(PYTHON) tools/matrix.py

fuzz: $(VENV)/.test
	PYTHONPATH=tests $(BIN)/python -m robustness.fuzz --cases 10000 --jobs 2

kill: $(VENV)/.test
	PYTHONPATH=tests $(BIN)/python -m robustness.kills --kills 1000

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/numpydoc lint $(shell find src -name '*.py' -not -path '*/cli/*' -not -path '*/steps/*')

docs: $(VENV)/.docs
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build
	@echo "docs/_build/index.html"

figures: $(VENV)/.docs
	$(BIN)/lyot demo
	$(BIN)/python docs/make_figures.py lyot-demo/products $(DATA)
	$(BIN)/python docs/make_hd106906.py $(DATA)

wheel: $(VENV)/.docs
	$(BIN)/python -m build --no-isolation

parity-env: $(VENV)-parity/.done

parity: parity-env
	$(VENV)-parity/bin/python -m pytest tests/parity -p no:cacheprovider

bench: $(VENV)/.lyot
	for each in start klip_speed align_speed run_speed memory scaling analysis_speed selection_speed psf_speed; do $(BIN)/python benchmarks/$$each.py || exit 1; done

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

INSTALL = $(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt

$(VENV)/.lyot: $(VENV)/bin/python pyproject.toml constraints.txt
	$(INSTALL) -e .
	touch $@

$(VENV)/.test: $(VENV)/bin/python pyproject.toml constraints.txt
	$(INSTALL) -e ".[test]"
	touch $@ $(VENV)/.lyot

$(VENV)/.docs: $(VENV)/bin/python pyproject.toml constraints.txt
	$(INSTALL) -e ".[test,docs]"
	touch $@ $(VENV)/.lyot $(VENV)/.test

$(VENV)-parity/.done: pyproject.toml
	$(PYTHON) -m venv $(VENV)-parity
	$(VENV)-parity/bin/python -m pip install -q --disable-pip-version-check -e ".[parity]" pytest
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-matrix $(VENV)-parity docs/_build docs/api dist lyot-demo .bench $(VENV)-peers
