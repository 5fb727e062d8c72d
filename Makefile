# Two commands do everything: `make demo` and `make test`. Each creates the environment if it is missing.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# One thread per process: two OpenMP threads beside another busy process are far slower than one.
export OMP_NUM_THREADS ?= 1

.PHONY: demo test check clean

$(READY): pyproject.toml constraints.txt CMakeLists.txt $(wildcard boltzgen/native/*.h boltzgen/native/*.cpp)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,dev]'
	touch $(READY)

demo: $(READY)
	$(BIN)/boltzgen run molecules/alanine_dipeptide.pdb

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: check
	$(BIN)/python -m pytest

clean:
	rm -rf $(VENV) build dist *.run
