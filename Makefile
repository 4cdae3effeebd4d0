# Two commands do all the set-up: `make rehearse` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PRETTIER_VERSION := 3.10.1
PRETTIER_FILES := "**/*.{md,yml,yaml,json}" .prettierrc

.DEFAULT_GOAL := help
.PHONY: help rehearse test traces evidence endurance lint format bench peers growth lab notebooks api wheel secrets clean

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

# Made once, remade when pyproject.toml changes.
$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "hookbench needs Python 3.11 or newer, $(PYTHON) is " + sys.version.split()[0] + ": run make PYTHON=python3.12")'
	@rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[embedded,loadtest,notebooks,dev]'
	@touch $@

# Exit codes 0 (valid) and 1 (invalid) are answers about the designs; 3 (unknown), 2 and 70 are failures.
# It ends by naming the report; one that cannot be made is said, and takes no verdict back.
rehearse: $(STAMP) ## rehearse the migration on embedded brokers, both designs
	@status=0; $(BIN)/hookbench rehearse --design both --report $(ARGS) || status=$$?; \
	if [ $$status -eq 1 ]; then exit 0; fi; exit $$status

# Five at a time: most of them wait for brokers, and a machine with two cores gets twice as far. In
# the order of tests/conftest.py, so that no long file is left when all others are through.
# While one core lints, the other compiles the tests: all five would do so at once in a new clone.
# What fails is run once more and shown (RERUN), for real processes share a machine with others; not
# more than five tests, and a plain `pytest` runs each once.
test: $(STAMP) ## lint and the whole test suite
	@$(BIN)/pytest --collect-only --quiet >$(VENV)/collected.log 2>&1 & compiling=$$!; \
	$(MAKE) --no-print-directory lint; linted=$$?; wait $$compiling; exit $$linted
	$(BIN)/pytest -n 5 --dist loadfile --no-loadscope-reorder --reruns 1 --max-suite-reruns 5 \
	  --rerun-show-tracebacks $(ARGS)

# In .venv-traces: redis-py imports OpenTelemetry wherever it is, at the start of each process.
traces: $(STAMP) ## the tests of traces, which need the extra otel
	$(BIN)/python -m tests.traces $(ARGS)

# What is refuted or unknown fails. The files belong in a commit when the tree was clean.
evidence: $(STAMP) ## the long proofs; writes evidence/*.json (ARGS="-k witness" for one)
	$(BIN)/pytest tests/evidence -m evidence $(ARGS)

endurance: $(STAMP) ## ten million tasks through each queue; two hours, writes evidence/memory-*.json
	HOOKBENCH_MEMORY_TASKS=10000000 $(BIN)/pytest tests/evidence/test_memory.py -m evidence $(ARGS)

lint: $(STAMP) ## ruff, mypy, import-linter, prettier
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@if command -v npx >/dev/null 2>&1; then \
	  npx --yes prettier@$(PRETTIER_VERSION) --log-level warn --check $(PRETTIER_FILES); \
	else echo "SKIPPED prettier: Node.js is not installed (md, yaml and json were not checked)"; fi

format: $(STAMP) ## format the code and the documents
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	@if command -v npx >/dev/null 2>&1; then \
	  npx --yes prettier@$(PRETTIER_VERSION) --log-level warn --write $(PRETTIER_FILES); \
	else echo "SKIPPED prettier: Node.js is not installed"; fi

# Exit code 1 is a regression, 2 a comparison that could not be made. docs/bench.md.
bench: $(STAMP) ## compare the benchmarks with the merge base (ARGS="--base main --all")
	$(BIN)/python -m tests.bench.compare $(ARGS)

# Other task queues, each in an environment of its own under .venv-peers. docs/peers.md.
peers: $(STAMP) ## the reference worker beside other task queues (ARGS="--only arq --rounds 5")
	$(BIN)/python -m tests.bench.peers $(ARGS)

# Every axis up to 10^7 takes two hours; without --whole it is the first points. docs/growth.md.
growth: $(STAMP) ## rate, memory and latency along an axis (ARGS="--axis backlog --whole")
	$(BIN)/python -m tests.bench.growth $(ARGS)

lab: $(STAMP) ## JupyterLab on the notebooks
	$(BIN)/jupyter lab --notebook-dir notebooks

notebooks: $(STAMP) ## execute the committed notebooks again on notebooks/data
	$(BIN)/python -m tests.notebooks.refresh

# A site of pages out of the docstrings, in results/api. The package itself offers `load` alone, so
# pdoc is told of those below it.
MODULES := import hookbench, pkgutil; print(*(f"hookbench.{item.name}" for item in pkgutil.iter_modules(hookbench.__path__) if item.name != "__main__"))
api: $(STAMP) ## the API reference, from the docstrings
	$(BIN)/pdoc hookbench $$($(BIN)/python -c '$(MODULES)') --docformat google --output-directory results/api

wheel: $(STAMP) ## the wheel, in dist/
	$(BIN)/python -m hatchling build -t wheel

# Needs no environment.
secrets: ## passwords for docker compose into .env, once
	@$(PYTHON) -c 'from pathlib import Path; from hookbench.brokers.passwords import write_passwords; print("made .env" if write_passwords(Path(".env")) else "kept .env")'

clean: ## remove the environments (results stay)
	rm -rf $(VENV) .venv-peers .venv-traces .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
