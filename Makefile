# Everything a newcomer, a developer and CI type.  `make help` lists it.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
WORLDS := unit protocol kernel store lab vm

.DEFAULT_GOAL := help
.PHONY: help system system-vm install demo test $(WORLDS:%=test-%) lint format docs bench clean

help: ## List what can be made
	@sed -n 's/^\([a-z][a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r target about; do \
		printf '  make %-14s %s\n' "$$target" "$$about"; done
	@printf '  make %-14s %s\n' 'test-WORLD' 'Run one world of tests: $(WORLDS)'

system: ## Install the Debian packages that are missing (as root)
	@PYTHON=$(PYTHON) scripts/install-debian-packages

system-vm: ## Install what the virtual machine of the vm world needs (as root; not with VM=off)
	@PYTHON=$(PYTHON) scripts/install-debian-packages vm

install: $(STAMP) ## Make .venv with the spanlan command in it

# Made again only when the dependencies change; the package itself is linked, not copied.
$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "spanlan needs Python 3.11 or newer")'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || $(MAKE) --no-print-directory system
	@echo 'installing into $(VENV)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: system install ## Two Docker hosts on this machine share a network (KEEP=1 leaves them up)
	@$(BIN)/spanlan lab demo $(if $(KEEP),--keep)

test: system install ## Run every world of tests but the vm world (make test-vm)
	@scripts/run-worlds

$(WORLDS:%=test-%): test-%: system install
	@scripts/run-worlds $*

test-vm: system-vm # VM=off runs it on this kernel instead

lint: install ## Check style, types and the map of the rooms
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install ## Lay out the code, and sort its imports
	$(BIN)/ruff check --select I --fix .
	$(BIN)/ruff format .

docs: install ## Write the reference tables of README.md and config.json from the code
	$(BIN)/spanlan docs --write README.md --write config.json

bench: system install ## Measure handlers and the sync loop
	@$(BIN)/python -m bench

clean: ## Remove what was made here (a lab that is still up: spanlan lab down)
	rm -rf $(VENV) build dist plugin/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
