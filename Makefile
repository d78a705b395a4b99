# The four commands of a newcomer. Each one installs what it needs into .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TESTS ?= tests
# Processes that the tests are spread over; each starts a broker of its own.
TEST_PROCESSES ?= 2
# Seconds that each target is fuzzed for.
FUZZ_SECONDS ?= 30

.PHONY: help install demo test check bench chaos soak hostile fuzz compose-test clean
help:
	@echo "make demo          the whole loop on a real log, about five minutes"
	@echo "make test          all tests, on the best broker that can be had (see tests/broker.py)"
	@echo "make check         lint, types, layering, the README's commands"
	@echo "make bench         against what one would take instead, 25 minutes; writes bench.json"
	@echo "make chaos         faults on the running system, laid out for half an hour; writes chaos.json (needs KAFKA_HOME)"
	@echo "make soak          40 minutes under full load with rolling restarts: what grows? (needs KAFKA_HOME)"
	@echo "make hostile       a million hostile records and files through the real readers, about ten minutes"
	@echo "make fuzz          coverage-guided fuzzing of every decoder, FUZZ_SECONDS each (Linux)"
	@echo "make compose-test  builds the image and runs the compose stack (needs a Docker engine)"
	@echo "make install       creates .venv with everything"

install: $(STAMP)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
	  || { echo "Python 3.11 to 3.13 is needed: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 3; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check "torch==2.13.0"
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[dev]"
	$(BIN)/python -m inference kernels
	$(BIN)/python -m stream compile
	$(BIN)/python -m trainer kernels
	@touch $(STAMP)

demo: install
	$(BIN)/onerec demo

# Bytecode is kept whatever the environment says: the tests start Python hundreds of times.
test: install
	OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist worksteal $(TESTS)

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/test_readme.py tests/test_layout.py

bench: install
	$(BIN)/python -m bench

chaos: install
	$(BIN)/python -m chaos --long

soak: install
	$(BIN)/python -m chaos.soak

hostile: install
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.hostile

fuzz: install
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[dev,fuzz]"
	set -e; for target in $$(ls tests/fuzz | sed -n 's/^\([a-z][a-z]*\)\.py$$/\1/p'); do \
	  echo "== $$target"; OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz $$target --seconds $(FUZZ_SECONDS); done

compose-test: install
	$(BIN)/python -m pytest -q -s tests/compose/test_stack.py

clean:
	rm -rf $(VENV) runs build dist .mypy_cache .ruff_cache .pytest_cache
