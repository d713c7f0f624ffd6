# make demo   set everything up and run the main job: a bench of forgetting methods with its report
# make test   set everything up and run the tests
# Nothing but Python (3.11 or newer), pip and make is needed.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
OUT    ?= demo
JOBS   ?= 2

.PHONY: demo test test-all claims lint types contracts check docs bench-overhead bench-peers bench-dock forgetting reusing clean

demo: $(STAMP)
	$(BIN)/didact bench forgetting --problem digits-class --seeds 3 --jobs $(JOBS) --ledger $(OUT)/ledger.sqlite --out $(OUT)

test: $(STAMP)
	$(BIN)/python -m pytest -n $(JOBS) -m "not slow"

test-all: $(STAMP)
	$(BIN)/python -m pytest -n $(JOBS)

# All claims: resumes, and writes results/, from which the README's and the site's tables are made.
claims: $(STAMP)
	$(BIN)/didact claim --all --jobs $(JOBS) --ledger results/ledger.sqlite --results results
	$(BIN)/python docs/tables.py

lint: $(STAMP)
	$(BIN)/ruff check src tests benchmarks docs examples
	$(BIN)/ruff format --check src tests benchmarks docs examples

types: $(STAMP)
	$(BIN)/mypy

contracts: $(STAMP)
	$(BIN)/lint-imports

check: lint types contracts

docs: $(STAMP)
	$(BIN)/mkdocs build --strict

bench-overhead: $(STAMP)
	$(BIN)/python benchmarks/overhead.py

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(STAMP)

# The same quantities in didact and in plain torch, side by side.
bench-peers: $(STAMP)
	$(BIN)/python benchmarks/forgetting_peers.py
	$(BIN)/python benchmarks/reusing_peers.py

# The runs and pictures of the guide "Which way to forget?".
forgetting: $(STAMP)
	$(BIN)/python docs/make_forgetting_pictures.py --jobs $(JOBS)

# Those of the guide "Which model to reuse?".
reusing: $(STAMP)
	$(BIN)/python docs/make_reusing_pictures.py --jobs $(JOBS)

# The dock beside others: search at 10,000 learnwares, 50 clients for a minute.
bench-dock: $(STAMP)
	$(BIN)/python benchmarks/dock_search.py
	$(BIN)/python benchmarks/dock_load.py

clean:
	rm -rf $(VENV) site demo runs
