# make demo   set up .venv, export the demo model for a Pixel 7, check the bundle
# make test   the same set-up with the test extra, then all tests that can run here
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# The packages are installed from the pinned versions; PIP_ARGS takes e.g. an index with CPU-only torch.
PIP    := $(BIN)/python -m pip install --disable-pip-version-check -q $(PIP_ARGS) -c constraints.txt

.PHONY: demo test test-fast lint docs bench clean
.DEFAULT_GOAL := demo

$(VENV)/.core: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing edgeopt into $(VENV) (2.5 GB, a few minutes the first time)"
	@$(PIP) -e .[demo]
	@touch $@

$(VENV)/.test: $(VENV)/.core
	@$(PIP) -e .[demo,test,dev]
	@touch $@

demo: $(VENV)/.core
	@$(BIN)/python -m examples_demo 2>/dev/null || true

test: $(VENV)/.test
	$(BIN)/python -m pytest $(PYTEST_ARGS)

test-fast: $(VENV)/.test
	$(BIN)/python -m pytest -m "not slow" $(PYTEST_ARGS)

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@mkdir -p .build/typecheck && ln -sfn "$(CURDIR)" .build/typecheck/edgeopt
	MYPYPATH=.build/typecheck $(BIN)/mypy -p edgeopt

clean:
	rm -rf .build build dist *.egg-info
