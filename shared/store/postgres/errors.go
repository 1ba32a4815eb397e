package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"

	schema "spate/sql"
)

// translate says what an error of the driver means for whoever runs the program. It names the database, without the password, which the
// driver's errors do not have either; the original is wrapped. ctx is the caller's: if it has ended, that is the cause.
func (s *Store) translate(ctx context.Context, err error) error {
	if ended := ctx.Err(); ended != nil {
		if errors.Is(err, ended) {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		return fmt.Errorf("%s: %w: %w", s.name, ended, err)
	}
	var connect *pgconn.ConnectError
	if errors.As(err, &connect) {
		return unreachable{fmt.Sprintf("%s %s; check that the server is running and that SPATE_DATABASE_URL (--database-url) is correct", s.name, why(err)), err}
	}
	return fmt.Errorf("%s %s: %w", s.name, meaning(err), err)
}

// unreachable explains in one line why the connection failed: the driver's error has a line for every address that was tried, even if all say the same.
type unreachable struct {
	text  string
	cause error
}

func (u unreachable) Error() string { return u.text }

// Unwrap returns the driver's error.
func (u unreachable) Unwrap() error { return u.cause }

// why is the meaning of an error of connecting, and, if it does not say it all, what the driver says, each thing once.
func why(err error) string {
	text := meaning(err)
	var dns *net.DNSError
	if errors.As(err, &dns) || errors.Is(err, syscall.ECONNREFUSED) {
		return text
	}
	var causes []string
	for line := range strings.Lines(err.Error()) {
		line = strings.TrimSpace(line)
		if line != "" && !slices.Contains(causes, line) {
			causes = append(causes, line)
		}
	}
	return text + ": " + strings.Join(causes, " ")
}

func meaning(err error) string {
	var server *pgconn.PgError
	if errors.As(err, &server) {
		return meaningOf(server.Code)
	}
	var dns *net.DNSError
	var connect *pgconn.ConnectError
	var network net.Error
	switch {
	case errors.Is(err, schema.ErrNewer), errors.Is(err, errEncoding):
		return "cannot be used"
	case errors.As(err, &dns):
		return "cannot be found: its host name cannot be resolved"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "is not running: connection refused"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &network) && network.Timeout():
		return "did not respond in time"
	case errors.As(err, &connect):
		return "is unreachable"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed), errors.Is(err, pgconn.ErrConnClosed),
		errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "closed the connection"
	}
	return "failed"
}

// meaningOf is for codes of the server, https://www.postgresql.org/docs/current/errcodes-appendix.html.
func meaningOf(code string) string {
	switch code {
	case "28P01", "28000":
		return "refuses the login: the user or the password is wrong, or the server does not allow it from this host"
	case "42P05", "26000":
		return "is behind a pooler that does not support prepared statements, such as PgBouncer in transaction mode: add default_query_exec_mode=exec to its URL"
	case "3D000":
		return "does not exist: create it"
	case "3F000":
		return "has no schema to create tables in: create one, or fix search_path"
	case "42501":
		return "denies access: the user lacks a privilege"
	case "42P01", "42703":
		return "does not have the expected tables: see spate migrate status"
	case "53100":
		return "cannot be written to: the disk is full"
	case "53200":
		return "is out of memory"
	case "53300":
		return "has too many connections: raise max_connections, or lower pool_max_conns in the URL"
	case "25006":
		return "is read-only: it is a standby, or configured as read-only"
	case "57P01", "57P02", "57P05":
		return "closed the connection: it is restarting or failing over, or an administrator or idle_session_timeout ended the session"
	case "57P03":
		return "is starting up or shutting down"
	case "57014":
		return "canceled the statement: it took too long, or an administrator canceled it"
	case "40001", "40P01", "55P03":
		return "rolled back the transaction because of a concurrent one"
	}
	if strings.HasPrefix(code, "08") {
		return "closed the connection"
	}
	return "failed"
}

// refused reports whether a row, and not the database, is the cause: its data (22), a constraint (23) or a limit (54).
func refused(err error) bool {
	var e *pgconn.PgError
	if !errors.As(err, &e) || len(e.Code) != 5 {
		return false
	}
	switch e.Code[:2] {
	case "22", "23", "54":
		return true
	}
	return false
}

// Temporary reports whether the database of an error of Open may take the same later: nobody has to mend the setting or the program first.
func Temporary(err error) bool {
	return !errors.Is(err, schema.ErrNewer) && !errors.Is(err, errEncoding)
}
