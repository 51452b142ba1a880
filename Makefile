# keepone's two commands are `make demo` and `make test`; `make help` lists the rest.
SHELL := /bin/bash
.DEFAULT_GOAL := help

# go-ceph builds against the librbd that is installed.
CEPH_MAJOR := $(shell dpkg-query -W -f '$${Version}' librbd-dev 2>/dev/null | sed 's/[^0-9].*//')
CEPH_TAG := $(or $(and $(filter 16,$(CEPH_MAJOR)),pacific),$(and $(filter 17,$(CEPH_MAJOR)),quincy),$(and $(filter 18,$(CEPH_MAJOR)),reef),squid)
TOOL := go tool -modfile=tools/go.mod
COMMIT := $(shell git rev-parse --short HEAD 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X github.com/keepone-ha/keepone/pkg/version.Commit=$(COMMIT)
# Packages that bind Ceph or LXC: linted and tested in `make test`.
CGO := ./pkg/drive/rbd/... ./pkg/drive/lxc/... ./cmd/keeponed/...
PURE = $(shell go list ./... | grep -vE '/pkg/drive/(rbd|lxc)(/|$$)|/cmd/keeponed(/|$$)')
GOFILES = $(shell git ls-files -co --exclude-standard '*.go')

N ?= 3
MANAGER ?= keepone
CASE ?=
RUNS ?= 10
BASELINE ?= 3
SEEDS ?= 500
SEED ?= 1
VERSION ?= $(shell sed -n 's/^var Version = "\(.*\)"/\1/p' pkg/version/version.go)

TIME ?= 30s
DURATION ?= 15m

.PHONY: help check build test demo bench lab sim chaos deps clean mutants fuzz golden deb test-deb vmlab vmlab-ssh test-vm vm-build

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /  make \1\t/' | expand -t 16

check: ## format, vet, staticcheck, import rules, fast tests with -race; no root, no network, no Ceph or LXC headers
	@bad=$$($(TOOL) gofumpt -l $(GOFILES)); if [ -n "$$bad" ]; then echo "gofumpt would change:"; echo "$$bad"; exit 1; fi
	@CGO_ENABLED=0 go vet $(PURE)
	@CGO_ENABLED=0 $(TOOL) staticcheck $(PURE)
	@go test -race $(PURE)

deps: ## install what build, demo and test need from Debian
	@test/deps.sh

build: deps ## build/keeponed, keepone, keepone-guard, fence_keepone and the lab
	@$(MAKE) --no-print-directory binaries

.PHONY: ceph-tag
ceph-tag:
	@echo $(CEPH_TAG)

.PHONY: binaries
binaries:
	@mkdir -p build
	CGO_ENABLED=1 go build -tags $(CEPH_TAG) -ldflags '$(LDFLAGS)' -o build/keeponed ./cmd/keeponed
	CGO_ENABLED=0 go build -ldflags '$(LDFLAGS)' -o build/ ./cmd/keepone ./cmd/keepone-guard ./fencing/fence_keepone
	@mkdir -p build/ocf
	CGO_ENABLED=0 go build -ldflags '$(LDFLAGS)' -o build/ocf/ ./resource-agents/rbd ./resource-agents/container ./resource-agents/controller
	CGO_ENABLED=0 go build -ldflags '$(LDFLAGS)' -o build/ ./test/lab/cmd/keepone-lab
	CGO_ENABLED=0 go build -ldflags '$(LDFLAGS)' -o build/keepone-frontend ./test/lab/frontend

test: ## check, then every lab; CASE=name runs one case
	@test/run.sh '$(CASE)'

sim: ## play SEEDS=n seeds of whole clusters in virtual time, from SEED=n (0: fresh ones)
	@mkdir -p build
	CGO_ENABLED=0 go build -o build/sim ./test/sim
	@build/sim -seeds $(SEEDS) -first $(SEED) -jobs $(shell nproc) -save build

chaos: build ## faults on real parts for DURATION=15m by SEED=n (0: a fresh one), then a verdict; MANAGER=pacemaker has Pacemaker order
	@build/keepone-lab chaos -bin build -json build/chaos.json -duration $(DURATION) -seed $(SEED) -manager $(MANAGER)

mutants: ## take each safety check out, one at a time, and see a test fail; CASE=part of an id
	@mkdir -p build
	go run ./test/mutants -json build/mutants.json -only '$(CASE)'

fuzz: ## every fuzz target for TIME=30s, on its corpus and beyond; CASE=part of a name
	@test/fuzz.sh '$(TIME)' '$(CASE)'

golden: ## write what tests compare with anew (stories, reports, metadata, setup); read the difference before it is kept
	GOLDEN=write go test -count=1 ./pkg/core ./pkg/report ./pkg/setup ./fencing/fence_keepone -run '^Test(Stories|Golden|Metadata)$$'
	@git diff --stat

demo: build ## a cluster of N=3 nodes loses its holder, and the front-end answers again; MANAGER=pacemaker has Pacemaker order it
	@build/keepone-lab demo -bin build -json build/demo.json -manager $(MANAGER) -n $(N)

bench: build ## measure, and the stock stack beside it; CASE=name RUNS=n BASELINE=n (0: no stock stack)
	@build/keepone-lab bench -bin build -json build/bench.json -case '$(CASE)' -runs $(RUNS) -baseline $(BASELINE)

lab: build ## keep a cluster of N=3 nodes up for a person; MANAGER=pacemaker has corosync and Pacemaker order it
	@build/keepone-lab cluster -bin build -n $(N) -manager $(MANAGER)

deb: ## build/keepone_VERSION_ARCH.deb: VERSION=0.1.1 makes it of another version
	@packaging/deb/build.sh '$(VERSION)' '$(CEPH_TAG)' '$(COMMIT)'

test-deb: ## install, upgrade, remove and purge the package in a root of its own
	@packaging/deb/build.sh '$(VERSION)' '$(CEPH_TAG)' '$(COMMIT)'
	@packaging/deb/build.sh '$(VERSION).1' '$(CEPH_TAG)' '$(COMMIT)'
	@test/deb.sh build/keepone_$(VERSION)_*.deb build/keepone_$(VERSION).1_*.deb

vm-build: binaries deb

vmlab: vm-build ## keep N=3 virtual machines with the package installed up for a person, Ceph and BMCs beside them
	@build/keepone-lab machines -bin build -work build/vmlab -n $(N)

vmlab-ssh: ## a shell in machine N=1 of make vmlab
	@sh build/vmlab/shell $(if $(filter file,$(origin N)),1,$(N))

test-vm: vm-build ## the scenarios on virtual machines; CASE=vm/name runs one
	@packaging/deb/build.sh '$(VERSION).1' '$(CEPH_TAG)' '$(COMMIT)'
	@build/keepone-lab test -machines -bin build -json build/test.json -case '$(CASE)'

clean: ## remove what was built
	rm -rf build
