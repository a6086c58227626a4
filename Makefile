# make lists what there is to do. Everything here runs from a fresh clone; Debian packages that a target needs are
# in .ci/run, and a target that lacks one says which.

GO           ?= go
FUZZTIME     ?= 30s
MINIMIZETIME ?= 10x
SUDO         := $(shell [ "$$(id -u)" = 0 ] || command -v sudo)
LINT         := $(GO) tool -modfile=tools/go.mod golangci-lint
GOTESTSUM    := $(GO) tool -modfile=tools/go.mod gotestsum
TARGETS      := internal/testprog/targets
PROTO        := ./export/parca/profilestorepb

# Packages that need Linux, as patterns of import paths. All others build and pass go vet anywhere: the portable
# ones are checked for another system below. Tests of the portable packages run programs on Linux; vet suffices there.
LINUX_ONLY := /(bpf|profiler|cmd|benchmarks|internal/agent|internal/spend|internal/goruntime|internal/discover|internal/testprog|internal/kerneltest|deploy)(/|$$)

# One exact compiler, with one libbpf's headers, makes the committed BPF objects, so that anyone can prove that they come
# from these sources. .ci/run asks for this list: it is written down here alone.
CLANG_PACKAGES := clang-19=1:19.1.7-3~deb12u1 llvm-19=1:19.1.7-3~deb12u1 libbpf-dev=1:1.1.2-0+deb12u1

.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{ printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## build bin/pprofd
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/pprofd ./cmd/pprofd

.PHONY: demo
demo: build ## profile a bundled program for a few seconds (root, or sudo)
	@cd $(TARGETS) && CGO_ENABLED=0 $(GO) build -o $(CURDIR)/bin/mixed ./mixed
	@bin/mixed -seconds 60 >/dev/null 2>&1 & demo=$$!; \
	trap 'kill $$demo 2>/dev/null || true; wait $$demo 2>/dev/null || true' EXIT; \
	echo "profiling bin/mixed, process $$demo, for 5 s"; \
	$(SUDO) bin/pprofd record -p $$demo -d 5s -o demo.pb.gz; \
	printf '\nprofile:   %s\nto see it: go tool pprof -http=: %s\n' '$(CURDIR)/demo.pb.gz' demo.pb.gz

# Packages one after the other: tests that compare shares of CPU time would disturb each other. -count=1, for the go
# command does not see that a result depends on the kernel, on tools, and on the programs below $(TARGETS).
# RERUN=1, for CI: up to three tests that fail are run once more, and told of in out/rerun.txt if they pass then. Many
# compare with statistics, on a machine that others use, too: a few in a million may fail for no fault, and there are thousands.
.PHONY: test
test: ## run all tests (root for the BPF tests, which are else skipped by name)
	cd $(TARGETS) && $(GO) vet -unsafeptr=false ./... && $(GO) build -ldflags=-checklinkname=0 -o /dev/null ./... # pcs follows frame pointers, held asks for the collector's phase
	@mkdir -p out && rm -f out/rerun.txt
	$(if $(RERUN),$(GOTESTSUM) --format standard-verbose --rerun-fails=$(RERUN) --rerun-fails-max-failures=3 \
		--rerun-fails-run-root-test --rerun-fails-report=out/rerun.txt --packages=./... -- -p 1 -count=1 $(TESTFLAGS), \
		$(GO) test -p 1 -count=1 $(TESTFLAGS) ./...)

.PHONY: test-full
test-full: ## run all tests with every Go version and way to build (PPROFD_FULL=1): an hour
	PPROFD_FULL=1 $(MAKE) test TESTFLAGS="-timeout=60m $(TESTFLAGS)"

.PHONY: race
race: ## run all tests with the race detector
	$(GO) test -race -p 1 -count=1 $(TESTFLAGS) ./...

.PHONY: check
check: fmt-check vet lint generate-check test ## all that CI asks for

.PHONY: fmt-check
fmt-check:
	@bad=$$(gofmt -l .); \
	if [ -n "$$bad" ]; then printf 'not formatted; run gofmt -w on:\n%s\n' "$$bad" >&2; exit 1; fi

.PHONY: vet
vet: ## go vet for all systems that the code is for
	GOARCH=amd64 GOOS=linux $(GO) vet ./...
	GOARCH=arm64 GOOS=linux $(GO) vet ./...
	portable=$$($(GO) list ./... | grep -vE '$(LINUX_ONLY)'); GOOS=darwin GOARCH=arm64 $(GO) vet $$portable
	GOARCH=arm64 GOOS=linux CGO_ENABLED=0 $(GO) build ./...

.PHONY: lint
lint: ## golangci-lint, with the rules of .golangci.yml
	$(LINT) run ./...

.PHONY: clang
clang:
	@for p in $(CLANG_PACKAGES); do \
		have=$$(dpkg-query -W -f '$${Version}' "$${p%%=*}" 2>/dev/null || true); \
		if [ "$$have" != "$${p#*=}" ]; then \
			echo "$${p%%=*} is at version '$$have', BPF objects need $${p#*=}. On Debian bookworm: apt-get install $(CLANG_PACKAGES)" >&2; \
			exit 1; \
		fi; \
	done

.PHONY: clang-packages
clang-packages:
	@echo $(CLANG_PACKAGES)

.PHONY: generate
generate: clang ## compile the BPF programs (bpf/*.c) and write their Go bindings, and those of *.proto
	$(GO) generate ./bpf $(PROTO)

.PHONY: generate-check
generate-check: clang ## fail if make generate would change what is committed
	@tmp=$$(mktemp -d); trap 'rm -rf "$$tmp"' EXIT; \
	cp -r --parents go.mod go.sum tools bpf $(PROTO) "$$tmp"; \
	(cd "$$tmp" && find bpf $(PROTO) '(' -name '*_bpfel.*' -o -name '*.pb.go' ')' -delete && $(GO) generate ./bpf $(PROTO)); \
	for dir in bpf $(PROTO); do \
		if ! diff -rq $$dir "$$tmp/$$dir"; then echo "$$dir: generated files are not what their sources say: make generate" >&2; exit 1; fi; \
	done

# go test fuzzes one target at a time. A corpus that found something is in testdata/fuzz of its package.
.PHONY: fuzz
fuzz: ## run each fuzz target for FUZZTIME (30s)
	@grep -rlE --include='*_test.go' '^func Fuzz' . | xargs -rn1 dirname | sort -u | while read -r dir; do \
		for name in $$(sed -nE 's/^func (Fuzz[A-Za-z0-9_]*)\(.*/\1/p' "$$dir"/*_test.go); do \
			echo "$$dir $$name"; \
			$(GO) test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime $(MINIMIZETIME) "$$dir"; \
		done; \
	done

# BENCHFLAGS="-rounds 3 -only bpf,load"; its tables and lines for benchstat go to benchmarks/results.
.PHONY: bench
bench: ## measure what pprofd costs, beside perf and bpftrace (root), then run the packages' Go benchmarks
	$(GO) build -o bin/cost ./benchmarks/cost
	$(SUDO) env "PATH=$$PATH" bin/cost -o benchmarks/results/cost-$$(date -u +%F).txt $(BENCHFLAGS)
	$(GO) test -p 1 -run '^$$' -bench . -benchmem $(TESTFLAGS) ./...

# ACCURACYFLAGS="-rows go1.27.4/ -windows 3"; rows that the same commit has measured are not measured again.
.PHONY: accuracy
accuracy: ## measure how right profiles are on all Go versions and ways to build (root): an hour
	$(GO) build -buildvcs=true -o bin/accuracy ./benchmarks/accuracy
	$(SUDO) env "PATH=$$PATH" bin/accuracy -o benchmarks/results/accuracy-$$(date -u +%F).txt $(ACCURACYFLAGS)

# SOAK=8h; SOAKFLAGS="-rate 20 -cycles 0".
SOAK ?= 10m
.PHONY: soak
soak: ## profile processes that start and die 50 times a second for SOAK (10m); fails if memory, descriptors or BPF maps grow (root)
	$(GO) build -o bin/soak ./benchmarks/soak
	$(SUDO) env "PATH=$$PATH" bin/soak -for $(SOAK) -o benchmarks/results/soak-$$(date -u +%F) $(SOAKFLAGS)

# OVERHEADFLAGS="-pairs 20 -only throughput"; PEER_CMD names a further profiler, see benchmarks/overhead/doc.go.
.PHONY: overhead
overhead: ## measure what a profiled service loses, and what pprofd and other profilers use up (root): 20 minutes
	$(GO) build -buildvcs=true -o bin/overhead ./benchmarks/overhead
	$(SUDO) env "PATH=$$PATH" "PEER_CMD=$${PEER_CMD:-}" bin/overhead -o benchmarks/results/overhead-$$(date -u +%F).txt \
		-svg benchmarks/results/overhead-$$(date -u +%F).svg $(OVERHEADFLAGS)

# ALLOCSFLAGS="-pairs 20 -window 1s"
.PHONY: allocs
allocs: ## measure what profiling its allocations costs a program, by pprofd, by its own runtime, by bpftrace (root): 3 minutes
	$(GO) build -buildvcs=true -o bin/allocs ./benchmarks/allocs
	$(SUDO) env "PATH=$$PATH" bin/allocs -o benchmarks/results/allocs-$$(date -u +%F).txt $(ALLOCSFLAGS)

ALLOCS_SOAK ?= 10m
.PHONY: allocs-soak
allocs-soak: ## probe a program that allocates 10 GB a minute for ALLOCS_SOAK (10m); fails if samples are lost or sums are wrong (root)
	$(SUDO) env "PATH=$$PATH" PPROFD_ALLOCS_SOAK=$(ALLOCS_SOAK) $(GO) test -count=1 -timeout 60m -v -run '^TestAllocsSoak$$' ./profiler

# KILLS=1000. CI has 20 of them.
KILLS ?= 200
.PHONY: test-kill
test-kill: ## kill the agent KILLS (200) times while its servers are away, and count what arrives (root): 6 minutes
	$(SUDO) env "PATH=$$PATH" PPROFD_KILLS=$(KILLS) $(GO) test -count=1 -timeout 60m -v -run '^TestKill' ./internal/agent
	$(SUDO) env "PATH=$$PATH" PPROFD_KILLS=$(KILLS) $(GO) test -count=1 -timeout 60m -v -run '^TestAgentKilledInAnOutage$$' ./cmd/pprofd

# SCALEFLAGS="-rounds 1 -row 256,2000,200"
.PHONY: scale
scale: ## measure user space with recorded samples as 256 CPUs, 2,000 processes, 200 programs (root): 10 minutes
	$(GO) build -buildvcs=true -o bin/scale ./benchmarks/scale
	$(SUDO) env "PATH=$$PATH" bin/scale -o benchmarks/results/scale-$$(date -u +%F).txt \
		-svg benchmarks/results/scale-$$(date -u +%F).svg $(SCALEFLAGS)

# FLEETFLAGS="-only idle -from benchmarks/results/fleet-....txt": one part measured again
.PHONY: fleet
fleet: ## measure `pprofd agent` beside 200 services, and beside 50 starts a second (root): 9 minutes
	$(GO) build -buildvcs=true -o bin/fleet ./benchmarks/fleet
	$(SUDO) env "PATH=$$PATH" bin/fleet -o benchmarks/results/fleet-$$(date -u +%F).txt \
		-svg benchmarks/results/fleet-$$(date -u +%F).svg $(FLEETFLAGS)

# DELIVERYFLAGS="-windows 6 -rounds 20"
.PHONY: delivery
delivery: ## measure bytes and CPU time of delivering profiles to files and to servers of each kind (root): 3 minutes
	$(GO) build -buildvcs=true -o bin/delivery ./benchmarks/delivery
	$(SUDO) env "PATH=$$PATH" bin/delivery -o benchmarks/results/delivery-$$(date -u +%F).txt $(DELIVERYFLAGS)

# GOROUTINESFLAGS="-n 10000 -rounds 20"
.PHONY: goroutines
goroutines: ## measure what it costs to see all goroutines of a process, beside its own ways and dlv (root): 5 minutes
	$(GO) build -buildvcs=true -o bin/goroutines ./benchmarks/goroutines
	$(SUDO) env "PATH=$$PATH" bin/goroutines -o benchmarks/results/goroutines-$$(date -u +%F).txt $(GOROUTINESFLAGS)

# WALLFLAGS="-only shares -n 1000 -rounds 3"
.PHONY: wall
wall: ## measure how right wall-clock profiles are and what they cost, beside fgprof in the program (root): 9 minutes
	$(GO) build -buildvcs=true -o bin/wall ./benchmarks/wall
	$(SUDO) env "PATH=$$PATH" bin/wall -o benchmarks/results/wall-$$(date -u +%F).txt $(WALLFLAGS)

# GOVERNORFLAGS="-cpu 0.3 -windows 20": percent of the CPUs, windows of each stage
.PHONY: governor
governor: ## measure whether `pprofd agent` keeps a small budget on a load that changes by steps, from outside (root): 3 minutes
	$(GO) build -buildvcs=true -o bin/governor ./benchmarks/governor
	$(SUDO) env "PATH=$$PATH" bin/governor run -o benchmarks/results/governor-$$(date -u +%F).txt \
		-svg benchmarks/results/governor-$$(date -u +%F).svg $(GOVERNORFLAGS)

.PHONY: governor-sim
governor-sim: ## draw what the governor does on modelled hosts, by traces of load, synthetic and recorded: seconds
	$(GO) build -buildvcs=true -o bin/governor ./benchmarks/governor
	bin/governor simulate -o benchmarks/results/simulation-$$(date -u +%F).txt \
		-svg benchmarks/results/simulation-$$(date -u +%F)- $(GOVERNORFLAGS)

.PHONY: board
board: ## write the newest results of benchmarks/results into README.md
	$(GO) run ./benchmarks/readme

# Every kernel series that Debian's archive offers, in qemu; see internal/kerneltest. An hour on a quiet machine.
# KERNELFLAGS="-arch amd64 -short -run TestX ./bpf", "-kernels 6.1,6.12-rt", "-list"
.PHONY: test-kernels
test-kernels: ## run the BPF, accuracy and single-step tests on Debian's kernels, amd64 and arm64, in virtual machines
	$(GO) run ./internal/kerneltest $(KERNELFLAGS)

# The agent is stopped for SUSPEND, and a virtual machine is suspended for as long, with the agent as a service.
SUSPEND ?= 10m
.PHONY: test-suspend
test-suspend: ## stop the agent, and suspend its machine, for SUSPEND=10m each: all CPU time is told of, and nothing else (root): half an hour
	$(SUDO) env "PATH=$$PATH" PPROFD_STOP=$(SUSPEND) $(GO) test -count=1 -timeout 30m -v -run 'TestAgentSurvives/stopped_for' ./cmd/pprofd
	$(GO) run ./internal/kerneltest -systemd -arch amd64 -kernels 6.1 -timeout 40m -suspend $(SUSPEND) -run '^TestSystemdSuspend$$' $(KERNELFLAGS)

# deploy/pprofd.service on Debian's kernel, with Debian's systemd as init; see internal/kerneltest.
.PHONY: test-systemd
test-systemd: ## run the agent as a service of systemd, hardened, beside services that it profiles, in a virtual machine: 8 minutes
	$(GO) run ./internal/kerneltest -systemd -arch amd64 -kernels 6.1 -timeout 30m $(KERNELFLAGS)

.PHONY: test-manifests
test-manifests: ## put deploy/kubernetes through the API server's decoding and validation, and run its container (root, runc)
	cd deploy/kubernetes && $(GO) vet ./... && $(SUDO) env "PATH=$$PATH" $(GO) test -count=1 -timeout 10m ./...

# Each Go version; amd64 here, arm64 in a virtual machine, part of the program there.
STEP_RESULTS ?= benchmarks/results/single-step-$(shell date -u +%F).txt
.PHONY: single-step
single-step: ## compare the stack with the true one at each instruction; share and exceptions by Go version (root)
	@mkdir -p out
	PPROFD_FULL=1 $(GO) test -v -count=1 -timeout 60m -run '^TestEveryInstruction$$' ./unwind | tee out/single-step-amd64.txt
	$(GO) run ./internal/kerneltest -arch arm64 -kernels 6.1 -timeout 60m -o out/single-step-arm64.txt ./unwind
	@{ echo 'Stacks completed at every instruction of a single-stepped program, compared with the true ones (make single-step)'; \
	   echo "$$(date -u +%F), pprofd at commit $$(git describe --always --dirty)"; echo; \
	   sed -nE 's,^=== ATTR  TestEveryInstruction/(go[^ ]*) pprofd\.([a-z]+) ,amd64 \1 \2: ,p' out/single-step-amd64.txt; \
	   sed -nE 's,^arm64 .*TestEveryInstruction/(go[^ ]*) +([a-z]+) +,arm64 \1 \2: ,p' out/single-step-arm64.txt; \
	} >$(STEP_RESULTS)
	@cat $(STEP_RESULTS)

.PHONY: clean
clean: ## remove what was built, and downloaded kernels
	rm -rf bin out demo.pb.gz
