# `make` alone explains itself. Everything is installed into .venv; nothing outside this folder.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
RIVALS := .venv-benchmarks
# PYTHON=path/to/python picks the interpreter; INSTALLER=pip does without uv; ARGS go to the program.
PYTHON ?=
INSTALLER ?= uv
ARGS ?=

# A name on the PATH is no promise: version managers leave shims behind that fail when run, and some
# systems ship Python without venv. So a candidate must run this to count.
PROBE := import ensurepip, sqlite3, ssl, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))

.DEFAULT_GOAL := help
.PHONY: help install demo test check benchmarks clean

help: ## this text
	@echo "dealcast: lead scoring, win probability and revenue forecasting"
	@echo
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "Start with 'make demo'. Afterwards the program is $(BIN)/dealcast (--help shows its commands)."
	@echo "Options:  make demo ARGS=--no-serve    make test ARGS='-k forecast'"
	@echo "          make install PYTHON=/path/to/python3.12    make install INSTALLER=pip"

install: $(STAMP) ## install into .venv (again only when pyproject.toml or constraints.txt changed)

demo: install ## make a sample CRM, train, forecast, and serve on http://127.0.0.1:8000
	$(BIN)/dealcast demo $(ARGS)

test: install ## run the tests (DEALCAST_DATASETS=folder adds those on public data)
	$(BIN)/python -m pytest $(ARGS)

check: install ## everything that CI runs: style, types, import contracts, tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m pytest $(ARGS)

benchmarks: install $(RIVALS)/.installed ## run every published comparison; writes docs/benchmarks.md and .json
	@for script in benchmarks/[!_]*.py; do \
	  [ -e "$$script" ] || { echo "No scripts in benchmarks/."; exit 1; }; \
	  echo "== $$script"; $(BIN)/python "$$script" $(ARGS) || exit 1; \
	done

clean: ## remove the environments and all caches; var/ (your data) stays
	rm -rf $(VENV) $(RIVALS) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@found=; for python in $(or $(PYTHON),python3.13 python3.12 python3.11 python3); do \
	  if "$$python" -c '$(PROBE)' >/dev/null 2>&1; then found="$$python"; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "No usable Python among: $(or $(PYTHON),python3.13 python3.12 python3.11 python3)."; \
	  echo "dealcast needs Python 3.11, 3.12 or 3.13 with venv, ssl and sqlite3. To get one:"; \
	  echo "  Debian, Ubuntu   apt-get install python3 python3-venv"; \
	  echo "  Fedora, RHEL     dnf install python3.12"; \
	  echo "  macOS            brew install python@3.13"; \
	  echo "or name one: make install PYTHON=/path/to/python3.12"; \
	  exit 1; \
	fi; \
	echo "Making $(VENV) with $$("$$found" --version) ($$found)"; \
	"$$found" -m venv --clear $(VENV) || { rm -rf $(VENV); exit 1; }

# uv installs in seconds where pip takes a minute. But it reads its package index from its own
# settings, not from pip's, so where only pip is set up uv may fail and pip does the work.
$(STAMP): pyproject.toml constraints.txt | $(BIN)/python
	@$(BIN)/python -m pip --version >/dev/null || $(BIN)/python -m ensurepip
	@echo "Installing dealcast into $(VENV)"
	@{ [ "$(INSTALLER)" = uv ] \
	  && $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv \
	  && $(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[dev]'; } \
	|| { echo "Installing with pip (about a minute)"; \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'; }
	@trouble=$$($(BIN)/python -c 'import lightgbm' 2>&1) || { \
	  echo "$$trouble" | tail -n 1; \
	  case "$$trouble" in *libgomp*|*libomp*) \
	    echo "LightGBM needs the OpenMP library. Install it, then run make again:"; \
	    echo "  Debian, Ubuntu   apt-get install libgomp1"; \
	    echo "  Fedora, RHEL     dnf install libgomp"; \
	    echo "  macOS            brew install libomp";; \
	  esac; exit 1; }
	@touch $@

# What the benchmarks compare with lives apart: it wants older libraries than the product.
$(RIVALS)/.installed: benchmarks/requirements.txt | $(STAMP)
	@echo "Installing what benchmarks compare with into $(RIVALS)"
	@$(BIN)/python -m venv --clear $(RIVALS)
	@$(RIVALS)/bin/python -m pip install --quiet --disable-pip-version-check -r benchmarks/requirements.txt
	@touch $@
