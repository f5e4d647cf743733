# Everything runs in .venv with the versions of constraints.txt; nothing is installed elsewhere.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test lint format bench clean

demo: .venv/runtime
	$(BIN)/semcall demo --out demo-out

test: lint
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/dev
	$(BIN)/python -m benchmarks

clean:
	rm -rf .venv demo-out .mypy_cache .pytest_cache .ruff_cache .hypothesis build *.egg-info

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/runtime: .venv/bin/python pyproject.toml constraints.txt
	$(PIP) -e .
	touch $@

.venv/dev: .venv/runtime
	$(PIP) -e ".[train,evaluate,cluster,dev]"
	touch $@
