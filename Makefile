# Each target works from a fresh clone on its own; Python 3.11.5 or newer, pip and make are all it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
HASHED := --require-hashes --no-deps
# Its CPU build where an index has one. Left to itself, pip takes a build whose hash the index tells before one whose
# hash is found by reading it. Where it is the CUDA build, `pip install torch` adds CUDA's libraries.
TORCH := $(shell sed -n 's/^torch==\([^ ]*\).*/\1/p' constraints.txt)

# Where `make nightly` puts the data sets.
DATA ?= data

.PHONY: help install demo test test-all nightly lint mini bench docs

help:
	@echo "make install   build .venv with all that the targets below need"
	@echo "make demo      draw scenes, segment them, write demo/contact-sheet.png"
	@echo "make test      the fast tests;  make test-all: the slow ones too"
	@echo "make nightly   the tests with published weights: fetches 6 GB of them, and Pascal VOC into DATA=data"
	@echo "make lint      format, style and types"
	@echo "make mini      train the mini checkpoints anew (90 minutes on two free CPU cores; resumes after a stop)"
	@echo "make bench     the ablation table and the refinement timings"
	@echo "make docs      build the site in build/site, and run every code block of README and docs"

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11, 5))' || \
		{ echo "pnp-ovss needs Python 3.11.5 or newer; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip download --quiet --no-deps --dest $(VENV)/wheels torch==$(TORCH)
	sed -n '/^torch==/,/[^\\]$$/p' constraints.txt > $(VENV)/wheels/torch.txt
	$(BIN)/python -m pip install --quiet $(HASHED) --no-index --find-links $(VENV)/wheels --requirement $(VENV)/wheels/torch.txt
	$(BIN)/python -m pip install --quiet $(HASHED) --requirement constraints.txt
	$(BIN)/python -m pip install --quiet torch
	@rm -r $(VENV)/wheels
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

install: $(STAMP)

demo: $(STAMP)
	$(BIN)/pnp-ovss demo

test: $(STAMP)
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not slow"

test-all: $(STAMP)
	$(BIN)/python -m pytest -n auto

nightly: $(STAMP)
	-$(BIN)/pnp-ovss data get voc --to $(DATA)
	$(BIN)/python -m pytest -m weights --weights --record --data $(DATA)

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

mini: $(STAMP)
	$(BIN)/python -m training.train --name mini-blip
	$(BIN)/python -m training.train --name mini-clip
	$(BIN)/python -m training.train --name mini-bridgetower

bench: $(STAMP)
	$(BIN)/python -m pip install --quiet --no-deps pydensecrf2==1.1 || \
		echo "pydensecrf2 did not build; the timings go on without the yardstick"
	$(BIN)/python -m benchmarks.ablation
	$(BIN)/python -m benchmarks.refine

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	$(BIN)/python -m pytest tests/test_docs.py
