# Everything a clone can do. Each target makes what it needs: .venv by scripts/venv, Debian packages by
# scripts/apt-packages. ARGS is handed on: make test ARGS="-k sizes", make serve ARGS="--workers 2".

BIN := .venv/bin
ARGS :=
# Files of tests side by side, in the order of tests/conftest.py; `make test PARALLEL=` runs them one after the other.
PARALLEL := --numprocesses=auto --maxprocesses=4 --dist=loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help serve test bench bench-quick bench-profile sanitize lint format docs clean

help: ## what there is
	@sed -nE 's/^([a-z-]+):.* ## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

serve: ## build, and collect on 127.0.0.1:8080
	@scripts/venv
	@$(BIN)/fastpixel serve $(ARGS) || [ $$? = 130 ] # Ctrl-C is no error

test: ## the only gate: lint, types, stubs, documentation and all tests in one run
	@scripts/apt-packages test
	@scripts/venv test
	@$(BIN)/python -m pytest $(PARALLEL) $(ARGS)

bench: ## the core's stages, then whole servers side by side and the verdict on every target (writes bench/RESULTS.md)
	@scripts/apt-packages bench
	@scripts/venv bench
	@$(BIN)/python -m pytest bench/test_stages.py --benchmark-only
	@$(BIN)/python bench/run.py $(ARGS)

bench-quick: ## the servers that matter daily, in a minute; prints only
	@scripts/apt-packages bench
	@scripts/venv bench
	@$(BIN)/python bench/run.py --quick $(ARGS)

bench-profile: ## where the time of one event goes, by stage (writes bench/PROFILE.md)
	@scripts/apt-packages profile
	@scripts/venv bench
	@$(BIN)/python bench/breakdown.py $(ARGS)

sanitize: ## tests/core on a core built with AddressSanitizer and UndefinedBehaviorSanitizer
	@scripts/apt-packages build
	@scripts/venv test
	@scripts/sanitize $(ARGS)

lint: ## ruff, mypy and the stub test only
	@scripts/venv test
	@$(BIN)/python -m pytest -q tests/test_lint.py tests/test_types.py $(ARGS)

format: ## put the Python files into ruff's format
	@scripts/venv test
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

docs: ## write the generated documentation anew
	@scripts/venv
	@$(BIN)/python -m fastpixel.config > docs/configuration.md
	@$(BIN)/python -m fastpixel.tables docs/dialects

clean: ## remove what was built; events in fastpixel-data stay
	@rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis src/fastpixel.egg-info
	@find src -name '*.so' -delete
	@rm -f src/fastpixel/_core.c src/fastpixel/_core.html
