# Every target names a script or a command of `sidecar`; what they do is in tools/, in src/sidecar/cli/ and in pyproject.toml.
# The first use of any target sets the machine up: system packages, then the virtual environment .venv.

SMP ?= 64
BIN := .venv/bin
SIDECAR := $(BIN)/sidecar

.DEFAULT_GOAL := help
.PHONY: help setup doctor build boot shell bench test campaign model check dump-layout dump-image dump-listing clean

help:           ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## */\1|/p' $(MAKEFILE_LIST) | while IFS='|' read -r name text; do printf '  make %-14s %s\n' "$$name" "$$text"; done

setup:          ## install what is missing: system packages, then .venv
	@tools/setup

doctor: setup   ## what this host has and lacks
	@$(SIDECAR) doctor

build: setup    ## generate the shim, the sidecar kernel and the bundle into build/
	@$(SIDECAR) build

boot: build     ## boot Linux beside the sidecar in QEMU with SMP CPUs (make boot SMP=8) and ask each one
	@$(SIDECAR) boot --smp $(SMP)

shell: build    ## a shell in that Linux; `sidecar shell` is Python with the pages of a machine without Linux
	@$(SIDECAR) boot --smp $(SMP) --shell

bench: build    ## measure on this host for up to 40 minutes; writes docs/performance.md and its pictures
	@$(SIDECAR) bench --write docs/performance.md --plot docs --json build/bench.json

test: setup     ## all tests but the long ones; SIDECAR_BOOT=0 boots nothing, =1 fails where something would be skipped
	@$(BIN)/pytest tests/unit tests/image -n auto --dist loadfile
	@$(BIN)/pytest tests/boot

campaign: setup ## the long tests
	@$(BIN)/pytest tests/campaign --timeout 3600
	@SIDECAR_KERNEL=backports $(BIN)/pytest tests/boot -k test_driver --timeout 600

model: setup    ## spin searches every state of the protocol's model, and finds the defects that are put back into it
	@$(SIDECAR) model

check: setup    ## ruff, mypy, pyright
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/pyright

dump-layout: setup   ## every shared page, field by field
	@$(SIDECAR) dump layout

dump-image: build    ## headers, segments, relocations, symbols, notes
	@$(SIDECAR) dump image

dump-listing: build  ## the machine code with its source lines
	@$(SIDECAR) dump listing

clean:          ## remove what was generated; .venv stays
	@rm -rf build .pytest_cache .hypothesis .mypy_cache .ruff_cache src/*.egg-info
