// Package postgrestest gives tests a real Postgres: the one that SPATE_TEST_DATABASE_URL names, whose user may create databases, or a
// private server from the programs that are installed on this machine. A test without either is skipped, or fails if
// REQUIRE_INTEGRATION=1. A package that uses it has
//
//	func TestMain(m *testing.M) { os.Exit(postgrestest.Main(m)) }
package postgrestest

import (
	"context"
	"crypto/rand"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"spate/shared/testskip"
)

const timeout = time.Minute

var shared struct {
	once   sync.Once
	server *Server
	err    error
}

// Main runs the tests, then ends the server that they shared.
func Main(m *testing.M) int {
	defer func() {
		if shared.server != nil {
			shared.server.remove()
		}
	}()
	return m.Run()
}

// URL returns the URL of an empty database, which is dropped when the test ends. The server is shared with other tests.
func URL(t testing.TB) string {
	t.Helper()
	base := os.Getenv("SPATE_TEST_DATABASE_URL")
	if base == "" {
		shared.once.Do(func() { shared.server, shared.err = start() })
		if shared.err != nil {
			missing(t, shared.err)
		}
		base = shared.server.URL
	}
	return database(t, base)
}

// missing ends a test for want of a server.
func missing(t testing.TB, err error) {
	t.Helper()
	testskip.Missing(t, "Postgres is missing: set SPATE_TEST_DATABASE_URL=postgres://..., or install it (Debian: postgresql): %v", err)
}

func database(t testing.TB, base string) string {
	t.Helper()
	u, err := url.Parse(base)
	if err != nil {
		t.Fatal("SPATE_TEST_DATABASE_URL is not a URL")
	}
	name := "spate_test_" + strings.ToLower(rand.Text()[:12])
	Exec(t, base, "CREATE DATABASE "+name+" TEMPLATE template0 ENCODING 'UTF8'")
	t.Cleanup(func() { Exec(t, base, "DROP DATABASE "+name+" WITH (FORCE)") })
	u.Path = "/" + name
	return u.String()
}

// Exec runs a statement on a connection of its own.
func Exec(t testing.TB, database, statement string, args ...any) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), timeout)
	defer cancel()
	conn, err := pgx.Connect(ctx, database)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	defer conn.Close(ctx) // the statement is what counts
	if _, err := conn.Exec(ctx, statement, args...); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}
