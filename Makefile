# SPDX-License-Identifier: Apache-2.0
# The two that everybody needs: make demo, make test. Both set up what they need.
HOSTS ?= 3
LANES ?=
PORT ?= 8443
PYTHON := .venv/bin/python
# Processes side by side, each a file at a time; one more than the cores of a small machine, for tests wait a lot. Lanes run
# one after another unless told otherwise: some of them measure, or fill the machine. Paths of sockets have 108 characters
# at most: the folder of temporary files is short.
pytest = base=$$(mktemp -d /tmp/hw.XXXXXX) && \
	if $(PYTHON) -m pytest -n $(JOBS) --dist loadfile --basetemp "$$base/t" $(1); then rm -rf "$$base"; \
	else rmdir --ignore-fail-on-non-empty "$$base"; exit 1; fi
MAKEFLAGS += --no-print-directory
# What runs more than once is compiled once.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo demo-stop test test-long bench bench-long lint build clean

help:
	@echo 'make demo [HOSTS=3] [PORT=8443]   a hub and real hosts on this machine, the agent rolled out to them'
	@echo 'make demo-stop                    removes all of the demo'
	@echo 'make test                         linters and tests'
	@echo 'make test-long LANES="a b"        further lanes of tests, JOBS=3: three side by side; without LANES, their names'
	@echo 'make lint | build | bench | clean linters | dist/ | figures | removes .venv, .cache and dist'

setup:
	@.ci/setup

# Looks before it leaps: what would stop the demo is found before anything is installed or changed.
demo:
	@/usr/bin/python3 -m lab.demo check --hosts $(HOSTS) --port $(PORT)
	@.ci/setup
	@$(PYTHON) -m lab.demo start --hosts $(HOSTS) --port $(PORT)

demo-stop:
	@/usr/bin/python3 -m lab.demo stop

test: JOBS ?= 3
test: setup
	@.ci/lint
	@$(call pytest)

test-long: JOBS ?= 0
test-long: setup
	@$(call pytest,--lanes='$(LANES)')

lint: setup
	@.ci/lint

build: setup
	@$(PYTHON) packaging/build_packages.py

bench: setup
	@$(PYTHON) -m benchmarks.run

bench-long: setup
	@$(PYTHON) -m benchmarks.run --long

clean:
	@test ! -e .demo || { echo 'The demo is running. Run make demo-stop first.' >&2; exit 1; }
	rm -rf .venv .cache dist
