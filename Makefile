# Two commands do everything: `make demo` for users, `make test` for developers. Both set up what they need.

PYTHON ?= python3
VENV ?= .venv
COMPAT_VENV ?= .venv-compat
GPUS ?= 0
STACK ?= 1
DEMO_ARGS ?=
PYTEST_ARGS ?= -n 2 --dist loadfile

# The release that our CI has on disk as a CPU build. Any other will do: make demo TORCH=torch
TORCH ?= torch==2.13.0

PIP = $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check
SUDO = $(if $(filter 0,$(shell id -u)),,sudo)

.PHONY: help demo test compat check fix docs pictures bench system clean

help: ## Say what can be made
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

demo: $(VENV)/.demo ## Train a tiny model on the CPU with the callback on (GPUS=8: with simulated GPUs; STACK=0: without Prometheus)
	@$(VENV)/bin/python examples/train_tiny_gpt2.py --simulated-gpus $(GPUS) $(if $(filter 0,$(STACK)),--no-stack,--stack) $(DEMO_ARGS)

test: $(VENV)/.dev system ## Install what the tests need and run them
	$(VENV)/bin/python -m pytest $(PYTEST_ARGS)

compat: $(COMPAT_VENV)/.dev ## The Trainer's tests with the newest transformers 4.x
	$(COMPAT_VENV)/bin/python -m pytest -m trainer tests/trainer tests/survival/test_resume.py

check: $(VENV)/.dev system ## The developer's gate: lint, types, import contracts, generated docs, tests
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(VENV)/bin/python -m cogapp --check --diff $(COGGED)
	$(VENV)/bin/python -m pytest $(PYTEST_ARGS)

fix: $(VENV)/.dev ## Let the tools mend what they can
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

COGGED = README.md docs/metrics.md docs/configuration.md docs/cli.md docs/method.md docs/journal.md

docs: $(VENV)/.dev ## Write the generated parts of the docs anew
	$(VENV)/bin/python -m cogapp -r $(COGGED)

pictures: $(VENV)/.dev system ## Draw the dashboards anew into docs/images (with Chromium; two minutes)
	$(VENV)/bin/python -m tests.stack.pictures --keep

bench: $(VENV)/.dev ## Print our figures beside their targets
	$(VENV)/bin/python -m benchmarks

clean: ## Remove what was made
	rm -rf $(VENV) $(COMPAT_VENV) runs build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis

# A Debian without python3-venv can make no virtual environment with pip in it.
%/bin/python:
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || $(SUDO) apt-get install -y -q python3-venv
	$(PYTHON) -m venv $*

$(VENV)/.demo: pyproject.toml | $(VENV)/bin/python
	@echo "Installing hf_eco2ai, torch and transformers into $(VENV) (once; some minutes) ..."
	$(PIP) "$(TORCH)"
	$(PIP) -e '.[trainer,stack]'
	@touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(PIP) -e '.[trainer,dev]'
	@touch $@

$(COMPAT_VENV)/.dev: pyproject.toml | $(COMPAT_VENV)/bin/python
	$(COMPAT_VENV)/bin/python -m pip install --quiet --disable-pip-version-check "$(TORCH)"
	$(COMPAT_VENV)/bin/python -m pip install --quiet --disable-pip-version-check 'transformers<5' -e '.[trainer,dev]'
	@touch $@

# The tests scrape with a real Prometheus, compile a stand-in for NVIDIA's driver library, play several hosts in network namespaces,
# check the unit for systemd and the shell scripts of examples/, let alerts arrive through a real Alertmanager, and send samples to a real
# VictoriaMetrics. npm checks the dashboards against Grafana's own types.
SYSTEM = prometheus prometheus-alertmanager prometheus-node-exporter victoria-metrics gcc libc6-dev iproute2 util-linux mount hostname systemd \
  shellcheck openssl curl jq $(if $(shell command -v npm),,nodejs npm)
system:
	@for tool in prometheus promtool prometheus-alertmanager amtool prometheus-node-exporter victoria-metrics cc ip unshare setpriv mount \
	  hostname systemd-analyze shellcheck openssl curl jq npm; do \
	  command -v $$tool >/dev/null || { \
	    echo "Installing Debian's packages $(SYSTEM) for the tests ..."; \
	    $(SUDO) apt-get update -q && $(SUDO) apt-get install -y -q --no-install-recommends $(SYSTEM); break; }; \
	done
