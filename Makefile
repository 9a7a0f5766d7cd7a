PYTHON ?= python3

.PHONY: help setup demo test assure campaign-fence hosts hosts-all lint format lock clean

help:
	@echo "make demo    set everything up and watch a job outlive three hosts"
	@echo "make test    set everything up and run every check and test"
	@echo "make assure  the contracts' long assurance: slither, coverage, proofs, planted bugs, mutants, fuzzing, campaign"
	@echo "make hosts   real hosts (Debian with systemd) in virtual machines; 'make hosts-all' is the full list"
	@echo "make campaign-fence  1,000 kills of agent, guards and Docker at random moments: no job runs past its fence (40 minutes)"
	@echo "make setup   only the set-up (idempotent)"
	@echo "make lint    linters and type checker"
	@echo "make format  ruff format and forge fmt"
	@echo "make lock    pin the requirements anew after a change of pyproject.toml"
	@echo "make clean   stop what runs and remove what was built"

setup:
	@$(PYTHON) scripts/setup.py

demo: setup
	@.venv/bin/everlease demo

test: setup
	@$(PYTHON) scripts/check.py

assure: setup
	@$(PYTHON) scripts/assure.py

hosts: setup
	@PYTHONPATH=scripts $(PYTHON) -m hosts.setup
	@PYTHONPATH=scripts .venv/bin/python -m hosts.main

hosts-all: setup
	@PYTHONPATH=scripts $(PYTHON) -m hosts.setup
	@PYTHONPATH=scripts .venv/bin/python -m hosts.main --all

campaign-fence: setup
	@scripts/make_image.sh
	@.venv/bin/python scripts/fence_campaign.py --kills 1000

lint: setup
	@$(PYTHON) scripts/check.py --lint

format: setup
	@.venv/bin/ruff format .
	@.venv/bin/ruff check --fix-only --quiet .
	@node_modules/@foundry-rs/forge-linux-amd64/bin/forge fmt

COMPILE = .tools/uv/bin/uv pip compile -q --python-version 3.11 --generate-hashes --no-header --no-annotate

lock: setup
	@$(COMPILE) pyproject.toml --extra server --group dev -o requirements/services.txt
	@$(COMPILE) --group contracts -o requirements/contracts.txt

clean:
	@if [ -d .build/hosts ] && [ -x .venv/bin/python ]; then PYTHONPATH=scripts .venv/bin/python -m hosts.main --stop; fi
	@if [ -x .venv/bin/everlease ]; then .venv/bin/everlease down --purge; fi
	@rm -rf .everlease .build .tools .venv .venv-ape .venv-assure node_modules .solcx out cache
	@rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis *.egg-info
