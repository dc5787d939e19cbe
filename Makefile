# Two commands matter: `make demo` and `make test`. Each installs what it needs, once.

PYTHON := /usr/bin/python3
BIN := .venv/bin
STAMP := .venv/.ready
DEBS := python3-bpfcc python3-venv iproute2 ethtool bpftool tcpdump iputils-ping iputils-arping socat \
	dnsmasq-base bind9-dnsutils dnsperf sip-tester nftables iperf3 curl openssl systemd tshark jq \
	dpkg-dev lintian man-db chromium-headless-shell
# What `make test-kernel` takes beyond that.
KERNEL_DEBS := qemu-system-x86 busybox-static kmod ipvsadm
KERNEL := linux-image-amd64
# Two files of tests at a time; those that are marked "alone" wait for each other.
BESIDE := -n 2 --dist loadfile --no-loadscope-reorder
C_FILES := $(wildcard bpf/*.h bpf/*.c tests/*.c tests/bench/*.c) $(shell find bpf/kernel -name '*.h')

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-unit test-bpf test-e2e test-kernel test-bcc bench fuzz screenshot check lint type arch format fmt wheel deb source pages clean

help: ## Show what there is
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## Install what is missing; .venv/bin/xdplb is there afterwards

$(STAMP): pyproject.toml scripts/setup Makefile
	@scripts/setup $(PYTHON) "$(DEBS)"
	@touch $@

demo: setup ## The main job, in network namespaces: clients, balancer, two servers
	@$(BIN)/python scripts/demo.py

test: setup ## All tests (the bpf and e2e floors need root; ARGS="-k TEXT", or a path)
	@$(BIN)/python -m pytest $(BESIDE) $(ARGS)

test-unit: setup ## Tests that need no privilege
	@$(BIN)/python -m pytest tests/unit $(ARGS)

test-bpf: setup ## The program on single packets
	@$(BIN)/python -m pytest tests/bpf $(ARGS)

test-e2e: setup ## Real sockets and servers in network namespaces
	@$(BIN)/python -m pytest tests/e2e $(ARGS)

test-kernel: .venv/.kernel ## bpf and e2e on Debian's kernel, in a virtual machine (KERNEL=PACKAGE)
	@$(BIN)/python scripts/kernel.py $(KERNEL) $(BESIDE) $(or $(ARGS),tests/bpf tests/e2e)

.venv/.kernel: $(STAMP)
	@scripts/setup $(PYTHON) "$(DEBS) $(KERNEL_DEBS)"
	@$(BIN)/python -m pip install --quiet --group kernel
	@touch $@

test-bcc: ## Unit and bpf floors with Debian 13's BCC, LLVM, libbpf, Python (SUITE=sid: the latest)
	@scripts/suite $(or $(SUITE),trixie) "$(DEBS)" $(BESIDE) $(or $(ARGS),tests/unit tests/bpf)

bench: setup ## What it costs, beside the limit, nftables and nginx (ARGS=--quick: a minute)
	@PYTHONPATH=tests $(BIN)/python -m bench $(ARGS)

fuzz: setup ## Five million mutated packets with a new seed (PACKETS=N SEED=N)
	@seed=$${SEED:-$$(date +%s)}; echo "seed $$seed"; XDPLB_FUZZ_SEED=$$seed \
		XDPLB_FUZZ_PACKETS=$${PACKETS:-700000} $(BIN)/python -m pytest tests/bpf/test_fuzz.py

screenshot: setup ## The picture of the page in the README, made anew (a minute)
	@PYTHONPATH=tests $(BIN)/python scripts/screenshot.py

check: lint type arch format ## Everything that reads the code without running it

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

type: setup
	@$(BIN)/mypy

arch: setup
	@$(BIN)/lint-imports

format: setup
	@$(BIN)/clang-format --dry-run --Werror $(C_FILES)

fmt: setup ## Format Python and C
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .
	@$(BIN)/clang-format -i $(C_FILES)

wheel: setup ## Build a wheel and a source archive in dist/
	@SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(BIN)/python -m hatchling build

deb: setup ## Build a Debian package in dist/
	@$(BIN)/python scripts/deb/build.py dist

source: setup ## Print the program as the compiler gets it (VERSION=6: for IPv6)
	@$(BIN)/python -c 'from xdplb import source; print(source.text($(or $(VERSION),4)))'

pages: setup ## Bring the users' page up to date: its reference, and what its commands print
	@PYTHONPATH=tests $(BIN)/python tests/reference.py
	@PYTHONPATH=tests $(BIN)/python tests/recipes.py xdplb/share/README.md --write

clean: ## Remove what setup and the tools made
	@rm -rf .venv .bench .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache dist build
