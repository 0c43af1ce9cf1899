# Everything works from a machine with Python >= 3.11 and make. `make demo` is the first thing to try.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# Two test processes: each has its own JAX, and more only wait for the same cores.
# Which tests stay in one of them says tests/conftest.py: pytest-xdist 3.8 alone would mix them under pytest 9.2.
WORKERS ?= 2

.PHONY: demo test test-slow lint format bench calibration benchmarks recordings docs ready clean

demo: $(VENV)/.installed
	$(BIN)/mulligan compare penguins --effort quick --seed 7 -o demo-report --overwrite

test: $(VENV)/.tested
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup -m "not slow"

test-slow: $(VENV)/.tested
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup

lint: $(VENV)/.linted
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.linted
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Side by side with peers, in one run, as ratios; writes benchmarks/results/.
bench: $(VENV)/.benched
	env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE $(BIN)/python -m benchmarks.peers
	env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE $(BIN)/python -m benchmarks.flows
	env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE $(BIN)/python -m benchmarks.samplers
	env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE $(BIN)/python -m benchmarks.contrastive
	env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE -u OMP_NUM_THREADS $(BIN)/python -m benchmarks.diffusion
	$(BIN)/python -m benchmarks.eight_schools

# Do the stated 95 % intervals hold the truth 95 % of the time?
calibration: $(VENV)/.tested
	$(BIN)/python -m benchmarks.calibration

# Published protocols and the records that later families must beat (reads ../shared/data).
benchmarks: $(VENV)/.tested
	$(BIN)/python -m benchmarks.tables
	$(BIN)/python -m benchmarks.laws
	$(BIN)/python -m benchmarks.energy
	$(BIN)/python -m benchmarks.log_z

# What ships for the experiments, made anew (the trained ones take minutes).
recordings: $(VENV)/.tested
	$(BIN)/python -m benchmarks.verify
	$(BIN)/python -m benchmarks.recordings

# The site, strict and offline, in docs/_build/html; open index.html from the disk.
docs: $(VENV)/.documented
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	$(BIN)/python docs/_site/check.py docs/_build/html

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "mulligan needs Python 3.11 or newer; try: make demo PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) -e .
	touch $@

$(VENV)/.tested: $(VENV)/.installed
	$(PIP) -e '.[test]'
	touch $@

$(VENV)/.linted: $(VENV)/.installed
	$(PIP) -e '.[lint]'
	touch $@

$(VENV)/.documented: $(VENV)/.installed
	$(PIP) -e '.[docs]'
	touch $@

# What .ci/run needs, by one run of pip in place of four.
ready: $(VENV)/bin/python
	$(PIP) -e '.[test,lint,docs]'
	touch $(VENV)/.installed $(VENV)/.tested $(VENV)/.linted $(VENV)/.documented

$(VENV)/.benched: $(VENV)/.tested
	$(PIP) -e '.[bench]'
	touch $@

clean:
	rm -rf $(VENV) docs/_build docs/api docs/results demo-report .pytest_cache .mypy_cache .ruff_cache
