# What there is to do, each with a line of help: make help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

# The version a build carries.
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null)
FUZZTIME ?= 30s
GOLANGCI := .cache/golangci-lint

.PHONY: help build test race lint fmt fuzz demo bench bench-cri bench-growth bench-micro bench-webhook conformance docs e2e e2e-full e2e-kubernetes e2e-cluster e2e-init vap monitoring-check manifests manifests-check image faults crash model powercut status-check check clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## the binary, as ./bin/larder
	CGO_ENABLED=0 go build -buildvcs=false -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o bin/larder ./cmd/larder

# The time of everything in the image, and the commit it says it is from.
SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null)
REVISION ?= $(shell git rev-parse HEAD 2>/dev/null)

# A release is of a version that somebody has named, not of what git describes.
RELEASE = $(if $(filter-out file,$(origin VERSION)),$(VERSION))

image: ## the image, both architectures, as dist/larder-image.tar; no Docker needed
	go run -C test/release ./cmd/image -root $(CURDIR) -out $(CURDIR)/dist \
		-version '$(VERSION)' -revision '$(REVISION)' -epoch '$(SOURCE_DATE_EPOCH)' -push '$(PUSH)'

image-check: ## image and release, built twice; the image by its Dockerfile, imported, pushed, every command run in it (needs root)
	test/release/run

release: ## what is published of VERSION=v1.2.3, in dist/v1.2.3: docs/release.md
	go run -C test/release ./cmd/release -root $(CURDIR) -out $(CURDIR)/dist -version '$(RELEASE)'

release-check: ## the same, compiled twice (a quarter of an hour)
	test/release/run --full

test: ## vet, and every test of the module with the race detector (a few minutes)
	go vet ./...
	go test -race -timeout 30m ./...

race: ## the tests of what is concurrent, five times over
	go test -race -count 5 -timeout 60m ./store/... ./mirror/... ./internal/...

lint: $(GOLANGCI) ## gofmt, golangci-lint and the rules of the house
	@unformatted=$$(gofmt -l central cmd internal mirror store test); test -z "$$unformatted" || \
		{ echo "not formatted, run make fmt:"; echo "$$unformatted"; exit 1; }
	$(GOLANGCI) run ./...
	go test -count 1 ./test/house

fmt: $(GOLANGCI) ## format the code and sort its imports
	$(GOLANGCI) fmt ./...

# The linter is built once, from the versions test/lint pins.
$(GOLANGCI): test/lint/go.mod test/lint/go.sum
	@mkdir -p .cache
	cd test/lint && go build -o ../../$(GOLANGCI) github.com/golangci/golangci-lint/v2/cmd/golangci-lint
	@touch $(GOLANGCI)

fuzz: ## every fuzz target in turn, FUZZTIME each (30s)
	test/fuzz $(FUZZTIME)

demo: ## Larder at work against a real registry: a table of what was saved (2 minutes)
	test/demo/run

bench: ## against pulling directly, nginx and docker-registry: docs/performance.md
	test/bench/run

docs: ## every command of the documentation that runs on one machine, those of crane, regctl and skopeo, too
	test/docs/run

bench-growth: ## how the cost of a cold pull grows with clients, layers and their size (10 GiB at most)
	test/bench/run -only growth

bench-micro: ## single parts of a pull, ten times; with BASE=revision, before and after (five minutes each)
	BASE='$(BASE)' test/bench/micro

bench-cri: ## containerd 2 pulls cold through CRI, directly and through the mirror (needs root)
	test/e2e/run -tags bench -run TestColdPullByCRI

conformance: ## the distribution spec's own suite against larder central (a minute)
	test/official/run

e2e: ## real clients pull through the mirror, one fault for each (needs root)
	test/e2e/run

e2e-init: ## larder init on containerd 1.6 to the newest: pulls with and without the mirror (needs root)
	test/e2e/run --releases -run TestInit

e2e-full: ## every client with every fault (needs root)
	test/e2e/run --full

vap: ## the policies that render writes, with the API server's own evaluator
	cd test/vap && go vet ./... && go test -count 1 ./...

manifests: ## what is made from the Helm chart: manifests/ and its page's table of values
	test/chart/run tools
	manifests/render "$$PWD/.cache/chart/helm" "$$PWD/.cache/chart/larder"
	go test -C test/chart -count 1 -run TestValuesAreDocumented . -args -update

manifests-check: ## the chart and what is made from it, before a real API server (built once, minutes)
	test/chart/run

monitoring-check: ## metrics, dashboard, alerts and traces against running processes and Debian's Prometheus
	test/monitoring/run

bench-webhook: build ## the admission webhook at 2,000 reviews a second, for a minute
	go test -count 1 -v -run TestLoad ./central/admission -load 60s
	go test -count 1 -run '^$$' -bench Review ./central/admission

e2e-kubernetes: ## the admission webhook before three real API servers, built once (an hour), then minutes
	test/e2e-kubernetes/run

e2e-cluster: ## the manifests and the chart on a node with kubelet and containerd, made here (needs root; built once, then minutes)
	test/e2e-cluster/run

faults: ## every fault of an upstream and of a disk, at full size
	go test -count 1 -timeout 60m ./test/faults -long

crash: ## kill -9 at named points and at random, 100 rounds
	go test -count 1 -timeout 60m -v -run Killed ./store -crash 10
	go test -count 1 -timeout 60m -v ./test/crash -rounds 100

model: ## the registry against a model of it, killed 60 times; its power cut 60 times
	go test -race -count 1 -timeout 90m -v ./test/model -steps 500 -kills 60
	go test -race -count 1 -timeout 60m -v -run PowerCut ./store -cuts 60

powercut: ## the same registry on a file system whose power is cut 30 times (needs root)
	command -v mkfs.xfs >/dev/null || apt-get install -y -qq xfsprogs >/dev/null
	go test -race -count 1 -timeout 60m -v ./test/model -steps 250 -kills 30 -cut ext4
	go test -race -count 1 -timeout 60m -v ./test/model -steps 250 -kills 30 -cut xfs

status-check: ## the status page in Chromium: screens, colours, scripts, a pull that is watched (2 minutes)
	test/status/run

check: test lint demo e2e ## what has to pass before a change goes in
	$(MAKE) fuzz FUZZTIME=10s

clean: ## remove what the targets above left behind
	rm -rf bin .cache data larder
