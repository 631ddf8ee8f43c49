# Two commands for a newcomer: `make demo` and `make test`. Both make the virtual environment they need in .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# The demo: models, training tokens of each, and where to put them. Four to six minutes on two cores.
DEMO := demo
DEMO_SHAPES ?= 1,1^8,8
DEMO_TOKENS ?= 1M
# A text file, or several in quotes, to use in place of the embedded story world. Spaces part files, unless they are in the
# name of one that is there. The demo's folders are named by whole paths, since two texts may have the same name.
FRAILT_DATA ?=
space := $(subst ,, )
DEMO_NAME := $(or $(subst /,-,$(subst $(space),-,$(FRAILT_DATA))),story-world)
DEMO_TEXT := $(if $(wildcard $(subst $(space),\ ,$(FRAILT_DATA))),"$(FRAILT_DATA)",$(FRAILT_DATA))
DEMO_SOURCE := $(if $(FRAILT_DATA),--text $(DEMO_TEXT),--world 20000)
DEMO_OUT ?= $(DEMO)/$(DEMO_NAME)-$(DEMO_TOKENS)

.PHONY: demo test lint clean

demo: $(VENV)/.installed
	@echo "== 1 of 3: stories to tokens ($(DEMO_NAME))"
	$(BIN)/frailt prepare $(DEMO_SOURCE) --out "$(DEMO)/data-$(DEMO_NAME)"
	@echo "== 2 of 3: training $(DEMO_SHAPES) with $(DEMO_TOKENS) tokens each; models trained before are kept"
	$(BIN)/frailt compare --shapes "$(DEMO_SHAPES)" --tokens $(DEMO_TOKENS) --context 128 --batch 8 \
		--data "$(DEMO)/data-$(DEMO_NAME)" --out "$(DEMO_OUT)"
	@echo "== 3 of 3: a story by the 1^8 model, one block passed eight times"
	$(BIN)/frailt story "Once upon a time" --model "$(DEMO_OUT)/runs/1x8-s0" --temperature 0.7

test: $(VENV)/.installed-dev
	@echo "== running the tests on two processes"
	$(BIN)/pytest -q -n 2

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) $(DEMO)

$(VENV)/.installed: pyproject.toml constraints.txt
	@echo "== installing frailt into $(VENV) (once; torch is large)"
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "frailt needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "== installing what the tests need"
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
