# What can be done with this checkout; `make help` lists it. Nothing outside the checkout is touched, and once installed
# nothing needs a network. Another interpreter: `make run PYTHON=python3.12` (used when .venv is made).
PYTHON ?= python3
WORKERS ?= 2
ARGS ?=

HERE := $(dir $(lastword $(MAKEFILE_LIST)))
ifneq ($(HERE),./)
# Called with -f from somewhere else: start again at home.
.PHONY: $(or $(MAKECMDGOALS),help)
$(or $(MAKECMDGOALS),help):
	@$(MAKE) --no-print-directory -C "$(HERE)" $@
else

PY := .venv/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --quiet install --no-cache-dir --require-virtualenv \
  --use-pep517 --no-build-isolation
RUN := .venv/.run-stamp
TEST := .venv/.test-stamp
export PYINSTALLER_CONFIG_DIR := build/pyinstaller

.DEFAULT_GOAL := help
.PHONY: help run test lint bench binary lock clean

help: ## show this list
	@sed -n 's/^\([a-z]*\):[^#]*## /\1	/p' Makefile | while IFS='	' read -r name text; do printf 'make %-8s %s\n' "$$name" "$$text"; done

run: $(RUN) ## a working relay on loopback: captured mail, keys and a curl line are printed (ARGS="--http 127.0.0.1:9000")
	@$(PY) -m plunk_relay dev $(ARGS)

test: $(TEST) ## the whole suite, fast tests first (ARGS="-k dkim" narrows it)
	@$(PY) -m pytest -m "not slow" -n $(WORKERS) $(ARGS) $(if $(ARGS),|| test $$? -eq 5)
	@$(PY) -m pytest -m slow $(ARGS) || test $$? -eq 5  # 5: no such test

lint: $(TEST) ## ruff, mypy strict, and who may import whom
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@.venv/bin/lint-imports --no-cache --no-logo --config .importlinter

bench: $(TEST) ## this relay against Postfix and Postfix + opendkim, in one run (needs Debian's postfix, opendkim, wrk)
	@$(PY) -m tests.bench $(ARGS)

binary: $(TEST) ## dist/plunk-relay: one executable that needs no Python (needs binutils)
	@$(PY) -m PyInstaller --noconfirm --clean --log-level WARN --onefile --name plunk-relay \
	  --distpath dist --workpath build/work --specpath build \
	  --collect-data plunk_relay --collect-submodules plunk_relay \
	  --hidden-import aiosqlite --hidden-import sqlalchemy.dialects.sqlite \
	  --hidden-import uvloop --hidden-import httptools --collect-submodules uvicorn --collect-submodules dns \
	  --collect-data liquid --collect-data babel --copy-metadata click \
	  plunk_relay/__main__.py
	@dist/plunk-relay version

lock: ## write both lock files again (needs uv; LOCK_ARGS=--upgrade for newer versions)
	@command -v uv >/dev/null || { echo 'make lock needs uv: https://docs.astral.sh/uv/' >&2; exit 2; }
	@echo 'setuptools>=77' | uv pip compile $(LOCK) pyproject.toml - -o requirements.lock
	@echo 'setuptools>=77' | uv pip compile $(LOCK) pyproject.toml - --extra dev -c requirements.lock -o requirements-dev.lock
LOCK := --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
  --no-emit-index-url --no-emit-find-links --no-config $(LOCK_ARGS)

clean: ## remove everything make made; the data of `make run` in .plunk-relay stays
	@rm -rf .venv build dist plunk_relay.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Python 3.11 or newer is needed, and \`$(PYTHON)\` is not: name one, as in  make $(MAKECMDGOALS) PYTHON=python3.11" >&2; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "\`$(PYTHON)\` has no venv module; on Debian and Ubuntu:  apt install python3-venv" >&2; exit 2; }
	@$(PYTHON) -m venv --clear .venv

$(RUN): requirements.lock pyproject.toml | $(PY)
	@echo 'Installing into .venv ...' >&2
	@sed -n '/^setuptools==/,/[^\\]$$/p' requirements.lock > .venv/build.lock
	@$(PIP) --require-hashes -r .venv/build.lock  # first, as it builds what comes without a wheel
	@$(PIP) --require-hashes -r requirements.lock
	@$(PIP) --no-deps -e .
	@touch $@

$(TEST): requirements-dev.lock $(RUN)
	@$(PIP) --require-hashes -r requirements-dev.lock
	@touch $@
endif
