# Everything a newcomer, a developer and CI run. `make help` lists it.

PYTHON ?= python3
DATA ?=
DEMO_ARGS ?=
SCORES ?=
PORT ?=
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
VUS := .venv-vus
SUPERSET := .venv-superset
AUDIT := .venv-audit
WORKERS ?= 2
# AUDIT_ARGS="--vulnerability-service osv --osv-url ..." asks a mirror of your own.
AUDIT_ARGS ?=
OFFLINE ?=
# A thread per worker: more would only wait for each other.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS)
# uv installs in seconds what takes pip a minute; it takes pip's index where one is set.
UV := index=$${UV_DEFAULT_INDEX:-$$($(BIN)/pip config get global.index-url 2>/dev/null)}; \
	unset UV_DEFAULT_INDEX; [ -z "$$index" ] || export UV_DEFAULT_INDEX="$$index"; $(BIN)/uv

HOLES := $(AUDIT)/bin/pip-audit --strict --disable-pip --require-hashes $(AUDIT_ARGS) -r $$file
WITHDRAWN := $(AUDIT)/bin/pip install --dry-run --ignore-installed --no-deps --quiet --require-hashes \
	--disable-pip-version-check -r $$file --report dist/packages.json && \
	$(AUDIT)/bin/python .ci/yanked.py dist/packages.json

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-stop demo-reset superset superset-stop test test-slow test-faults test-all audit wheel lint docs bench bench-large bench-files bench-backfill bench-bi bench-api vus lock

help: ## List what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

setup: $(STAMP) ## Make .venv with the command line `anomaly` in it

demo: $(STAMP) ## A whole deployment here: Postgres, Airflow, verdicts, a log-in (DATA=file for your own readings, DEMO_ARGS for what `anomaly ingest` must know of it)
	@$(BIN)/python -m anomaly.demo up $(if $(DATA),"$(DATA)") $(DEMO_ARGS)

demo-stop: $(STAMP) ## Stop the demo; its data stay
	@$(BIN)/python -m anomaly.demo stop

demo-reset: $(STAMP) ## Stop the demo and delete its data
	@$(BIN)/python -m anomaly.demo reset

superset: $(SUPERSET)/.installed ## Apache Superset on the running demo: its address, a log-in, the dashboard Plant (PORT=8088)
	@$(BIN)/python -m anomaly.demo superset $(if $(PORT),--port "$(PORT)")

superset-stop: $(STAMP) ## Stop Superset; what it holds stays
	@$(BIN)/python -m anomaly.demo superset-stop

test: lint ## Lint, types, tests
	$(PYTEST) --dist loadfile --no-loadscope-reorder --durations 15 -m "not slow"

test-slow: $(STAMP) ## Many more examples, real scheduler, other Postgres versions
	PROPERTIES=full $(PYTEST) --dist loadfile --durations 5 tests/integration/test_stateful.py
	$(PYTEST) --dist loadgroup --no-loadscope-reorder --durations 30 -m slow

test-faults: $(STAMP) ## Inject every fault as often as docs/reference/faults.md says, and write its table (half an hour)
	FAULTS=full $(PYTEST) --dist loadgroup -m slow tests/faults tests/acceptance/test_killed_airflow.py

test-all: test test-slow ## Both

audit: $(AUDIT)/.installed ## Known holes in the locked packages (OFFLINE=1: withdrawn releases and changed files instead), secrets in the files, and lists of parts in dist/
	@mkdir -p dist && cp .secrets.baseline dist/secrets.baseline
	@said=$$($(AUDIT)/bin/detect-secrets-hook --baseline dist/secrets.baseline \
		$$(git ls-files ':!.secrets.baseline') 2>&1) || \
		[ $$? -eq 3 ] || { echo "$$said"; exit 1; } # 3: known ones have moved to other lines
	@for name in "" -image; do \
		$(AUDIT)/bin/cyclonedx-py requirements requirements$$name.txt --output-file dist/sbom$$name.json && \
		echo "dist/sbom$$name.json lists what requirements$$name.txt brings" || exit 1; done
	@for file in requirements*.txt; do echo "$$file"; $(if $(OFFLINE),$(WITHDRAWN),$(HOLES)) || exit 1; done

wheel: $(STAMP) ## The one file to install beside your own Airflow: dist/anomaly-*.whl
	$(BIN)/python -m hatchling build -t wheel

lint: $(STAMP) ## Style, types, imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --verbose > $(VENV)/lint-imports.log || { cat $(VENV)/lint-imports.log; exit 1; }

docs: $(STAMP) ## Write the generated pages of docs/ again
	PYTHONPATH=docs $(BIN)/python -m docgen

bench: $(STAMP) ## Speed, as ratios against the plain way in the same run
	$(BIN)/python -m benchmarks

bench-large: $(STAMP) ## A tick of 100,000 machines by signals; a year of 1,000 in flat memory (an hour, 20 GB)
	$(BIN)/python -m benchmarks.tick
	$(BIN)/python -m benchmarks.large

bench-files: $(STAMP) ## Ten million rows of a file, beside COPY of a clean one (ten minutes)
	$(BIN)/python -m benchmarks.files

bench-backfill: $(STAMP) ## A year of five machines by one backfill (five minutes)
	$(BIN)/python -m benchmarks.backfills

bench-bi: $(STAMP) ## The views of bi on 35 million verdicts, a year of 1,000 machines (half an hour, 20 GB)
	$(BIN)/python -m benchmarks.bi

bench-api: $(STAMP) ## Calls of the API by HTTP, beside the prototype's shape (two minutes)
	$(BIN)/python -m benchmarks.api

vus: $(VUS)/.installed ## VUS-PR of an evaluation (SCORES=file.npz, from `anomaly evaluate --scores file.npz`)
	@test -f "$(SCORES)" || { echo "No file SCORES=$(SCORES): run anomaly evaluate --scores FILE.npz, then make vus SCORES=FILE.npz"; exit 1; }
	@PYTHONPATH=plugins $(VUS)/bin/python -m anomaly.evaluation.vus_pr "$(SCORES)"

lock: $(STAMP) ## Write requirements*.txt again from requirements*.in
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header requirements.in -o requirements.txt
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header -c requirements.txt requirements-s3.in -o requirements-s3.txt
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header -c requirements-s3.txt requirements-image.in -o requirements-image.txt
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header -c requirements-image.txt requirements-dev.in -o requirements-dev.txt
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header -c requirements-dev.txt requirements-bootstrap.in -o requirements-bootstrap.txt
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header -c requirements-dev.txt requirements-build.in -o requirements-build.txt
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header -c requirements-dev.txt requirements-bench.in -o requirements-bench.txt
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header requirements-vus.in -o requirements-vus.txt
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header requirements-superset.in -o requirements-superset.txt
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header requirements-audit.in -o requirements-audit.txt

$(STAMP): requirements-bootstrap.txt requirements-dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v <= (3, 13) else "Python %d.%d is not supported: run `make PYTHON=python3.12 ...` with one of 3.11 to 3.13" % v)'
	@$(PYTHON) -m venv $(VENV) || { echo "Python cannot make a virtual environment: on Debian and Ubuntu install python3-venv"; exit 1; }
	@echo "installing into $(VENV) ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-bootstrap.txt
	@$(UV) pip install --quiet --python $(BIN)/python --require-hashes -r requirements-dev.txt && \
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

$(AUDIT)/.installed: requirements-audit.txt | $(STAMP)
	@$(PYTHON) -m venv $(AUDIT)
	@$(UV) pip install --quiet --python $(AUDIT)/bin/python --require-hashes -r requirements-audit.txt
	@touch $@

# An environment of its own: aeon wants older libraries than the product has.
$(VUS)/.installed: requirements-vus.txt | $(STAMP)
	@$(PYTHON) -m venv $(VUS)
	@echo "installing into $(VUS) ..."
	@$(UV) pip install --quiet --python $(VUS)/bin/python --require-hashes -r requirements-vus.txt
	@touch $@

# An environment of its own: Superset wants an older SQLAlchemy than Airflow has.
$(SUPERSET)/.installed: requirements-superset.txt | $(STAMP)
	@$(PYTHON) -m venv $(SUPERSET)
	@echo "installing into $(SUPERSET) ..."
	@$(UV) pip install --quiet --python $(SUPERSET)/bin/python --require-hashes -r requirements-superset.txt
	@touch $@
