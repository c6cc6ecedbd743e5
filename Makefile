# make install | train | test | lint | web | lock | clean
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Newer than the lock and pyproject.toml if the environment matches them.
READY := $(VENV)/ready
SHELL := /bin/bash

.PHONY: install train test test-fast lint format web lock clean

install: $(READY)

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v < (3, 14) else "fracnet needs Python 3.11 to 3.13; this is %d.%d. Choose one: make PYTHON=python3.12" % v)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

# Phantoms, ResNet-18 from a random start, 128 pixels: learns in minutes on two CPU cores.
train: install
	$(BIN)/python -m fracnet.train data=upper_limb_phantom model=resnet18 model.pretrained=false \
	  image_size=128 trainer.max_epochs=6 data.batch_size=16

test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

test-fast: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The scripts of `fracnet export target=web`; needs Node.js and npm.
WEB := fracnet/serving/web

web: $(WEB)/dist/engine.js

$(WEB)/dist/engine.js: $(addprefix $(WEB)/,package-lock.json build.mjs licenses.txt) $(wildcard $(WEB)/src/*.js)
	cd $(WEB) && npm ci && node build.mjs

# Needs uv on the path. The lock names no index: the one that pip is set up with is used.
lock:
	uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate \
	  --no-emit-index-url --prerelease explicit --python-version 3.11 --all-extras \
	  pyproject.toml --output-file requirements.lock

clean:
	rm -rf $(VENV) $(WEB)/dist $(WEB)/node_modules dist .mypy_cache .pytest_cache .ruff_cache
