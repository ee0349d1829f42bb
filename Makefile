# Sluice. `make help` lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help
CARGO ?= $(shell command -v cargo || echo $(HOME)/.cargo/bin/cargo)
KERNEL := --features sluice-dataplane/kernel,sluice-bpf/load
FILE ?=
FILES ?=
JSON ?=
OUT ?=
CHECK ?=
SEEDS ?= 500
FIRST ?= 0
KEEP ?=
SLUICE_SEEDS ?=
SECONDS ?= 60
TARGET ?=
JOBS ?= 1

.PHONY: help
help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | awk -F'\t' '{printf "  %-16s %s\n", $$1, $$2}'

.PHONY: prepare
prepare: ## Check this machine, install what is missing (Debian, root)
	@deploy/prepare

.PHONY: build
build: ## Debug binaries, with the kernel's part, in target/debug
	@$(CARGO) build --workspace $(KERNEL)

.PHONY: release
release: ## Optimised binaries in target/release
	@echo "building optimised binaries (some minutes the first time) ..."
	@$(CARGO) build --release --workspace $(KERNEL)

# The same dependencies as those of `make build`, so only two crates are compiled again.
TARGET_DIR = $(or $(CARGO_TARGET_DIR),target)
NEXT_DIR = $(TARGET_DIR)/abi-next/$(or $(PROFILE),debug)
.PHONY: abi-next
abi-next: ## A dataplane of another ABI version, to upgrade to and back from: target/abi-next/debug/sluice-dataplane (PROFILE=release)
	@$(CARGO) build -q --workspace --bin sluice-dataplane-next $(KERNEL),sluice-dataplane/abi-next $(if $(PROFILE),--profile $(PROFILE))
	@mkdir -p $(NEXT_DIR)
	@ln -f $(TARGET_DIR)/$(or $(PROFILE),debug)/sluice-dataplane-next $(NEXT_DIR)/sluice-dataplane

.PHONY: demo
demo: prepare release ## The walkthrough of default-deny policies on live traffic (KEEP=1 leaves it up)
	@target/release/sluice-lab demo $(if $(KEEP),--keep)

.PHONY: cluster-demo
cluster-demo: prepare release ## Two nodes behind an API server: a rollout, outages, crashes, an upgrade there and back under traffic (KEEP=1 leaves it up)
	@$(MAKE) -s abi-next PROFILE=release
	@target/release/sluice-lab cluster-demo --next $(TARGET_DIR)/abi-next/release/sluice-dataplane $(if $(KEEP),--keep)

.PHONY: test
test: prepare ## Everything: checks, unit, vectors, live; ends with what ran and what was skipped
	@tests/run

.PHONY: vectors
vectors: ## Conformance vectors on oracle and table (FILES="a.json.gz b.json" for others)
	@$(CARGO) build -q -p sluice-tests --bin sluice-vectors
	@target/debug/sluice-vectors $(FILES)

.PHONY: mutations
mutations: ## Planted compiler bugs, each with the counterexample that the proof found
	@$(CARGO) test -q -p sluice-policy --lib planted -- --nocapture --test-threads=1

.PHONY: lint-articles
lint-articles: ## What `sluicectl lint` says of the YAML in articles (SLUICE_SEEDS=DIR of plain texts)
	@SLUICE_SEEDS='$(SLUICE_SEEDS)' CARGO='$(CARGO)' tests/lint-articles

.PHONY: cases
cases: ## The cases: every promise of the semantics on oracle, table, worker and loader (FILE=part of a path, JSON=1)
	@$(CARGO) build -q -p sluice-tests --bin sluice-cases
	@target/debug/sluice-cases $(if $(JSON),-o json) $(FILE)

.PHONY: e2e
e2e: prepare build ## The 48 traffic rows of Kubernetes' NetworkPolicy suite on live traffic, through ClusterIPs (ROW=number or words, JSON=1)
	@$(TARGET_DIR)/debug/sluice-e2e $(if $(JSON),-o json) '$(ROW)'

.PHONY: parity
parity: prepare ## Both parsers, the BPF programs' and the worker's, on FRAMES=10000000 generated frames
	@SLUICE_PARITY_FRAMES=$(or $(FRAMES),10000000) $(CARGO) test --release -q -p sluice-bpf --features load --test parity both_parsers -- --nocapture

.PHONY: fuzz
fuzz: ## Fuzz every input boundary for SECONDS each (TARGET=frame for one, JOBS=2 for two at a time)
	@JOBS=$(JOBS) tests/fuzz/run $(SECONDS) $(TARGET)

.PHONY: simulate
simulate: ## A node in memory under random traffic and faults (SEEDS=500, FIRST=n for other seeds)
	@$(CARGO) build -q -p sluice-tests --bin sluice-simulate
	@target/debug/sluice-simulate --first $(FIRST) --seeds $(SEEDS)

.PHONY: watches
watches: ## Control processes before API servers that break in every way (SEEDS=1000, FIRST=n for other seeds)
	@$(CARGO) build -q -p sluice-tests --bin sluice-watches
	@RUST_LOG=$(or $(RUST_LOG),off) target/debug/sluice-watches --first $(FIRST) --seeds $(if $(filter-out file,$(origin SEEDS)),$(SEEDS),1000)

.PHONY: manifests
manifests: ## Render deploy/manifests from the chart's default values (a test compares them)
	@$(CARGO) build -q --workspace --bin sluice-control $(KERNEL)
	@mkdir -p deploy/chart/sluice/crds
	@$(TARGET_DIR)/debug/sluice-control --definitions >deploy/chart/sluice/crds/definitions.yaml
	@deploy/render

.PHONY: chart-test
chart-test: ## The chart, its manifests and the Containerfile: schemas, rights, flags, values
	@deploy/helm --find >/dev/null 2>&1 || deploy/helm --install
	@$(CARGO) build -q --workspace $(KERNEL)
	@$(CARGO) test -q -p sluice-tests --test deploy --test deploy_image --test deploy_rights

.PHONY: check
check: ## All checks that run nothing: format, lints, both feature sets
	@$(CARGO) fmt --all --check
	@$(CARGO) fmt --manifest-path tests/fuzz/Cargo.toml --check
	@$(CARGO) clippy -q --workspace --all-targets $(KERNEL) -- -D warnings
	@$(CARGO) check -q --workspace --all-targets

.PHONY: bench-forward
bench-forward: prepare release ## Forwarding: Sluice, nftables and no policy in the same rounds, 26 minutes, or up to 80 (OUT=FILE writes JSON, CHECK=1 fails on a missed must)
	@target/release/sluice-perf forward $(if $(OUT),--out $(OUT)) $(if $(CHECK),--check)

.PHONY: profile-punts
profile-punts: prepare release ## Where the nanoseconds of a punt go, stage by stage (needs perf of linux-perf)
	@perf/profile-punts target/release

.PHONY: bench-proof
bench-proof: ## The proof of a table, from scratch and after one-pod changes (OUT=FILE writes JSON, CHECK=1 fails on a missed must)
	@echo "building the optimised bench (some minutes the first time) ..."
	@$(CARGO) build -q --release -p sluice-perf
	@target/release/sluice-perf proof $(if $(OUT),--out $(OUT)) $(if $(CHECK),--check)

.PHONY: bench-compile
bench-compile: ## Build, update, proof, publication, adoption: each stage's time, and memory (OUT=FILE writes JSON, CHECK=1 fails on a missed must)
	@echo "building the optimised bench (some minutes the first time) ..."
	@$(CARGO) build -q --release -p sluice-perf
	@target/release/sluice-perf compile $(if $(OUT),--out $(OUT)) $(if $(CHECK),--check)

.PHONY: bench-control
bench-control: prepare release ## The control process before 150k pods: start, memory, idle, a storm of changes, ADD (OUT=FILE writes JSON, CHECK=1 fails on a missed must)
	@target/release/sluice-perf control $(if $(OUT),--out $(OUT)) $(if $(CHECK),--check)

.PHONY: bench-swap
bench-swap: ## What lookups feel of table swaps, and that none mixes two tables (likewise; two cores)
	@echo "building the optimised bench (some minutes the first time) ..."
	@$(CARGO) build -q --release -p sluice-perf
	@target/release/sluice-perf swap $(if $(OUT),--out $(OUT)) $(if $(CHECK),--check)

.PHONY: bench-report
bench-report: ## One HTML page of what benches measured (FILES="a.json b.json", else perf/records; OUT=page.html)
	@$(CARGO) build -q --release -p sluice-perf
	@target/release/sluice-perf report $(or $(FILES),$(wildcard perf/records/*.json)) $(if $(OUT),--out $(OUT))

# Peers of the lookup that this machine can build.
LOOKUP_PEERS = $(shell command -v clang-19 >/dev/null && echo --features sluice-perf/bpf) \
	$(shell pkg-config --exists libdpdk 2>/dev/null && echo --features sluice-perf/dpdk)

.PHONY: bench-lookup
bench-lookup: ## The policy lookup beside its peers, under ten minutes (OUT=FILE writes JSON, CHECK=1 fails on a missed must)
	@[ "$$(id -u)" != 0 ] || deploy/prepare --peers
	@echo "building the optimised bench (some minutes the first time) ..."
	@$(CARGO) build -q --release -p sluice-perf $(LOOKUP_PEERS)
	@target/release/sluice-perf lookup $(if $(OUT),--out $(OUT)) $(if $(CHECK),--check)

.PHONY: deb
deb: release ## A Debian package of a node's programs and units, in target/deb
	@deploy/deb/build

.PHONY: clean
clean: ## Remove build products
	@$(CARGO) clean
