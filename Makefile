# `make help` lists the targets. Everything they need is set up by themselves.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

BIN := .venv/bin
PY := $(BIN)/python
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
LAB := $(SUDO) $(PY) -m lab
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Compiled once, and out of the tree: uncompiled, a start of Ansible or boto3 takes twice as long.
export PYTHONPYCACHEPREFIX := $(CURDIR)/build/pycache
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup setup-lab
setup: ## Install what all other targets need (Debian packages, virtualenv, host image)
	@tools/setup dev
setup-lab:
	@tools/setup lab

.PHONY: demo
demo: setup-lab ## Climb the stages in the lab, under traffic, and show the figures
	@$(PY) tools/demo.py

.PHONY: test
test: setup ## Run all tests; molecule and faults run beside integration
	@tools/test

.PHONY: lint unit templates application integration molecule faults thorough
lint: ## Lint YAML, Python, plugins and documents; offline once set up
	@tools/lint
unit: ## Run the unit tests; offline once set up
	@$(BIN)/pytest tests/unit
templates: ## Render every template and assert its lines
	@$(BIN)/pytest tests/templates
application: ## Run the reference application's own tests, against servers of their own
	@tools/test application
integration: ## Run the playbooks and the lab's own contract tests against a lab
	@tools/test integration
molecule: ## Run the scenarios of roles that each change must pass (tools/molecule: all, on Debian 12 too)
	@tools/test molecule
faults: ## Run all fault tests: killed controllers, lost hosts, a failing API, broken-off moves
	@tools/test faults
thorough: ## Run what make test leaves out, because it takes long
	@tools/test thorough

.PHONY: lab-up lab-status lab-down
lab-up: setup-lab ## Start the lab: an AWS of your own, on this machine
	@$(LAB) up
lab-status: ## Show what stands in the lab
	@$(LAB) status
lab-down: ## Stop the lab; nothing of it stays but the host image
	@$(LAB) down

.PHONY: docs sanity build clean
docs: ## Write the generated documents anew (the roles' READMEs)
	@tools/role_readmes
sanity: ## Validate the plugins as ansible-test and antsibull-docs do
	@tools/lint sanity
build: ## Build the collection's archive into build/
	@mkdir -p build && $(BIN)/ansible-galaxy collection build --force --output-path build .
clean: ## Take the lab down and remove everything that was made here
	@[ ! -x $(PY) ] || $(LAB) down --image
	@$(SUDO) rm -rf build .venv .ansible .cache .mypy_cache .ruff_cache .pytest_cache
