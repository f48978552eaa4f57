# Two commands do all set-up: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
HOME_DIR ?= .demo
RUNS_DIR ?= .runs
DATA_DIR ?=
TEST := $(BIN)/pytest -n 2 --dist worksteal

.PHONY: help demo test test-all lint released docs site results clean

help: ## what each target does
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[test,sweep]'
	@touch $@

demo: $(VENV)/.ready ## environment, then plain, kd and reviewkd on the embedded digits, then the board
	@for method in plain kd reviewkd; do \
		$(BIN)/kdbench evaluate --method $$method --task digits/few-shot --seeds 0-2 --overhead quick --out $(HOME_DIR) >/dev/null || exit; \
	done
	@$(BIN)/kdbench results --out $(HOME_DIR)
	@$(BIN)/kdbench site build --records $(HOME_DIR)/records --out $(HOME_DIR)
	@echo "records $(HOME_DIR)/records   index $(HOME_DIR)/index.duckdb   teachers $(HOME_DIR)/teachers"

# Tests start hundreds of processes; where bytecode may not be written each would compile the package anew.
test test-all: export PYTHONDONTWRITEBYTECODE :=

test: $(VENV)/.ready ## lint, types and all tests but the slow ones (6 to 10 minutes on 2 idle cores)
	$(MAKE) --no-print-directory lint
	OMP_NUM_THREADS=1 $(TEST) -m "not slow"

test-all: $(VENV)/.ready ## every test (about 50 minutes on 2 idle cores)
	$(MAKE) --no-print-directory lint
	OMP_NUM_THREADS=1 $(TEST) -m "not alone" --timeout 1800
	OMP_NUM_THREADS=1 $(BIN)/pytest -m alone --timeout 1800

lint: $(VENV)/.ready ## ruff and mypy on the package as it ships
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tests/support/as_built.py

released: $(VENV)/.ready ## kdbench/identity/released.json: this code gives the results of its versions
	$(BIN)/python -m kdbench.identity.release

docs: $(VENV)/.ready ## docs/cli.md, from the command line itself
	$(BIN)/python -m kdbench.cli.reference > docs/cli.md

site: $(VENV)/.ready ## the board from the published records
	$(BIN)/kdbench site build --records leaderboard/results

results: $(VENV)/.ready ## the runs behind leaderboard/results, on a machine with nothing else to do (hours; goes on where it stopped; more with DATA_DIR=)
	OMP_NUM_THREADS=1 $(BIN)/kdbench sweep --methods 'all,plain@*' --tasks digits/few-shot,digits/angle,digits/profiles \
		--seeds 0-9 --launcher joblib --jobs 2 --overhead full --out $(RUNS_DIR)
	OMP_NUM_THREADS=1 $(BIN)/kdbench sweep --methods all --tasks digits/hash,digits/masked,digits/probe \
		--launcher joblib --jobs 2 --overhead full --out $(RUNS_DIR)
ifneq ($(DATA_DIR),)
	OMP_NUM_THREADS=1 $(BIN)/kdbench sweep --methods all --tasks mnist/few-shot,fsdd/few-bands,utkface/few-shot,cifar10-jpeg/few-shot \
		--launcher joblib --jobs 2 --overhead full --data $(DATA_DIR) --out $(RUNS_DIR)
endif
	$(BIN)/kdbench submit $(RUNS_DIR)/records
	$(BIN)/kdbench records accept leaderboard/results --by maintainers

clean: ## remove the environment and what the demo made
	rm -rf $(VENV) $(HOME_DIR) build *.egg-info
