# make demo   train, pack, export and benchmark the digits network, from nothing
# make test   lint, types, tests
# make test-all  also the slow tests: a whole installation beside packages with our rooms' names
# make test-arm  the engine under aarch64 emulation (needs make system and apt's network)
# make test-newest  the engine's tests on the newest Python that Numba supports (NEWEST=3.13: another)
# make test-zoo  other people's networks: made by larq and Brevitas (from the network), read, compared, timed
# make docker-test  build and run the images with buildah (as root); IMAGES=train for the large one
# make reliability  kills, fuzzing, concurrency at full length; make fuzz  ten times the mutations
# make mutations  do the tests notice changed constants and comparisons?
# make test-sweeps  the Ray Tune example in a Ray of its own
# make docs   the pages and the reference as a site, in site/
# make records  lists the programs that make the records and pictures
# make audit  known vulnerabilities; make licences  of all dependencies; make sbom  CycloneDX, in dist/
# make setup  only install all of it; make system (as root; make test does it then) adds Debian's packages; make lock renews the locks

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.frostbit-installed
# What the demo needs is part of what the tests need.
DEMO := $(if $(wildcard $(STAMP)),$(STAMP),$(VENV)/.frostbit-demo-installed)
INSTALLED := $(if $(filter-out demo,$(MAKECMDGOALS)),$(STAMP),$(DEMO))
LCE_STAMP := $(VENV)/.frostbit-lce-installed
TREE := .cache/tree
LOCK_FLAGS := --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-emit-find-links --no-header --no-annotate --constraint requirements/constraints.txt -q

.PHONY: demo test test-all test-arm test-newest test-zoo docker-test reliability fuzz mutations audit licences sbom docs test-sweeps records setup lint packages system lock clean

demo: $(INSTALLED) $(LCE_STAMP)
	$(BIN)/pipeline run --recipe digits --out runs/digits --force

# A worker a core, each with one thread: torch's threads would only wait for each other.
TESTS = OMP_NUM_THREADS=1 FROSTBIT_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 4 \
	--dist loadfile

test: packages setup lint
	$(TESTS)

test-all: packages setup lint
	$(TESTS) -m "slow or not slow"

ARM := .cache/arm
PYTHON_ARM := $(ARM)/sysroot/usr/bin/python3.11
EMULATED = FROSTBIT_CACHE=$(CURDIR)/$(ARM)/jit qemu-aarch64-static -cpu cortex-a72 -L $(ARM)/sysroot \
	-E PYTHONPATH=$(CURDIR)/$(ARM)/packages
test-arm: setup $(TREE)
	tests/arm/root.sh $(ARM) $(BIN)/pip
	$(BIN)/python -m tests.arm.cases $(ARM)/cases
	$(EMULATED):$(CURDIR)/$(TREE) $(PYTHON_ARM) tests/arm/check.py $(ARM)/cases
	$(EMULATED):$(CURDIR)/$(TREE) $(PYTHON_ARM) tests/arm/products.py smull
	$(subst cortex-a72,cortex-a76,$(EMULATED)):$(CURDIR)/$(TREE) -E NUMBA_CPU_NAME=cortex-a76 \
		$(PYTHON_ARM) tests/arm/products.py sdot
	$(EMULATED):$(ARM)/cases/bundle/lib $(PYTHON_ARM) $(ARM)/cases/bundle/check.py \
		--folder $(ARM)/cases/bundle --no-timing

# The engine's tests on the newest Python that Numba supports; uv finds it here or fetches it.
NEWEST ?= 3.14
NEW := .cache/newest
test-newest: setup
	$(BIN)/uv venv -q --clear --seed --python $(NEWEST) $(NEW)
	$(NEW)/bin/python -m pip install -q --require-hashes -r requirements/base.txt
	$(NEW)/bin/python -m pip install -q pytest hypothesis setuptools
	$(NEW)/bin/python -m pip install -q --no-deps --no-build-isolation -e .
	OMP_NUM_THREADS=1 $(NEW)/bin/python -m pytest -p no:cacheprovider tests/kernels

ZOO ?=
test-zoo: setup
	$(BIN)/python -m tests.zoo --folder .cache/zoo $(ZOO)

IMAGES ?= slim warm
docker-test: setup
	tests/docker/check.sh .cache/docker $(BIN)/python $(IMAGES)

reliability: setup
	$(BIN)/python -W ignore -m tests.reliability

fuzz: setup
	$(BIN)/python -W ignore -m tests.reliability --dry --models 200000 --others 20000 --runs 5000 \
		--tflite 30000 --onnx 30000 --only tflite --only onnx \
		--only models --only networks --only recipes --only pictures --only runs

mutations: setup
	$(BIN)/python -W ignore -m tests.reliability.mutations

records: setup
	@$(BIN)/python -m tests.figures

test-sweeps: setup
	rm -rf .cache/sweep
	$(BIN)/python docs/sweeps/ray_tune.py --epochs 1 --trials 2 --out .cache/sweep

audit: setup
	$(BIN)/python -m tests.supply.audit

docs: setup
	$(BIN)/python -m sphinx -q -W --keep-going -d .cache/site docs site

licences: setup
	$(BIN)/python -m tests.supply.licences

sbom: setup
	$(BIN)/python -m tests.supply.sbom

lint: setup $(TREE)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	MYPYPATH=$(TREE) $(BIN)/mypy -p frostbit

# The checkout as it is installed, one package of links: for mypy, and for what runs uninstalled.
$(TREE):
	mkdir -p $@/frostbit
	ln -sfn $(CURDIR)/kernels $(CURDIR)/export $(CURDIR)/pipeline $(CURDIR)/frostbit/* $@/frostbit/

setup: $(STAMP) $(LCE_STAMP)

define ENVIRONMENT
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
endef

$(VENV)/.frostbit-demo-installed: requirements/train.txt requirements/demo.py pyproject.toml
	$(ENVIRONMENT)
	$(BIN)/python requirements/demo.py $(BIN)/python
	$(BIN)/python -m pip install --no-deps --no-build-isolation -e .
	touch $@

$(STAMP): requirements/dev.txt pyproject.toml
	$(ENVIRONMENT)
	$(BIN)/python -m pip install --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --no-deps --no-build-isolation -e .
	touch $@

# Where LCE has no wheel the pipeline works without it, and says so.
$(LCE_STAMP): $(INSTALLED) export/lce/requirements.txt
	$(BIN)/pipeline doctor --install-lce
	touch $@

# As root the tests get Debian's packages by themselves; else what lacks one is skipped by name.
PACKAGES = $(shell grep -v '^\#' packages.txt)
packages:
	@if dpkg-query -W $(PACKAGES) >/dev/null 2>&1; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then $(MAKE) system; \
	else echo "some packages of packages.txt are not here: tests that need them are skipped"; fi

system:
	apt-get update
	grep -v '^#' packages.txt | xargs apt-get install -y --no-install-recommends

lock:
	$(BIN)/uv pip compile pyproject.toml $(LOCK_FLAGS) -o requirements/base.txt
	$(BIN)/uv pip compile pyproject.toml --extra export $(LOCK_FLAGS) -o requirements/export.txt
	$(BIN)/uv pip compile pyproject.toml --extra export --extra train $(LOCK_FLAGS) -o requirements/train.txt
	$(BIN)/uv pip compile pyproject.toml --extra export --extra train --extra dev $(LOCK_FLAGS) -o requirements/dev.txt

clean:
	rm -rf $(VENV) build dist runs site .pytest_cache .mypy_cache .ruff_cache .hypothesis .cache *.egg-info
