# make mnist and make test need nothing but Go.

GO ?= go

# The race detector needs a C compiler.
RACE := $(shell command -v $$($(GO) env CC) >/dev/null 2>&1 && echo -race)

.PHONY: build test vet bench fuzz mnist stop clean

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

# bench prints the figures of docs/performance.md.
bench: build
	$(GO) run ./bench

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
