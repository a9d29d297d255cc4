# `make demo` and `make test` each set up all they need in .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# laplace-torch and all it imports. They come without what they declare: that names torchvision,
# which none of them needs, and which beside a torch of another build breaks torchmetrics.
LAPLACE := laplace-torch asdfghjkl backpack-for-pytorch curvlinops-for-pytorch einconv einops \
	lightning-utilities linear-operator opt-einsum torchmetrics unfoldnd

.PHONY: setup demo test test-fast check bench results clean

setup: $(VENV)/.ok

$(VENV)/.ok: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "bhnbench needs Python 3.11 or newer; name one with: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-deps $(LAPLACE)
	@touch $@

demo: setup
	$(BIN)/bhnbench sweep sweeps/active_learning.yaml

test: setup
	$(BIN)/pytest

test-fast: setup
	$(BIN)/pytest -m "not slow"

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

bench: setup
	for name in engine methods tasks; do echo "== $$name"; $(BIN)/python -m tests.benchmarks.$$name || exit 1; done

# The tables in docs/: runs what is missing of both sweeps (exit code 3: some runs failed, as the table says).
results: setup
	for name in methods_digits methods_mnist_5000; do \
	  $(BIN)/bhnbench sweep sweeps/$$name.yaml > /dev/null || test $$? = 3 || exit 1; \
	  $(BIN)/bhnbench leaderboard $$(echo $$name | tr _ -) --format markdown > docs/$$name.md || exit 1; \
	done

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
