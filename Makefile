# make install once, the other targets do it by themselves.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
TORCH := $(shell grep '^torch==' constraints.txt)
TEST_ENV := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1
WORKERS ?= 2
DEMO_OUT ?= demo-run
# Those that need no data; benchmarks/README.md has the others.
BENCHES ?= bench_cli bench_train bench_queries

.PHONY: install demo test test-all check format bench docs clean

install: $(STAMP)

# torch comes first and by itself: it is the largest part and rarely changes.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(TORCH) -c constraints.txt
	$(BIN)/python -m pip install --quiet -e '.[dev]' -c constraints.txt
	touch $@

demo: $(STAMP)
	$(BIN)/graphmert demo --out $(DEMO_OUT)

test: $(STAMP)
	$(TEST_ENV) $(BIN)/python -m pytest -n $(WORKERS) -m 'not slow and not gpu'

test-all: $(STAMP)
	$(TEST_ENV) $(BIN)/python -m pytest -n $(WORKERS)

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP)
	@for name in $(BENCHES); do echo "== $$name"; $(BIN)/python benchmarks/$$name.py || exit 1; done

# Links of every page and the examples in the pages are tested; the pages are plain Markdown.
docs: $(STAMP)
	$(TEST_ENV) $(BIN)/python -m pytest -q tests/docs

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis
