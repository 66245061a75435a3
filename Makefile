# Two commands matter: `make demo` and `make test`. Each sets up .venv as far as it needs it
# (tools/environment.py; a second run finds everything in place) and goes to work.

PYTHON ?= python3
ARGS ?=

# A sourced ROS 2 whose rclpy does not import in our Python is of no use to .venv: hide it.
ifneq ($(ROS_DISTRO),)
HIDE_ROS := $(shell $(PYTHON) -c 'import rclpy' 2>/dev/null || \
	echo env -u PYTHONPATH -u LD_LIBRARY_PATH -u AMENT_PREFIX_PATH -u CMAKE_PREFIX_PATH)
endif
RUN := $(HIDE_ROS) .venv/bin/

.PHONY: help demo test soak fuzz lint format pathtrace clean clean-venv
.DEFAULT_GOAL := help

help:
	@echo 'make demo       play the recorded bag through the node; report in out/demo/report.html'
	@echo 'make test       run the tests            (ARGS="test/core -k pnp" runs some of them)'
	@echo 'make soak       the node at 30 Hz for an hour: memory, latency, diagnostics'
	@echo 'make fuzz       100,000 random messages through the intake'
	@echo 'make lint       ruff and mypy'
	@echo 'make format     let ruff sort imports and mend what it can'
	@echo 'make pathtrace  add the path tracer that renders the demo bag'
	@echo 'make clean      remove what runs and builds left; make clean-venv removes .venv, too'

demo:
	@$(PYTHON) tools/environment.py demo
	@$(RUN)pose demo $(ARGS)

# The tests talk to nobody but themselves: this host only, and a ROS domain of their own
# (test/conftest.py chooses one unless ROS_DOMAIN_ID says which).
test: export ROS_AUTOMATIC_DISCOVERY_RANGE := LOCALHOST
test:
	@$(PYTHON) tools/environment.py test
	$(RUN)python -m pytest $(ARGS)

soak:
	@$(PYTHON) tools/environment.py test
	$(RUN)python test/soak.py $(ARGS)

fuzz:
	@$(PYTHON) tools/environment.py test
	@$(RUN)python test/fuzz_intake.py $(ARGS) 2> /dev/null

lint:
	@$(PYTHON) tools/environment.py test
	$(RUN)ruff check
	$(RUN)mypy

format:
	@$(PYTHON) tools/environment.py test
	$(RUN)ruff check --fix

pathtrace:
	@$(PYTHON) tools/environment.py pathtrace

clean:
	rm -rf out build install log .pytest_cache .mypy_cache .ruff_cache .hypothesis

clean-venv: clean
	rm -rf .venv
