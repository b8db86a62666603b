# Every target that a person or CI calls has a "##" line, which make help prints.
# Nothing here needs more than Go, git and, for the cluster, root on Debian;
# setup installs the rest.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VERSION ?= $(shell git describe --tags --match 'v[0-9]*' --dirty 2>/dev/null || echo v0.0.0-g$$(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown))
IMAGE ?= ghcr.io/autopolicy/collector:$(VERSION)
FUZZTIME ?= 20s
RUNS ?= 40
ROUNDS ?= 10
CORPUS ?=
REUSE ?=
NODES ?= 2
KERNELS ?=
FAMILIES ?=
KEEP ?=

# The same settings everywhere, so that tests, builds and releases share what
# is already compiled.
export CGO_ENABLED := 0
export GOFLAGS := $(GOFLAGS) -trimpath -buildvcs=false
export GOWORK := off
# Tests find the plugin and stock kubectl where build puts them.
export PATH := $(CURDIR)/bin:$(PATH)

LINK := -s -w -X main.version=$(VERSION)
SOURCES := $(wildcard bpf cmd manifests pkg tests)
CLUSTER := go -C tests/cluster run ./cmd/cluster
GOTEST := go run ./tests/cmd/gotest
LINT := go tool -modfile=tests/tools/lint/go.mod golangci-lint

.PHONY: help
help: ## Print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' Makefile

.PHONY: build
build: build-plugin build-collector ## Build the plugin and the collector into bin/

.PHONY: build-plugin
build-plugin:
	go build -ldflags '$(LINK)' -o bin/kubectl-autopolicy ./cmd/kubectl-autopolicy

.PHONY: build-collector
build-collector:
	GOOS=linux go build -ldflags '$(LINK)' -o bin/autopolicy-collector ./cmd/autopolicy-collector

.PHONY: kubectl
kubectl: ## Build stock kubectl into bin/, for bench, the tests and the demo
	go -C tests/tools/kubectl build -ldflags '-s -w -X k8s.io/component-base/version.gitVersion=v1.36.3' -o $(CURDIR)/bin/kubectl .

.PHONY: setup
setup: ## Install the Debian packages that generate and test need, if missing
	@tests/tools/setup

.PHONY: tools
tools: setup kubectl ## Compile the pinned tools, so that later calls are quick
	go tool -modfile=tests/tools/go.mod -n krew
	go tool -modfile=tests/tools/go.mod -n validate-krew-manifest
	$(LINT) version

# A test that e2e runs says so when it skips here, and is no failure in CI.
.PHONY: test
test: setup kubectl ## Check the format, vet and test; AUTOPOLICY_CI=1: a skipped test fails
	@unformatted=$$(gofmt -l $(SOURCES)); if [ -n "$$unformatted" ]; then echo "not gofmt's format:" $$unformatted; exit 1; fi
	go vet ./...
	$(GOTEST) -elsewhere 'AUTOPOLICY_CLUSTER|AUTOPOLICY_E2E|make e2e|make kernel-test' . -timeout=15m ./... -- tests/cluster . ./image ./cmd/...

.PHONY: lint
lint: ## Run golangci-lint (its first build takes minutes)
	$(LINT) run ./...

.PHONY: generate
generate: setup ## Regenerate BPF objects, bindings and the wire format
	go generate ./...

.PHONY: verify-generate
verify-generate: ## Regenerate, and fail if a byte differs
	@sums() { git ls-files -co --exclude-standard -z | sort -z | xargs -0 -r sha256sum 2>/dev/null || true; }; \
	before=$$(sums); $(MAKE) generate; \
	if ! diff <(echo "$$before") <(sums); then echo "generated files are not what the sources make; see above"; exit 1; fi; \
	echo "generated files are what the sources make"

.PHONY: bench
bench: build-plugin kubectl ## Measure size and start against stock kubectl; writes docs/benchmarks.md
	go run ./tests/bench -plugin bin/kubectl-autopolicy -kubectl bin/kubectl -runs $(RUNS) -write docs/benchmarks.md

.PHONY: bench-collector
bench-collector: setup build-collector ## Measure the collector's cost and completeness (Debian, root, a quiet machine, 20 minutes)
	go build -o bin/bench-collector ./tests/bench/collector
	bin/bench-collector -rounds $(ROUNDS) -write docs/benchmarks.md

.PHONY: corpus
corpus: setup build-collector ## Learn from real programs, judge other runs and attacks (Debian, root); CORPUS=all REUSE=1
	go build -o bin/corpus ./tests/corpus
	bin/corpus $(if $(filter all,$(CORPUS)),-programs ALL,$(if $(CORPUS),-programs $(CORPUS))) $(if $(REUSE),-reuse) \
		-commit "$$(git rev-parse --short=12 HEAD)" $(if $(filter all,$(CORPUS)),-write docs/quality.md)

.PHONY: bench-learn
bench-learn: ## Measure merging and learning from a million facts, in processor time and memory; writes docs/benchmarks.md
	go build -o bin/bench-learn ./tests/bench/learn
	bin/bench-learn -write docs/benchmarks.md

.PHONY: bench-network
bench-network: ## Measure flows to policies beside Inspektor Gadget's advisor, and Hubble's decoding; writes docs/benchmarks.md
	go -C tests/bench/network run . -write $(CURDIR)/docs/benchmarks.md

.PHONY: bench-git
bench-git: ## Measure commits beside git's and go-git's, and plans for 2,000 policies (a quiet machine, 10 minutes)
	go run ./tests/bench/git -rounds $(ROUNDS) -write docs/benchmarks.md

.PHONY: fuzz
fuzz: ## Run every fuzz target for FUZZTIME (20s)
	@grep -rEo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' $(wildcard bpf cmd manifests pkg) | sed 's/:func / /' | while read -r file name; do \
		echo "$$(dirname $$file) $$name"; go test ./$$(dirname $$file) -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME); done

.PHONY: cluster-up
cluster-up: ## Start a real cluster on this machine (Debian, root); NODES=2
	$(CLUSTER) up --nodes=$(NODES)

.PHONY: cluster-down
cluster-down: ## Stop the cluster and remove what it made
	$(CLUSTER) down

.PHONY: demo
demo: setup build kubectl ## Learn, attack, promote and roll back a shop on a real cluster; DEMO_GITOPS=flux
	tests/demo/run

.PHONY: e2e
e2e: setup build kubectl ## Test everything on a real cluster (Debian, root)
	AUTOPOLICY_E2E=1 AUTOPOLICY_CLUSTER=1 $(GOTEST) . -count=1 -p=1 -timeout=30m ./tests/e2e/... ./tests/enforce/... -- tests/cluster -count=1 -timeout=30m .

# Gitea is a module of its own, with its templates in the module's folder. It
# needs cgo for sqlite; its first build takes 8 CPU-minutes.
.PHONY: gitea
gitea: setup
	CGO_ENABLED=1 nice go -C tests/forge/gitea build -tags 'sqlite sqlite_unlock_notify' -ldflags '-s -w' -o $(CURDIR)/bin/gitea code.gitea.io/gitea

.PHONY: e2e-gitops
e2e-gitops: build-plugin gitea ## Test pull requests on a real Gitea, over HTTP and SSH
	AUTOPOLICY_GITEA=$(CURDIR)/bin/gitea AUTOPOLICY_GITEA_STATIC=$$(go -C tests/forge/gitea list -m -f '{{.Dir}}' code.gitea.io/gitea) \
		$(GOTEST) . -count=1 -timeout=15m ./tests/forge

.PHONY: kernel-test
kernel-test: ## Find the planted facts on Debian's kernels in QEMU and on this one (Debian, root); KERNELS="6.12 host" FAMILIES="best kprobe"
	@tests/tools/setup kernel
	go run ./tests/kernel -kernels "$(KERNELS)" -families "$(FAMILIES)" $(if $(KEEP),-keep $(KEEP))

.PHONY: image
image: ## Write the collector's image for linux/amd64 and linux/arm64 into dist/
	@mkdir -p dist
	go run ./manifests/image -ref $(IMAGE) -version $(VERSION) -out dist/collector.tar

.PHONY: push
push: ## Push the collector's image to IMAGE's registry
	go run ./manifests/image -ref $(IMAGE) -version $(VERSION) -push

.PHONY: krew-manifest
krew-manifest: ## Build all platforms' archives, checksums and the krew manifest into dist/
	go run ./tests/release -version $(VERSION) -out dist

.PHONY: release
release: krew-manifest ## krew-manifest, and prove with krew that every archive installs
	AUTOPOLICY_DIST=dist go test -count=1 ./tests/krew

.PHONY: clean
clean: ## Remove bin/ and dist/
	rm -rf bin dist
