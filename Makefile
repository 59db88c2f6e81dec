# Everything a user or developer types. Each target does all the set-up that it needs.
SHELL := /bin/bash
POLDER := .venv/bin/polder

.PHONY: up demo test down bench lint fast clean

up:            ## install what is missing, start a two-node cluster on this machine
	@tools/setup.sh
	@$(POLDER) up

demo:          ## two tenants with the same names and addresses; prints what reaches what
	@tools/setup.sh
	@$(POLDER) demo

down:          ## stop the cluster and leave nothing behind outside its state folder
	@tools/setup.sh
	@$(POLDER) down

lint:          ## style, types, import contracts
	@SETUP_DEV=1 tools/setup.sh
	.venv/bin/ruff format --check polder tests tools bench
	.venv/bin/ruff check
	.venv/bin/mypy
	.venv/bin/lint-imports --no-logo

fast: lint     ## lint and the tests that need no root
	.venv/bin/pytest -q -m "not system and not e2e" tests

test: lint     ## everything: lint, types, contracts, unit, system, end to end
	.venv/bin/pytest -q tests

bench:         ## benchmarks against peers, each a ratio in one run
	@SETUP_DEV=1 tools/setup.sh
	.venv/bin/python -m bench

clean:
	rm -rf .venv polder/_generated
