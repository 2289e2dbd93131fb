# Every habit of the repository is a target here, and `make ci` is all that CI runs.

CARGO ?= cargo
# An image tool: buildah, podman and docker take the same arguments for what is asked of them.
IMAGE_TOOL ?= $(firstword $(notdir $(wildcard /usr/bin/buildah /usr/bin/podman /usr/bin/docker /usr/local/bin/docker)))
# What the images are called, and their tag.
IMAGE_PREFIX ?= localhost/towline
IMAGE_TAG ?= dev
# Inputs that `make fuzz` gives to each target.
FUZZ_RUNS ?= 20000

PROGRAMS := proxy-server proxy-agent agent-tcp
# The bench is a workspace of its own, which shares the target directory.
BENCH := --manifest-path bench/Cargo.toml --target-dir target --locked
# What measured programs say they were built from.
COMMIT = $(shell git rev-parse --short HEAD 2>/dev/null || echo unknown)$(shell git diff --quiet HEAD 2>/dev/null || echo -dirty)
# How what ships is built. Paths in RUSTFLAGS are absolute: rustc runs in the folder of each crate.
RELEASE_ENV = TOWLINE_COMMIT="$(COMMIT)" RUSTFLAGS="-Cprofile-use=$(CURDIR)/pgo/programs.profdata"
RELEASE_BUILD = $(RELEASE_ENV) $(CARGO) build --release --locked
# The programs as they ship, and the bench beside them.
BENCH_BUILD = $(RELEASE_BUILD) $(PROGRAMS:%=-p %) && $(RELEASE_ENV) $(CARGO) build --release $(BENCH)

# The steps share one target directory and two of them open thousands of sockets.
.NOTPARALLEL:
.DEFAULT_GOAL := help
.PHONY: help demo test lint fmt fmt-check doc deny fuzz interop bench bench-peers bench-micro bench-smoke bench-wan release pgo image image-test ci

help: ## show this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

demo: ## build, fetch a page through server and agent, stop everything
	@demo/run

test: ## run every test that needs nothing but Rust and a C compiler
	$(CARGO) test --workspace --locked

lint: ## clippy on everything, and a syntax check of the scripts; warnings are errors
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	@.ci/lint-scripts

fmt: ## format the sources
	$(CARGO) fmt --all
	$(CARGO) fmt --manifest-path bench/Cargo.toml
	$(CARGO) fmt --manifest-path fuzz/Cargo.toml

fmt-check: ## fail when `make fmt` would change something
	$(CARGO) fmt --all --check
	$(CARGO) fmt --manifest-path bench/Cargo.toml --check
	$(CARGO) fmt --manifest-path fuzz/Cargo.toml --check

doc: ## build the documentation, private items included; dead links are errors
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --document-private-items --locked

deny: ## check dependencies: bans, licenses, sources, advisories (needs cargo-deny)
	@.ci/deny

fuzz: ## build every fuzz target and give each FUZZ_RUNS inputs (needs nightly)
	@.ci/fuzz $(FUZZ_RUNS)

interop: ## the Go reference and kube-apiserver's dialer against ours (needs Go)
	@.ci/interop

release: ## the programs as the images hold them: compiled by the profile in pgo/
	$(RELEASE_BUILD) $(PROGRAMS:%=-p %)

pgo: ## measure the programs under load and write that profile anew (needs llvm-profdata)
	@pgo/train

bench: ## compare with a direct connection, and with peers that are there (minutes)
	$(BENCH_BUILD)
	target/release/towline-bench $(BENCH_ARGS)

bench-peers: ## install the peers and compare with all of them; writes bench/results (hours)
	bench/peers/install "$(CURDIR)/target/peers"
	$(BENCH_BUILD)
	target/release/towline-bench --peers-dir target/peers --agents 2000 --results bench/results $(BENCH_ARGS)

bench-micro: ## measure heads, control messages, session choice and splicing alone
	$(CARGO) bench $(BENCH) --bench pure --bench splice

bench-smoke: ## lint and test the bench and run it with small figures: not a measurement
	$(CARGO) clippy $(BENCH) --all-targets -- -D warnings
	$(CARGO) build --locked -p proxy-server -p proxy-agent
	$(CARGO) test $(BENCH)
	target/debug/towline-bench --smoke $(BENCH_ARGS)

bench-wan: ## compare over links with delay and loss between two namespaces; writes bench/results (root; 50 min)
	@[ "$$(id -u)" = 0 ] && [ -c /dev/net/tun ] && command -v ip >/dev/null || \
	    { echo "bench-wan: cannot run here: needs root, /dev/net/tun and ip (iproute2)" >&2; exit 1; }
	$(BENCH_BUILD)
	target/release/towline-bench --check-link
	bench/measure-wan target/release/towline-bench target/wan bench/results --peers-dir target/peers $(BENCH_ARGS)

image: ## build the three images for this machine (needs buildah, podman or docker)
	@.ci/image "$(IMAGE_TOOL)" "$(IMAGE_PREFIX)" "$(IMAGE_TAG)"

image-test: ## build the images on a locally made base and run them (needs buildah)
	@.ci/image-test

ci: fmt-check deny lint doc test demo bench-smoke interop image-test fuzz ## everything that CI checks, cheap first
	@echo "ci: all steps done"
