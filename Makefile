# Every target sets up what it needs in .venv, from the pinned versions, and only when they changed.
PYTHON ?= python3
VENV   := .venv
ifeq ($(OS),Windows_NT)
BIN    := $(VENV)/Scripts
else
BIN    := $(VENV)/bin
endif
SITE   := _build/html
PORT   ?= 8000
PIP    := $(BIN)/python -m pip install --disable-pip-version-check
# Building and testing never touch a reader's progress.
QUIET_PROGRESS := BYTES_TO_LATENTS_PROGRESS=

.DEFAULT_GOAL := help
.PHONY: help book serve lab test bench outputs fresh clean lint unit notebooks site

help:  ## this list
	@echo "Bytes to Latents"
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "%-18s %s\n", $$1, $$2}'

$(VENV)/.reader: requirements.txt constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Bytes to Latents needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1): try 'make PYTHON=python3.11 $(MAKECMDGOALS)'."; exit 1; }
	@echo "Setting up $(VENV) from the pinned versions (a few minutes, once)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) -r requirements.txt -c constraints.txt
	@touch $@

$(VENV)/.dev: $(VENV)/.reader requirements-dev.txt
	@echo "Adding what the tests need"
	@$(PIP) -r requirements-dev.txt -c constraints.txt
	@touch $@

book: $(VENV)/.reader  ## build the site into _build/html
	@$(QUIET_PROGRESS) $(BIN)/jupyter-book build . --all -W -n --keep-going || { rm -rf _build/.doctrees; exit 1; }
	@echo "The book: $(SITE)/index.html   (make serve shows it)"

serve: book  ## build the site and show it at http://localhost:8000
	@$(BIN)/python -m http.server $(PORT) --bind 127.0.0.1 --directory $(SITE)

lab: $(VENV)/.reader  ## open your own copies of the chapters (in work/) in JupyterLab
	@$(BIN)/python -m tools.notebooks copies
	@$(BIN)/jupyter lab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/work/00_warm_up.ipynb

fresh: $(VENV)/.reader  ## a new copy of one chapter in work/: make fresh CHAPTER=00 (the old copy is kept beside it)
	@$(BIN)/python -m tools.notebooks fresh $(CHAPTER)

outputs: $(VENV)/.dev  ## run the chapters and store their text outputs: make outputs [CHAPTER=00]
	@$(QUIET_PROGRESS) $(BIN)/python -m tools.notebooks outputs $(CHAPTER)

test: lint unit notebooks site  ## everything: style, units, exercises, notebooks, the site in a browser

lint: $(VENV)/.dev  ## style of code and notebooks
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

unit: $(VENV)/.dev  ## unit tests, doctests and exercise tests
	@$(QUIET_PROGRESS) $(BIN)/python -m pytest -q -n 2

notebooks: $(VENV)/.dev  ## run every chapter and compare each output with the stored one
	@$(QUIET_PROGRESS) $(BIN)/python -m pytest -q --nbval -n 2 --dist loadfile -o testpaths=chapters -o addopts="-p no:cacheprovider" chapters

site: $(VENV)/.dev book  ## the built site and JupyterLab, seen through a browser
	@$(QUIET_PROGRESS) $(BIN)/python -m pytest -q -n 2 tests/test_site.py tests/test_lab.py

# Peers that would bring other frameworks along come alone, into a folder of their own.
.venv-bench/.peers: requirements-bench.txt $(VENV)/.dev
	@echo "Adding peers to measure against"
	@$(PIP) --no-deps --upgrade --target .venv-bench -r $< && touch $@ || echo "They could not be installed: measuring without them"

bench: $(VENV)/.dev .venv-bench/.peers  ## side-by-side measurements against other implementations: make bench [BENCH=decode]
	@PYTHONPATH=.venv-bench $(BIN)/python -m benchmarks $(BENCH)

clean:  ## remove the built site and the execution cache (.venv, work/ and progress stay)
	@rm -rf _build .pytest_cache .ruff_cache
