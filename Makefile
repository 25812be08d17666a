# make play: build, then watch the showpiece. make test: build, then the tests.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# Small tensors on shared cores are slower with more threads, sometimes tenfold.
export OMP_NUM_THREADS ?= 1

.PHONY: play test browser check slow bench lint

play: $(INSTALLED)
	$(BIN)/sextet play

test: $(INSTALLED) browser
	$(BIN)/python -m pytest -n 2 --dist worksteal

# The page is tested in a real browser: fetched where apt and root are at hand, else those tests skip.
browser:
	@command -v chromium chromium-browser google-chrome-stable google-chrome >/dev/null || { \
	  test "$$(id -u)" = 0 && command -v apt-get >/dev/null && { apt-get update -qq && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium; } \
	  >/dev/null 2>&1; } || echo "no Chromium: the tests of the page will skip"

check: lint test

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

slow: $(INSTALLED)
	$(BIN)/python -m pytest -m slow -n 2 --dist worksteal

# make torture-kill, -faults, -configs, -checkpoints, -traces, -hostile, -worlds, -nan, -soak: docs/RELIABILITY.md.
torture-%: $(INSTALLED)
	$(BIN)/python -m tests.torture $*

bench: $(INSTALLED)
	$(BIN)/sextet bench loop
	$(BIN)/sextet bench world
	$(BIN)/sextet bench memory
	$(BIN)/sextet bench ports
	$(BIN)/sextet bench trace
	$(BIN)/sextet bench learn
	$(BIN)/sextet bench plan

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .[dev,video,hog]
	touch $(INSTALLED)
