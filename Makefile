# Everything that a user or a developer runs. `make help` lists it.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test tools check docs bench validate samples clean

help: ## show this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 20

demo: $(VENV)/installed ## install into a virtual environment and analyze sample_dumps/
	$(RUN)/hvshare analyze sample_dumps/*.raw.bz2

# Tests start hundreds of processes, which would compile every module where PYTHONDONTWRITEBYTECODE is set.
test: $(VENV)/installed-dev ## run all tests
	@$(RUN)/python -m compileall -q hvshare
	$(RUN)/python -m pytest -n auto

tools: ## install what further tests ask for a second opinion (Debian, as root)
	apt-get -q update
	DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends \
		gdb makedumpfile python3-libkdumpfile qemu-system-x86

check: $(VENV)/installed-dev ## lint, types, import rules, docs in step
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy
	$(RUN)/lint-imports
	$(RUN)/python docs/make_cli_reference.py --check
	$(RUN)/python sample_dumps/make_samples.py --check

docs: $(VENV)/installed-dev ## write docs/cli.md from the help texts
	$(RUN)/python docs/make_cli_reference.py

bench: $(VENV)/installed-dev ## measure speed and memory beside other tools
	$(RUN)/python -m tests.benchmarks.bench_analyze
	$(RUN)/python -m tests.benchmarks.bench_formats
	$(RUN)/python -m tests.benchmarks.bench_compare
	$(RUN)/python -m tests.benchmarks.bench_erosion
	$(RUN)/python -m tests.benchmarks.bench_synth

validate: $(VENV)/installed-dev ## hold erosion against guests whose truth is known: LAB=DIR, SYNTH=1, IMAGES=DIR (docs/validation.md)
	@test -n "$(LAB)$(SYNTH)$(IMAGES)" || { echo "name guests: make validate LAB=DIR, SYNTH=1 or IMAGES=DIR; see docs/validation.md" >&2; exit 2; }
	$(RUN)/python -m tests.validation $(if $(SYNTH),--synth) $(if $(IMAGES),--images "$(IMAGES)") $(if $(LAB),"$(LAB)") $(if $(NAME),--write "$(NAME)",$(if $(WRITE),--write))

samples: $(VENV)/installed ## make sample_dumps/ again from its seed
	$(RUN)/python sample_dumps/make_samples.py

clean: ## remove the virtual environment and all caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find hvshare tests docs sample_dumps -name __pycache__ -type d -exec rm -rf {} +

$(VENV)/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "hvshare needs Python 3.11 or newer; name one with: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(RUN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(RUN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@
