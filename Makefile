# Few verbs, the same everywhere; `.ci/run` and people call the same ones. `make` alone lists them.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(firstword $(shell command -v python3.11 python3.12 python3))
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
STATE  := $(or $(RAYDIOLOGY_HOME),.raydiology)
export OMP_WAIT_POLICY := PASSIVE
LLM    := $(STATE)/models/SmolLM2-135M-Instruct
WITH_ENV := set -a; source $(STATE)/env; set +a;
PIP    := $(BIN)/pip install --quiet --disable-pip-version-check --no-deps
SOURCE ?=
FREE_PORTS ?=
ARGS   ?=
FAST   := $(addprefix tests/,cluster data docs jobs serve structure train tune)

.PHONY: help setup demo test test-fast test-gpu up down status check format bench

help:  ## this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(STAMP) $(LLM)/card.json  ## install the locked dependencies into .venv and convert the language model

$(STAMP): requirements.lock
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; v in ((3, 11), (3, 12)) or sys.exit("Raydiology needs Python 3.11 or 3.12, this is %d.%d; say make PYTHON=/path/to/python3.11" % v)'
	@echo "Installing into $(VENV) (several minutes, once)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) -r <(grep -v '^deepspeed==' requirements.lock)
	@$(PIP) --no-build-isolation $$(grep '^deepspeed==' requirements.lock)
	@touch $@

$(LLM)/card.json: | $(STAMP)
	@$(BIN)/python -m jobs.fetch_llm --directory $(LLM) --convert_only

demo: setup  ## the whole chain, from X-rays to an explained answer; SOURCE=DIR takes your own folder
	@$(BIN)/python -m cluster.embedded.platform up --free-ports
	@$(WITH_ENV) $(BIN)/python -m jobs.pipeline $(if $(SOURCE),--source "$(SOURCE)") $(ARGS)

test: setup  ## every test tier that needs no GPU
	@$(BIN)/python -m $(if $(ARGS),pytest $(ARGS),tests.side_by_side)

test-fast: $(STAMP)  ## the tests of the rooms, which need no platform and no Ray, on all cores
	@$(BIN)/python -m pytest $(FAST) --numprocesses auto --dist loadfile $(ARGS)

test-gpu: $(STAMP)  ## the tier that needs a CUDA device
	@$(BIN)/python -m pytest tests/gpu $(ARGS)

up: setup  ## start the embedded platform and serve the champion, if there is one
	@$(BIN)/python -m cluster.embedded.platform up $(if $(FREE_PORTS),--free-ports)
	@$(WITH_ENV) $(BIN)/python -m jobs.deploy --restore

down: $(STAMP)  ## stop the embedded platform; its state stays in .raydiology/
	@$(BIN)/python -m cluster.embedded.platform down

status: $(STAMP)  ## what runs, where, and the last words of what died
	@$(BIN)/python -m cluster.embedded.platform status

check: $(STAMP)  ## linters, types, import contract
	@$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy && $(BIN)/lint-imports

format: $(STAMP)  ## formatter and safe fixes
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

bench: setup  ## the benchmarks, each a ratio in one run; ONLY=NAME runs one
	@$(if $(wildcard $(STATE)/env),$(WITH_ENV)) $(BIN)/python -m jobs.bench $(if $(ONLY),--only "$(ONLY)")
