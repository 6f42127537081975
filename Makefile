# Every target makes its environment and installs what it needs: `make demo` and
# `make test` are all that a fresh machine with Python 3.11 to 3.13 has to be told.

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# Modules are compiled after they are installed, by all cores, and not by pip's one.
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
COMPILE = $(BIN)/python -m compileall -qq -j 0 $(VENV)/lib
SOURCES = setup.cfg pyproject.toml

.PHONY: demo test test-slow test-kill test-oldest test-newest check bench docs notebooks \
  install clean

demo: $(VENV)/.experiments
	$(BIN)/python -m experiments.fragility demo --out runs/demo

test: $(VENV)/.test
	$(BIN)/python -m pytest -n 2 -m "not slow"

test-slow: $(VENV)/.test
	$(BIN)/python -m pytest -n 2 -m slow

check: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks

docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

# Run them all, and store what they print and draw.
notebooks: $(VENV)/.notebooks
	$(BIN)/python docs/building/executed.py

install: $(VENV)/.experiments $(VENV)/.test $(VENV)/.bench $(VENV)/.notebooks $(VENV)/.docs

# Sweeps and trainings that are killed at fifty random moments each.
test-kill: $(VENV)/.test
	PROTOJAX_KILLS=50 $(BIN)/python -m pytest -p no:xdist tests/scale/test_killed.py

# The lowest and the highest versions that are supported. The newest Pythons test
# without PyTorch and Captum, and say so.
test-oldest:
	$(MAKE) test VENV=.venv-oldest OLDEST="jax==0.10.2 jaxlib==0.10.2 flax==0.12.8 \
	  optax==0.2.8 chex==0.1.92 orbax-checkpoint==0.12.0 matfree==0.6.3 pyarrow==20.0.0"

test-newest:
	$(MAKE) test VENV=.venv-newest PYTHON=$(or $(shell for python in python3.13 python3.12; \
	  do $$python -c "" 2> /dev/null && echo $$python && break; done),python3.13)

$(VENV)/.%: $(SOURCES)
	@echo "installing into $(VENV), which takes a minute or more"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -e ".[$*]" $(OLDEST)
	$(COMPILE) || true  # some packages hold templates that are no Python
	touch $@

clean:
	rm -rf .venv .venv-oldest .venv-newest build dist *.egg-info
