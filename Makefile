# make demo   set up .venv, export the demo model for a Pixel 7, check the bundle
# make test   the same set-up with the test extra, then all tests that can run here
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# The packages are installed from the pinned versions; PIP_ARGS takes e.g. an index with CPU-only torch.
PIP    := $(BIN)/python -m pip install --disable-pip-version-check -q $(PIP_ARGS) -c constraints.txt

.PHONY: demo test test-fast lint typecheck docs bench clean
.DEFAULT_GOAL := demo

$(VENV)/.core: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing edgeopt into $(VENV) (2.5 GB, a few minutes the first time)"
	@$(PIP) -e .[demo]
	@touch $@

$(VENV)/.test: $(VENV)/.core
	@$(PIP) -e .[demo,test,dev]
	@touch $@

# A small MobileNetV2 trained on handwritten digits, in every precision, with its accuracy before and after.
demo: $(VENV)/.core
	$(BIN)/edgeopt export examples.digits:net --profile pixel7 \
	    --precision int8-static,int8-dynamic,fp16,fp32 \
	    --eval examples.digits:evaluate --max-accuracy-drop 1% -o bundles/digits_pixel7 --force
	$(BIN)/edgeopt verify bundles/digits_pixel7 --quiet
	$(BIN)/edgeopt bench bundles/digits_pixel7/model.pte bundles/digits_pixel7/model.tflite --max-time 6 --quiet

test: $(VENV)/.test
	$(BIN)/python -m pytest $(PYTEST_ARGS)

test-fast: $(VENV)/.test
	$(BIN)/python -m pytest -m "not slow" $(PYTEST_ARGS)

lint: $(VENV)/.test typecheck
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy takes a folder's name for the package's; a link gives the root its real name in any clone.
typecheck: $(VENV)/.test
	@mkdir -p .build/typecheck && ln -sfn "$(CURDIR)" .build/typecheck/edgeopt
	MYPYPATH=.build/typecheck $(BIN)/mypy -p edgeopt

# Writes docs/cli.md from the commands themselves; a test fails when it is out of date.
docs: $(VENV)/.test
	$(BIN)/python -m pytest -q tests/test_docs.py --write-docs

bench: $(VENV)/.test
	$(BIN)/python benchmarks/export_time.py mobilenet_v2

clean:
	rm -rf .build build dist *.egg-info
