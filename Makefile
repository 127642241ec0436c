# The commands of this project. GNU make 3.81 (macOS) and a POSIX shell are enough.
# Variables reach the recipes through the environment, so that folders may have spaces, quotes or accents in their names.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help setup plan reproduce tour figures lab site test test-all test-slurm mutation coverage lock lint

EXPERIMENT ?= quick
DATASET ?=
RESULTS ?=
JOBS ?= 2
PROFILE ?=
PYTHON ?=
ARGS ?=
export EXPERIMENT DATASET RESULTS JOBS PROFILE PYTHON

# SETUP=no: use the `python` of the active environment (conda, a container) as it is.
ifeq ($(SETUP),no)
BIN :=
else
BIN := .venv/bin/
endif
PY := $(BIN)python
# What `make setup` installs; a cluster's login node adds slurm.
EXTRAS := lab test docs dev

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "  EXPERIMENT=quick    a file of config/, without .yaml"
	@echo "  DATASET=path        a folder of images, a parquet file or folder, or a hub id, instead of the experiment's own"
	@echo "  RESULTS=folder      where results go (results)"
	@echo "  JOBS=2              processes side by side"
	@echo "  PROFILE=folder      a Snakemake profile that runs the jobs on a cluster: config/slurm"
	@echo "  PYTHON=python3.12   the Python to make .venv with, 3.11 to 3.14"
	@echo "  SETUP=no            use the active environment (conda, a container) instead of .venv"
	@echo "  ARGS='...'          more arguments for test, test-all and lab"

setup:  ## make .venv ready: at once when it is
ifneq ($(SETUP),no)
	@sh tools/setup.sh
endif

reproduce: setup  ## train, measure, run the notebooks and write the report of EXPERIMENT; goes on where it was stopped
	@set -- --experiment "$$EXPERIMENT" --jobs "$$JOBS"; \
	if [ -n "$$DATASET" ]; then set -- "$$@" --dataset "$$DATASET"; fi; \
	if [ -n "$$RESULTS" ]; then set -- "$$@" --results "$$RESULTS"; fi; \
	if [ -n "$$PROFILE" ]; then set -- "$$@" --profile "$$PROFILE"; fi; \
	exec $(PY) -m debiaslib.study.pipeline "$$@"

plan: setup  ## what EXPERIMENT will cost in device hours: a dry run that starts nothing
	@set -- --experiment "$$EXPERIMENT" --dry-run; \
	if [ -n "$$DATASET" ]; then set -- "$$@" --dataset "$$DATASET"; fi; \
	exec $(PY) -m debiaslib.study.pipeline "$$@"

tour:  ## the paper's figures and the first chapters from published networks: trains nothing, two minutes
	@$(MAKE) --no-print-directory reproduce EXPERIMENT=tour

figures: setup  ## draw every figure of EXPERIMENT again from its saved tables
	@exec $(PY) -m debiaslib.figures --results "$${RESULTS:-$${DEBIASLIB_RESULTS:-results}}/$$(basename "$${EXPERIMENT%.y*ml}")"

lab: setup  ## open the notebooks in JupyterLab
	@exec $(PY) -m jupyterlab $(ARGS) notebooks

site: setup  ## the pages of the project as a web site in site/, from the published notebooks; nothing is executed
	@exec $(PY) docs/site/build.py $(ARGS)

# One thread for each test process: with more, JOBS processes would fight for the same cores. A file is one process's work:
# what its tests share is made once.
test: setup  ## the tests, without the slow ones
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} exec $(PY) -m pytest -q -n "$$JOBS" --dist loadfile -m "not slow" $(ARGS)

test-all: setup  ## all tests
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} exec $(PY) -m pytest -q -n "$$JOBS" --dist loadfile $(ARGS)

test-slurm: setup  ## the Snakefile on a Slurm of one node that the test starts (root, slurm-wlm, munge); else skipped
	@OMP_NUM_THREADS=1 exec $(PY) -m pytest -q -rs -n 0 tests/test_slurm.py $(ARGS)

mutation: setup  ## change schedule, weighting and prediction in small ways: do the tests notice? ([tool.mutmut])
	@OMP_NUM_THREADS=1 $(BIN)mutmut run --max-children "$$JOBS" $(ARGS); $(BIN)mutmut results

# All may write into the folder of the data: a test runs the pipeline as a user who owns nothing.
coverage: setup  ## branch coverage of debiaslib by all tests, slow ones too; an error below 90 %
	@rm -rf .coverage.d && mkdir -m 1777 .coverage.d && \
	{ OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(PY) -m coverage run -m pytest -q -n "$$JOBS" --dist loadfile $(ARGS); status=$$?; \
	  $(PY) -m coverage combine -q && $(PY) -m coverage report && exit $$status; }

lock:  ## uv.lock and requirements.lock anew from pyproject.toml (needs uv)
	@uv lock && uv export -q --frozen --no-annotate --no-header --no-emit-project $(EXTRAS:%=--extra %) -o requirements.lock

# What an execution leaves in a notebook's metadata, beside its outputs; tests/test_notebooks.py has our own rules.
EXECUTION := metadata.papermill metadata.widgets cell.metadata.papermill cell.metadata.execution

lint: setup  ## ruff, on the notebooks too, notebooks without outputs, and which subpackage imports which
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m nbstripout --verify --keep-id --extra-keys "$(EXECUTION)" notebooks/*.ipynb
	@$(BIN)lint-imports
