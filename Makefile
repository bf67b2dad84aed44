# make demo   what it does, in a minute, on a database of your own
# make test   all tests of the package but the next ones; with VITAL_LONG_TESTS=1 every cell of the budget matrix, and twice the examples
# make test-pages  the tests of the API and the pages, over PostgreSQL, over Supabase and in a browser
# make test-processes  the tests that kill processes, fork them, fill their disks and take the network away
# make test-oldest  what depends on the version of the server, on the oldest one that is supported
# make test-clickhouse  the tests of the copy in a ClickHouse, with its engine in this process; that is half a gigabyte to install
# make test-support  the tests of the servers that the others run against: do they speak as the real ones do?
# make test-wheel  the wheel in an empty environment, with the demo, on each supported Python that is here
# make check  style, types, architecture, SQL
# make bench  what it costs, beside what you would take instead, in a quarter of an hour; docs/performance.md has the figures
# make bench-full  the same for longer, at more sizes, in an hour; JSON=FILE keeps the figures of both
# make bench-reports  how long every view and reading function takes at CALLS calls, as each role, and how it grows, in a quarter of an hour;
#             at CALLS=10000000 it takes 10 GB and an hour
# make soak   storms on budgets and delivery, then ten minutes of mixed load, forks and outages: does nothing overspend, is every call
#             stored once, do memory and files stay flat?
#
# Each makes its own virtual environment where none is. PYTHON names the interpreter, 3.11 or newer; MINUTES how long to soak.

PYTHON ?= python3
MINUTES ?= 10
CALLS ?= 3000000
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest -q
PARALLEL := -n auto --dist worksteal
# What depends on the version of the server runs on the oldest that the extra `local` brings, too: how rows are recorded, kept, summed up and
# read. All migrations are applied there for it.
ON_POSTGRES_16 := tests/integration/stores/test_postgres.py $(foreach name,record partitions usage_aggregations retention \
  budget_windows budget_grants project_views usage_reports analytics anomalies,tests/sql/test_$(name).py)
PROCESSES := tests/integration/imports/test_killed.py tests/integration/spool tests/integration/delivery/test_process_life.py tests/integration/budgets/test_processes.py \
  tests/integration/langchain/test_handler_load.py
PAGES := tests/integration/web tests/browser tests/acceptance/cli/test_dashboard.py

.PHONY: demo test test-pages test-processes test-oldest test-clickhouse test-support test-wheel check bench bench-full bench-reports soak format clean

demo: $(VENV)/.demo
	@$(BIN)/vital-tracking demo

# The packages of Node.js, which few tests need, come in the meantime; who needs them waits for them.
test: $(VENV)/.test
	$(BIN)/python -m tests.support.node >/dev/null 2>&1 & $(PYTEST) $(PARALLEL) $(PAGES:%=--ignore=%) $(PROCESSES:%=--ignore=%)

test-pages: $(VENV)/.test
	$(BIN)/python -m tests.support.node >/dev/null 2>&1 & $(PYTEST) $(PARALLEL) $(PAGES)

test-processes: $(VENV)/.test
	$(PYTEST) $(PARALLEL) $(PROCESSES)

test-oldest: $(VENV)/.test
	VITAL_TEST_POSTGRES=16 $(PYTEST) $(PARALLEL) $(ON_POSTGRES_16)

test-clickhouse: $(VENV)/.test-clickhouse
	$(PYTEST) $(PARALLEL) tests/clickhouse

test-support: $(VENV)/.test
	$(PYTEST) $(PARALLEL) tests/support

test-wheel: $(VENV)/.test
	$(PYTEST) $(PARALLEL) tests/wheel

check: $(VENV)/.check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/sqlfluff lint --disable-progress-bar supabase
	$(PYTEST) tests/unit/test_architecture.py

bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks $(if $(JSON),--json $(JSON))

bench-full: $(VENV)/.bench
	$(BIN)/python -m benchmarks --full $(if $(JSON),--json $(JSON))

bench-reports: $(VENV)/.test
	$(BIN)/python -m benchmarks.reports_readers --calls $(CALLS)

soak: $(VENV)/.test
	$(BIN)/python -m benchmarks.storms
	$(BIN)/python -m benchmarks.soak --minutes $(MINUTES)

format: $(VENV)/.check
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache tests/node/node_modules

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "vital_tracking needs Python 3.11 or newer; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"

# The stamps are newer than pyproject.toml where what it asks for is installed.
$(VENV)/.demo: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[cli,local,agents,web]"
	@touch $@

$(VENV)/.test: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[cli,local,agents]" --group test
	@touch $@

$(VENV)/.test-clickhouse: pyproject.toml $(VENV)/.test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[cli,local,agents,clickhouse]" --group test-clickhouse
	@touch $@

$(VENV)/.bench: pyproject.toml $(VENV)/.test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --group bench
	@touch $@

$(VENV)/.check: pyproject.toml $(VENV)/.test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --group check
	@touch $@
