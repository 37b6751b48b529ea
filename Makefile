# The two commands: `make demo` and `make test`. Each makes what it needs in .venv and leaves nothing running.

# The newest Python from 3.11 up that is on the PATH; PYTHON=... names another.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
VENV ?= .venv
RUN := $(VENV)/bin/python
# In the order of their names: those that take long come first, and many short ones even out the end.
PYTEST := $(RUN) -m pytest -n 3 --dist loadfile --no-loadscope-reorder

# Tests start hundreds of processes: none of them is to compile everything anew, whatever the shell has set.
export PYTHONDONTWRITEBYTECODE :=

# Runs under faults for so many minutes; a seed repeats a run.
MINUTES ?= 30

# Simulated runs, by their seeds, and the processes that share them.
SEEDS ?= 0-9999
JOBS ?= 2
# Simulated runs within `make test`.
SIM_RUNS ?= 10000
export SIM_RUNS

.PHONY: demo test test-long test-all sim sim-reach chaos chaos-test coverage test-coverage coverage-report check format bench bench-peers bench-kafka clean

demo: $(VENV)/.demo
	@$(RUN) -m examples.demo

test: $(VENV)/.test
	$(PYTEST) $(ARGS)

# Whole runs of the example systems and of streams under faults, over every broker: some four minutes.
test-long: $(VENV)/.test
	$(PYTEST) -m long $(ARGS)

# Every Python from 3.11 up that the machine has, each in an environment of its own.
test-all:
	@set -e; for v in 3.11 3.12 3.13 3.14; do \
	  for p in python$$v $(HOME)/.pyenv/versions/$$v.*/bin/python; do \
	    if $$p -c 'import sys, venv, ensurepip; sys.exit("%d.%d" % sys.version_info[:2] != "'$$v'")' 2>/dev/null; then \
	      echo "== Python $$v: $$p"; $(MAKE) --no-print-directory test PYTHON=$$p VENV=.venv-$$v; break; fi; done; done

coverage: test-coverage coverage-report

# `make test`, measuring; worker processes that a test kills leave data that cannot be read, which coverage says and skips.
test-coverage:
	@rm -f .coverage .coverage.*
	@$(MAKE) --no-print-directory test ARGS="--cov --cov-report= --ignore=tests/sim $(ARGS)"

coverage-report: $(VENV)/.test
	$(RUN) -m coverage report --skip-covered --fail-under=95

# What CI asks besides the tests: format, lint, types.
check: $(VENV)/.test
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	$(RUN) -m mypy
	$(RUN) -m pyright --pythonpath $(RUN)

format: $(VENV)/.test
	$(RUN) -m ruff format .
	$(RUN) -m ruff check --fix .

# Every scenario once with a fixed seed: real processes, one run at a time, as a machine under other load is a fault of its own.
chaos-test: $(VENV)/.test
	$(RUN) -m pytest -m chaos $(ARGS)

chaos: $(VENV)/.test
	$(RUN) -m tests.chaos --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

# Whole systems in virtual time, from a seed each: some thousand a minute on each core.
sim: $(VENV)/.test
	$(RUN) -m tests.sim --seeds $(SEEDS) --jobs $(JOBS) $(ARGS)

sim-reach: $(VENV)/.test
	$(RUN) -m tests.sim.reach $(ARGS)

bench: $(VENV)/.test
	$(RUN) -m benchmarks.contest
	$(RUN) -m benchmarks.calls
	$(RUN) -m benchmarks.streams
	$(RUN) -m benchmarks.growth
	$(RUN) -m benchmarks.timeline
	@if command -v java > /dev/null; then $(MAKE) --no-print-directory bench-kafka; else echo "Kafka is left out: there is no Java"; fi

# The same with Celery, Dramatiq, Taskiq, arq, SAQ, Huey, RQ, FastStream, streaQ and gRPC's blocking face.
bench-peers: $(VENV)/.test .venv-peers/.made .venv-arq/.made .venv-saq/.made
	$(RUN) -m benchmarks.contest --peers

.venv-peers/.made: benchmarks/peers/requirements.txt
.venv-arq/.made: benchmarks/peers/requirements-arq.txt
.venv-saq/.made: benchmarks/peers/requirements-saq.txt
.venv-peers/.made .venv-arq/.made .venv-saq/.made: .venv-%/.made:
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/python -m pip install -q --disable-pip-version-check -r $<
	@touch $@

# Needs Java 17; fetches the jars where they are missing.
bench-kafka: $(VENV)/.test
	$(RUN) -m benchmarks.kafka

clean:
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +
	rm -rf .venv .venv-* .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage .coverage.* build dist

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "PRPC needs Python 3.11 or newer: install it, or name it with PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(VENV) || { echo "The venv module is missing: install it (on Debian: python3-venv)"; exit 1; }

$(VENV)/.demo: pyproject.toml | $(VENV)/bin/python
	$(RUN) -m pip install -q --disable-pip-version-check -e '.[dev-broker,progress]'
	@touch $@

$(VENV)/.test: pyproject.toml requirements.txt | $(VENV)/bin/python
	$(RUN) -m pip install -q --disable-pip-version-check -r requirements.txt
	# The oldest jsonpickle that messages are exchanged with; tests read with it, nothing else does.
	$(RUN) -m pip install -q --disable-pip-version-check --no-deps --upgrade --target $(VENV)/jsonpickle-3.3.0 jsonpickle==3.3.0
	@touch $@ $(VENV)/.demo
