# skein: `make` lists what can be made.
GO        ?= go
BIN       := bin/skein
VERSION   ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS   := -s -w -X main.release=$(VERSION)
export CGO_ENABLED = 0

.PHONY: help build test race lint fuzz sim lab lab-compare chaos soak bench bench-scale attack conform testssl sticky demo doctor vagrant-files vagrant-test
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## bin/skein, one static binary
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN) ./cmd/skein

test: build ## everything that must hold: unit, simulation, real nodes in namespaces, the demo; installs what it needs
	scripts/test

race: ## the unit tests and simulations under the race detector
	CGO_ENABLED=1 $(GO) test -race -timeout 20m ./...

lint: ## gofmt, vet, staticcheck
	scripts/lint

fuzz: ## every fuzz target for FUZZTIME (10s)
	scripts/fuzz

sim: ## ten thousand schedules of faults in virtual time, and broken rules that they must find; writes test/sim/results/
	scripts/sim

lab: build ## clusters with real peers (nginx, PostgreSQL, wrk), 1,000 configuration changes under load; writes test/lab/results/
	scripts/lab

lab-compare: build ## every fault 20 times, beside keepalived + haproxy; on a quiet machine (CONTENDERS, SCENARIOS, RUNS, COMPARE); hours
	scripts/lab-compare $(if $(CONTENDERS),-contenders "$(CONTENDERS)") $(if $(SCENARIOS),-scenarios "$(SCENARIOS)") $(if $(RUNS),-runs $(RUNS)) $(COMPARE)

chaos: build ## random faults on a cluster under load for CHAOS_FOR (30m); writes test/chaos/results/
	scripts/chaos

soak: build ## everything at once through a cluster that changes every second, for SOAK_FOR (1h): nothing fails, nothing grows
	scripts/soak

bench: build ## against HAProxy and nginx in the same run, on a quiet machine; writes test/bench/results/; see docs/performance.md
	scripts/bench $(BENCH)

bench-scale: build ## the same over 1 to 8,192 connections, 1 to 10,000 routes, 1 to 1,000 servers
	scripts/bench -scale -rounds 5 $(BENCH)

attack: build ## a thousand slow heads, bodies and readers against skein, with canaries; writes test/bench/results/attack.json
	$(GO) run ./test/bench/attack -skein bin/skein -o test/bench/results/attack.json $(ATTACK)

conform: build ## the conformance battery beside HAProxy and nginx; writes test/conform/results/
	scripts/packages nginx-light haproxy
	$(GO) run ./test/conform/score

testssl: build ## testssl.sh against this build; writes test/conform/results/
	scripts/testssl

sticky: ## sticky tables of three nodes at scale; writes test/bench/results/sticky/
	scripts/bench-sticky

demo: build ## three nodes, one VIP and a holder that dies, on this machine, in under a minute
	$(BIN) demo

doctor: build ## what this machine has of what skein and its tests need
	scripts/doctor

vagrant-files: build ## what the lab of virtual machines gets: bin/skein and bin/probe; then: cd vagrant && vagrant up
	$(GO) build -trimpath -o bin/probe ./test/vagrant/probe

vagrant-test: ## every scenario on virtual machines (VAGRANT=--emulated without hardware virtualization), no part of make test
	scripts/vagrant-lab $(VAGRANT)
