# Two commands matter: `make demo` and `make test`. Both set everything up first, once.
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
export PATH := $(BIN):$(PATH)
export PYTHONWARNINGS := ignore
CONF ?= conf/demo.yaml
# Files of tests run side by side, each process with a Spark of its own (3 GB); SIDE_BY_SIDE=0 for one after the other.
SIDE_BY_SIDE ?= 2
# What "make test" runs; TESTS="slow or not slow" is all, an hour on two cores.
TESTS ?= not slow
PYTEST := python -m pytest -q -n $(SIDE_BY_SIDE) --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help setup demo run test test-slow test-airflow lint bench docs clean clean-env

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

setup: ## the environment in .venv: locked packages, Horovod, Delta's jars (once; about 5 minutes)
	@bash requirements/setup.sh $(VENV)

demo: setup ## the whole pipeline on a simulated shop; ends with the metrics, ten lists and the report
	@sparkrec run --conf conf/demo.yaml

run: setup ## the whole pipeline on CONF=conf/NAME.yaml
	@sparkrec run --conf $(CONF)

test: setup lint ## style, types and the fast tests
	@$(PYTEST) -m "$(TESTS)" --durations=25

test-slow: setup ## the slow tests alone: real data, real ranks, killed processes
	@$(PYTEST) -m slow --durations=25

test-airflow: setup ## the DAG under a real Airflow, in an environment of its own (.venv-airflow)
	@bash requirements/airflow.sh .venv-airflow

lint: setup
	@ruff check . && ruff format --check . && mypy

bench: setup ## every claim, measured beside its peer; writes docs/benchmarks.md
	@for script in bench/[a-z]*.py; do python $$script || exit 1; done

docs: setup ## docs/tables.md and docs/configuration.md, from the code
	@python -m sparkrec.docs

clean: ## what the demo left behind: lake/demo and Spark's own folders; your own lakes stay
	@rm -rf lake/demo spark-warehouse metastore_db derby.log

clean-env: ## the environments
	@rm -rf .venv .venv-airflow .venv-peers*
