# Everything runs from .venv, which `make install` fills with the versions in constraints.txt.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
# One more index for pip to find torch in, for example PyTorch's own for a CUDA or ROCm build. Empty: the usual one.
TORCH_INDEX ?=
# Processes that run tests side by side. Most tests wait more than they compute.
WORKERS ?= 2
OUT ?= out
SEED ?= 2026
PROMPT ?= a lighthouse at dawn
CLIP_PROMPT ?= woman walking

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.PHONY: install
install: $(VENV)/installed ## Make .venv and install everything into it

$(VENV)/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -e '.[dev]'
	touch $@

.PHONY: demo
demo: install ## Start the whole system, make three images and a clip in OUT, stop it
	$(BIN)/python scripts/demo.py --out $(OUT) --seed $(SEED) --prompt '$(PROMPT)' --clip-prompt '$(CLIP_PROMPT)'

.PHONY: test
test: install ## Run all tests that this machine can run, in WORKERS processes
	$(BIN)/python -m pytest --numprocesses $(WORKERS)

# Which benchmarks `make bench` runs, all if empty, and how often each is measured.
BENCH ?=
ROUNDS ?= 5

.PHONY: bench
bench: install ## Measure ours beside peers, in turn, and write benchmarks/README.md
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[bench]'
	PYTHONPATH=benchmarks:tests $(BIN)/python -m ourvidz_bench $(BENCH) --rounds $(ROUNDS) --keep

.PHONY: lint
lint: install ## Check style, layers and contracts; changes nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/buf lint

.PHONY: types
types: install ## Check types
	$(BIN)/mypy

.PHONY: format
format: install ## Bring all code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: protos
protos: install ## Regenerate the stubs from the contracts
	$(BIN)/python scripts/make_stubs.py

.PHONY: settings
settings: install ## Write docs/settings.md from the settings classes
	$(BIN)/python scripts/make_settings_page.py > docs/settings.md

.PHONY: check-protos
check-protos: protos ## Fail if the committed stubs are not what the contracts make
	@test -z "$$(git status --porcelain -- sdk/ourvidz/api)" || \
	  { git status --short -- sdk/ourvidz/api; echo 'The stubs differ from the contracts: run make protos and commit.'; exit 1; }
