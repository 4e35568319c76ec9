# make run: see it work. make test: prove it. Both do everything else first; see README.md.

PYTHON ?= python3
MOUNTPOINT ?= ./mnt
SOURCE ?= auto
OPTIONS ?=
PREFIX ?= /usr/local
DESTDIR ?=

VENV := .venv
BUILT := $(VENV)/built
LIB := $(PREFIX)/lib/zeventfs
MAN := $(PREFIX)/share/man/man8
PIP_FLAGS := -qq --disable-pip-version-check --no-input

.PHONY: build run test lint bench fuzz install clean
.DEFAULT_GOAL := build
# What a failed recipe leaves must not pass for done.
.DELETE_ON_ERROR:

build: $(BUILT)

$(BUILT): pyproject.toml setup.py packaging/system-packages $(wildcard zeventfs/fuse/*.c zeventfs/sources/kernel/*.c)
	@packaging/system-packages "$(PYTHON)"
	@echo "building $(VENV), a minute or two the first time"
	@test -x $(VENV)/bin/python || "$(PYTHON)" -m venv --clear $(VENV)
	@$(VENV)/bin/python -m pip install $(PIP_FLAGS) --editable '.[dev]'
	@touch $@

run: build
	@exec $(VENV)/bin/python -m zeventfs.follow $(if $(OPTIONS),-o "$(OPTIONS)") "$(SOURCE)" "$(MOUNTPOINT)"

test: build
	@$(VENV)/bin/python -m pytest $(TESTS)

lint: build
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy
	@PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(VENV)/bin/pyright

# make bench JSON=FILE writes the figures there too.
bench: build
	@$(VENV)/bin/python -m benchmarks $(if $(JSON),--json "$(JSON)")

# make fuzz COUNT=N SEED=N JOBS=N: as many mutants, the same as before, in so many processes.
fuzz: build
	@PYTHONPATH=. nice -n 19 $(VENV)/bin/python tests/unit/fuzz.py $(if $(COUNT),--count $(COUNT)) \
	    $(if $(SEED),--seed $(SEED)) $(if $(BATCH),--batch $(BATCH)) $(if $(JOBS),--jobs $(JOBS))

# Nothing that is installed knows of DESTDIR or of this checkout.
install:
	@packaging/system-packages "$(PYTHON)"
	@packaging/install "$(PYTHON)" "$(DESTDIR)" "$(LIB)"
	@install -d "$(DESTDIR)$(PREFIX)/bin" "$(DESTDIR)/sbin" "$(DESTDIR)$(MAN)"
	@printf '#!/bin/sh\nexec "%s/bin/python" -I -m zeventfs "$$@"\n' "$(LIB)" >"$(DESTDIR)$(PREFIX)/bin/zeventfs"
	@printf '#!/bin/sh\nexec "%s/bin/python" -I -m zeventfs.simulator.tapdisk "$$@"\n' "$(LIB)" >"$(DESTDIR)$(PREFIX)/bin/zeventfs-tapdisk"
	@chmod 755 "$(DESTDIR)$(PREFIX)/bin/zeventfs" "$(DESTDIR)$(PREFIX)/bin/zeventfs-tapdisk"
	@sed 's|^python=.*|python="$(LIB)/bin/python"|; s|^# The mount(8) helper.*|# The mount(8) helper.|; s|: run make build there||' \
	    mount.zeventfs >"$(DESTDIR)/sbin/mount.zeventfs"
	@chmod 755 "$(DESTDIR)/sbin/mount.zeventfs"
	@install -m 644 docs/man/zeventfs.8 docs/man/mount.zeventfs.8 "$(DESTDIR)$(MAN)"
	@echo "installed: $(PREFIX)/bin/zeventfs and zeventfs-tapdisk, /sbin/mount.zeventfs$(if $(DESTDIR), under $(DESTDIR))"

clean:
	@rm -rf $(VENV) build dist *.egg-info .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache
	@find zeventfs tests benchmarks -name __pycache__ -prune -exec rm -rf {} +
	@rm -f zeventfs/fuse/*.so zeventfs/sources/kernel/*.so
