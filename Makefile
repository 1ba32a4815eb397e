# `make` or `make help` lists what there is. What a target's line says after ## is its help.

GO       ?= go
FUZZTIME ?= 60s
# Restrict with e.g. `make test PKG=./shared/window`.
PKG      ?= ./...
GOLANGCI ?= golangci-lint
# The configuration is made for this version.
GOLANGCI_VERSION := v2.15.0

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show this help
	@echo "Usage: make <target>"
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo "Variables: PKG=./... (test, test-race, lint, bench-micro), FUZZTIME=60s (for each fuzz target)"
	@echo "Tests:     SPATE_TEST_SHARED=DIR    reference data (default ../shared)"
	@echo "           SPATE_TEST_BROKERS=...   a real Kafka, host:port[,host:port...]"
	@echo "           SPATE_TEST_DATABASE_URL=.. a PostgreSQL to make databases in (default: one of its own)"
	@echo "           REQUIRE_INTEGRATION=1    fail where a test would be skipped for want of these"

.PHONY: build
build: ## Build ./spate
	CGO_ENABLED=0 $(GO) build -trimpath -o spate .

.PHONY: test
test: ## Run all tests (ARGS=-short leaves the long ones out)
	$(GO) test $(ARGS) $(PKG)

.PHONY: test-race
test-race: ## Run all tests with the race detector (needs a C compiler)
	$(GO) test -race $(ARGS) $(PKG)

# As `go test` has them in tests/chaos; SEED=0 is a new one.
DURATION ?= 60s
SEED     ?= 0
SEEDS    ?= 1
BROKER   ?= both

.PHONY: chaos
chaos: ## Random faults under load (DURATION=30m SEED=7 SEEDS=20 BROKER=kafka)
	$(GO) test ./tests/chaos -run '^TestChaos$$' -v -timeout 0 -duration $(DURATION) -seed $(SEED) -seeds $(SEEDS) -broker $(BROKER)

.PHONY: lint
lint: ## Check style and the import rule with golangci-lint
	@command -v $(GOLANGCI) >/dev/null || { \
		echo "$(GOLANGCI) is not installed: $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)"; exit 1; }
	$(GOLANGCI) run $(PKG)

.PHONY: fuzz
fuzz: ## Fuzz every decoder, FUZZTIME each
	@set -e; grep -rn '^func Fuzz' --include='*_test.go' . | sed -E 's/^(.*)\/[^/]+:[0-9]+:func (Fuzz[A-Za-z0-9_]*).*/\1 \2/' | sort | \
	while read -r dir name; do \
		echo "== $$dir $$name"; \
		$(GO) test "$$dir" -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME); \
	done

.PHONY: bench-micro
bench-micro: ## Run the benchmarks of the packages
	$(GO) test -run '^$$' -bench . -benchmem $(PKG)

.PHONY: demo
demo: ## Show it: traffic with attackers, alerts as they come, and how right they were
	$(GO) run . demo

.PHONY: clean
clean: ## Remove what was built
	rm -f spate *.test *.prof *.out
	rm -rf dist
