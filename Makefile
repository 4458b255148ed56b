# kimg: `make help` lists the targets. cgo is off everywhere.
export CGO_ENABLED := 0
TAGS   := containers_image_openpgp,exclude_graphdriver_btrfs
export GOFLAGS := -buildvcs=false -tags=$(TAGS)

VERSION     := $(shell git describe --tags --dirty 2>/dev/null | sed 's/^v//')
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
BUILD       := go build -trimpath -ldflags='-s -w $(if $(VERSION),-X main.version=$(VERSION))'
SOURCES     := $(shell git ls-files '*.go' 2>/dev/null)

.DEFAULT_GOAL := help
.PHONY: help build failpoints test test-root test-rootless race podman-module test-podman interop powercut fuzz cross modules bench bench-compare lint demo docs clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 16

build: ## bin/kimg: one static binary
	$(BUILD) -o bin/kimg ./cmd/kimg
	@go run ./tests/assertstatic bin/kimg

test: ## every unit test and script, as the user you are
	go test -timeout=20m ./...

test-root: build failpoints ## test, interop and powercut in one run, which keeps every processor busy; root only
	go test -tags=$(TAGS),interop,powercut -count=1 -timeout=20m ./tests/interop ./tests/powercut ./...

test-rootless: ## the tests as an unprivileged user (USER_NAME, as root), but those that are the same for everybody
	.ci/rootless

race: ## the tests under the race detector, which needs a C compiler
	.ci/race -timeout=60m ./...

podman-module: ## the same source as a second module, for today's podman, under bin/podman
	podman-module/generate bin/podman
	go -C bin/podman vet ./...

test-podman: podman-module ## the tests of what touches containers/storage and containers/image, in that module
	cd bin/podman && go test -timeout=20m -run='^TestDigestEqualsLibrary$$' ./layerdiff
	cd bin/podman && go test -timeout=20m ./store ./commit ./convert/image ./internal/registry ./tests/faults ./tests/linked

interop: build ## podman, buildah, skopeo and umoci read what kimg wrote (needs them and mmdebstrap)
	go test -tags=$(TAGS),interop -count=1 -timeout=30m ./tests/interop

failpoints: # what powercut kills
	$(BUILD) -tags=$(TAGS),kimg_failpoints -o bin/kimg-failpoints ./cmd/kimg

powercut: build failpoints ## power cuts on a loop device and kill -9 at every failpoint (root)
	go test -tags=$(TAGS),powercut -count=1 -timeout=60m ./tests/powercut

fuzz: ## every fuzz target, FUZZTIME each (default 30s)
	.ci/fuzz $${FUZZTIME:-30s}

cross: ## the other processor, and what must build on other systems
	GOARCH=arm64 go build -o /dev/null ./cmd/kimg
	for os in linux darwin windows; do for arch in amd64 arm64; do \
		GOOS=$$os GOARCH=$$arch go build ./convert ./convert/docker ./copydata/... || exit 1; done; done

modules: ## everything that building and checking takes from the network
	go mod download
	go -C docs/examples/podlike mod download
	go -C podman-module mod download
	go run $(STATICCHECK) -version

bench: build ## Go benchmarks, and fifty conversions against skopeo
	go test -run='^$$' -bench=. -benchmem ./...
	go run ./tests/bench -convert

bench-compare: build ## kimg against the floor, buildah, skopeo and podman, every bar (BENCH='-all -only WORD -rounds N -doc docs')
	go run ./tests/bench $(BENCH)

lint: ## gofmt, go vet, staticcheck
	@bad=$$(gofmt -l $(SOURCES)); test -z "$$bad" || { echo "gofmt: $$bad" >&2; exit 1; }
	go vet -tags=$(TAGS),interop,powercut ./...
	go -C docs/examples/podlike vet .
	go run $(STATICCHECK) -tags=$(TAGS),interop,powercut ./...

demo: build ## a container becomes an image, on a private store, without network
	tests/demo/demo

docs: ## docs/api.txt, what the public packages export
	go run ./tests/api . > docs/api.txt.new
	mv docs/api.txt.new docs/api.txt

clean: ## remove what was built
	rm -rf bin coverage
