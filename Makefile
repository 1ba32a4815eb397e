# `make` or `make help` lists the targets. The text after ## on a target's line is its help.

GO       ?= go
FUZZTIME ?= 60s
# To test one package: `make test PKG=./shared/window`.
PKG      ?= ./...
GOLANGCI ?= golangci-lint
# The linter's configuration is written for this version.
GOLANGCI_VERSION := v2.15.0

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show this help
	@echo "Usage: make <target>"
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-13s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo "Variables: PKG=./... (test, test-race, lint, bench-micro, bench-compare), FUZZTIME=60s (for each fuzz target)"
	@echo "Tests:     SPATE_TEST_SHARED=DIR    reference data (default ../shared)"
	@echo "           SPATE_TEST_BROKERS=...   a real Kafka, host:port[,host:port...]"
	@echo "           SPATE_TEST_DATABASE_URL=.. a PostgreSQL server to create databases on (default: tests start their own)"
	@echo "           REQUIRE_INTEGRATION=1    fail instead of skipping tests if one of these is missing"

.PHONY: build
build: ## Build ./spate
	CGO_ENABLED=0 $(GO) build -o spate .

.PHONY: test
test: ## Run all tests (ARGS=-short skips long tests)
	$(GO) test $(ARGS) $(PKG)

.PHONY: test-race
test-race: ## Run all tests with the race detector (needs a C compiler)
	$(GO) test -race $(ARGS) $(PKG)

# These defaults match those of the flags in tests/chaos. SEED=0 chooses a new seed.
DURATION ?= 60s
SEED     ?= 0
SEEDS    ?= 1
BROKER   ?= both

.PHONY: chaos
chaos: ## Inject random faults under load (DURATION=30m SEED=7 SEEDS=20 BROKER=kafka)
	$(GO) test ./tests/chaos -run '^TestChaos$$' -v -timeout 0 -duration $(DURATION) -seed $(SEED) -seeds $(SEEDS) -broker $(BROKER)

.PHONY: noise
noise: ## Send garbage while traffic flows (DURATION=1h SEED=7 BROKER=kfake)
	$(GO) test ./tests/chaos -run '^TestNoise$$' -v -timeout 0 -noise $(DURATION) -seed $(SEED) -broker $(BROKER)

.PHONY: lint
lint: ## Check style and the import rule with golangci-lint
	@command -v $(GOLANGCI) >/dev/null || { \
		echo "$(GOLANGCI) is not installed: $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)"; exit 1; }
	$(GOLANGCI) run $(PKG)

.PHONY: picture
picture: ## Draw the demo's output as docs/demo.svg
	$(GO) run ./tests/picture >docs/demo.svg.new && mv docs/demo.svg.new docs/demo.svg

.PHONY: fuzz
fuzz: ## Fuzz every decoder, FUZZTIME each
	@set -e; $(MAKE) --no-print-directory fuzz-targets | while read -r dir name; do \
		echo "== $$dir $$name"; \
		$(GO) test "$$dir" -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME); \
	done

.PHONY: fuzz-targets
fuzz-targets: ## List the fuzz targets, each with its folder
	@grep -rn '^func Fuzz' --include='*_test.go' . | sed -E 's/^(.*)\/[^/]+:[0-9]+:func (Fuzz[A-Za-z0-9_]*).*/\1 \2/' | sort

ROUNDS   ?= 3
# If empty, all sections except soak. `make bench ARGS=-h` lists the sections.
SECTIONS ?=

.PHONY: bench
bench: ## Measure on a real Kafka, and compare with Flink SQL (SECTIONS="throughput latency" ROUNDS=1 ARGS=-flink=false)
	$(GO) build -o dist/bench ./tests/bench
	./dist/bench -rounds $(ROUNDS) $(ARGS) $(SECTIONS)

# BENCH selects benchmarks, as in `go test -bench`. COUNT is how often each benchmark runs.
BENCH ?= .
COUNT ?= 1

.PHONY: bench-micro
bench-micro: ## Run the benchmarks of individual packages (BENCH=Apply COUNT=6)
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem -count $(COUNT) $(PKG)

OLD       ?= HEAD
BENCHSTAT := golang.org/x/perf/cmd/benchstat@v0.0.0-20260908200009-22c9c6c9d4da

# Runs of the old and the new code alternate, so that a busy minute affects both. Fewer than 6 runs are not significant, so COUNT=1 means 6.
.PHONY: bench-compare
bench-compare: ## Compare benchmarks with another commit, using benchstat (OLD=HEAD~1 COUNT=6 PKG=./shared/window)
	@set -e; dir=$$(mktemp -d); trap 'rm -rf "$$dir"' EXIT; trap 'exit 1' INT TERM; \
	mkdir "$$dir/code"; git archive --format=tar $(OLD) | tar -x -C "$$dir/code"; \
	bench() { $(GO) test -run '^$$' -bench '$(BENCH)' -benchmem $(PKG); }; \
	for i in $$(seq $(if $(filter 1,$(COUNT)),6,$(COUNT))); do \
		echo "round $$i" >&2; (cd "$$dir/code" && bench) >>"$$dir/old"; bench >>"$$dir/new"; \
	done; \
	$(GO) run $(BENCHSTAT) "$(OLD)=$$dir/old" "this=$$dir/new"

.PHONY: demo
demo: ## Run the demo: traffic with attackers, the alerts, and a check of each alert
	$(GO) run . demo

.PHONY: clean
clean: ## Remove build outputs
	rm -f spate *.test *.prof *.out
	rm -rf dist
