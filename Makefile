# make mnist and make test need nothing but Go. make e2e and the targets named
# cluster need Linux and root: docs/testing.md.

GO ?= go

# The race detector needs a C compiler.
RACE := $(shell command -v $$($(GO) env CC) >/dev/null 2>&1 && echo -race)

.PHONY: build test vet test-cluster e2e e2e-failures cluster cluster-down cluster-env cluster-status cluster-program image bench fuzz mnist stop clean

# The programs are static: without cgo they need no libc, and start faster.
build:
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/ ./cmd/kfs ./examples/mnist

# mnist runs the example pipeline on this machine: a digit classifier is
# trained and served, with a page to try it on. make stop ends the two servers.
mnist: build
	bin/kfs run examples/mnist.star --images examples/mnist/images.yaml -p train_steps=1000
	@echo
	@bin/mnist status
	@echo "end both with: make stop"

stop: build
	bin/mnist stop

test: vet
	$(GO) test $(RACE) ./...
ifneq ($(RACE),)
	$(GO) test -run '^Test(Hostile|Limits)$$' ./interp/... ./cmd/kfs
endif

vet:
	$(GO) vet ./...

# test-cluster runs the tests of the clusters' module that want no cluster.
test-cluster:
	$(GO) -C test/cluster vet -tags e2e ./...
	$(GO) -C test/cluster test $(RACE) ./...

# e2e runs the tests that want a real Kubernetes, on one that is up as long as
# they run: those of the clusters' own module, then of those here the short ones,
# and of backend/k8s those of drivers that die, are late or are two.
#
# e2e-failures runs all of backend/k8s: the suite of executors, and what can go
# wrong with pods, nodes and the API server, which takes a quarter of an hour.
E2E = $(shell grep -rl --include='*_test.go' --exclude-dir=test '^//go:build e2e' . | xargs -n1 dirname | sort -u)
E2E_SHORT = ^TestE2E(TestingDoc|Alike|Command|Role|Store|Mnist|MnistDeployers)
E2E_DRIVERS = ^TestE2E(WritePoints|Held|Frozen|State|KeptOutputs|DamagedState|Delete|NothingLeft|PodLost)$$
GOTEST = $(GO) test $(RACE) -tags e2e -count=1 -timeout 30m
e2e: cluster-program test-cluster
	$(GO) vet -tags e2e $(E2E)
	bin/cluster run --name e2e -- sh -c '(cd test/cluster && $(GOTEST) ./e2e) && $(GOTEST) -p 1 -run "$(E2E_SHORT)" . ./artifact ./examples/mnist && \
		$(GOTEST) -run "$(E2E_DRIVERS)" ./backend/k8s'

e2e-failures: cluster-program
	$(GO) vet -tags e2e $(E2E)
	bin/cluster run --name e2e -- $(GOTEST) -p 1 -run "^TestE2E" ./backend/k8s ./backend/k8s/resource

# A cluster to use by hand. KFS_CLUSTER names one of several.
cluster: cluster-program
	@bin/cluster up

cluster-down: cluster-program
	@bin/cluster down

cluster-status: cluster-program
	@bin/cluster status

cluster-env: cluster-program
	@bin/cluster env

cluster-program:
	@CGO_ENABLED=0 $(GO) -C test/cluster build -trimpath -buildvcs=false -gcflags=all=-dwarf=false -o ../../bin/ .

# image writes the image of kfs, both programs in one layer, without a container
# engine. PUSH=1 pushes it too, to the registry in IMAGE, with your docker login.
IMAGE ?= ghcr.io/kfs-project/kfs:dev
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null)
CERTIFICATES ?= $(firstword $(wildcard /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt))
OCI := org.opencontainers.image
image: cluster-program
	CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags '-s -w -X main.version=$(VERSION)' -o bin/image/ ./cmd/kfs ./cmd/kfs-launch
	@bin/cluster image build -t $(IMAGE) -o bin/kfs-image.tar $(if $(PUSH),--push named) --user 65532 \
		$(if $(CERTIFICATES),--file /etc/ssl/certs/ca-certificates.crt=$(CERTIFICATES)) \
		--label $(OCI).title=kfs,$(OCI).source=https://github.com/kfs-project/kfs,$(OCI).licenses=Apache-2.0 \
		--label $(OCI).version=$(VERSION),$(OCI).revision=$(shell git rev-parse HEAD 2>/dev/null) \
		bin/image/kfs bin/image/kfs-launch
	@echo "$(IMAGE) is in bin/kfs-image.tar; next: docker load -i bin/kfs-image.tar"

# bench prints the figures of docs/performance.md; those of a cluster where one
# can be brought up.
bench: build cluster-program
	$(GO) run ./bench
	@echo
	@if [ "$$(id -u)" = 0 ]; then \
		bin/cluster run --name bench --nodes-fake 500 -- sh -c '$(GO) -C test/cluster run ./bench && \
			$(GO) test -tags e2e -run "^$$" -bench "^BenchmarkE2E" -benchtime 1x -timeout 120m ./backend/k8s'; \
	else \
		echo "not root: no figures of a cluster"; \
	fi

# fuzz runs each fuzz test for FUZZTIME.
FUZZTIME ?= 60s
fuzz:
	@for pkg in $$($(GO) list ./...); do \
		for f in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
			echo "$$pkg $$f"; $(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) $$pkg || exit 1; \
		done; \
	done

clean:
	rm -rf bin
