package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	connectTimeout = 5 * time.Second // unless the URL has connect_timeout
	applyTimeout   = 30 * time.Second
	// cancelTimeout is how long the end of a context waits for the server to confirm it.
	cancelTimeout = 2 * time.Second

	// connections is how many there are at most, unless the URL has pool_max_conns: an Apply, and deliveries.
	connections = 8
	// queueConnections is how many more there are while deliveries are worked off, and there is one on top that listens.
	queueConnections = 4
	// poll is how often the queue looks for due deliveries; of new ones the database tells it.
	poll = time.Second
)

// Forms are the settings that name a Postgres database.
const Forms = "postgres://user:password@host:port/database, where any of % / ? # @ : in the user or the password is percent-encoded, as in %23; " +
	"or host=... port=... user=... password=... dbname=..., where a value with a space or a quote is in single quotes"

var (
	urlForm     = regexp.MustCompile(`(?i)^postgres(ql)?://`)
	keywordForm = regexp.MustCompile(`^\w+\s*=`)
)

// Is reports whether a setting has a form that names a Postgres database: a URL, or keywords and values.
func Is(setting string) bool {
	setting = strings.TrimSpace(setting)
	return urlForm.MatchString(setting) || keywordForm.MatchString(setting)
}

// Name returns what a setting names, without what is secret in it.
func Name(setting string) (string, error) {
	cfg, err := parse(setting)
	if err != nil {
		return "", err
	}
	return name(cfg), nil
}

func name(cfg *pgxpool.Config) string {
	c := cfg.ConnConfig
	hosts := []string{net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port)))}
	for _, f := range c.Fallbacks { // other hosts, and the same without TLS
		if h := net.JoinHostPort(f.Host, strconv.Itoa(int(f.Port))); !slices.Contains(hosts, h) {
			hosts = append(hosts, h)
		}
	}
	u := url.URL{Scheme: "postgres", User: url.User(c.User), Host: strings.Join(hosts, ","), Path: "/" + c.Database}
	return u.String()
}

var (
	// quoted is what the driver's complaints quote of a setting.
	quoted = regexp.MustCompile(`"[^"]*"`)
	// A host, database or user like these is a setting that was cut in the wrong place, or another program's: a piece of a password.
	oddName = regexp.MustCompile(`[@;=]|://`)
	oddUser = regexp.MustCompile(`[;=:]`)
	// What is left after the driver took its parameters goes to the server, which writes it into its log if it does not know it.
	parameter    = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.]*$`)
	oddParameter = regexp.MustCompile(`(?i)pas+w|passphrase|pwd|secret|^(host|server|port|user|uid|username|database|dbname|data_source)$`)
)

// parse reads a setting. Its errors have nothing of it: where one is cut in the wrong place, any part may be a piece of the password.
func parse(setting string) (*pgxpool.Config, error) {
	setting = strings.TrimSpace(setting)
	if scheme := urlForm.FindString(setting); scheme != "" {
		setting = strings.ToLower(scheme) + setting[len(scheme):]
		// The driver takes the first @ for the end of the password; others take the last.
		if u, err := url.Parse(setting); err != nil || u.Fragment != "" || strings.Count(setting, "@") > 1 || strings.ContainsRune(u.Path+u.RawQuery, '@') {
			return nil, errors.New("not a Postgres URL: expected " + Forms)
		}
	} else if !keywordForm.MatchString(setting) {
		return nil, errors.New("not a Postgres database: expected " + Forms)
	}
	cfg, err := pgxpool.ParseConfig(setting)
	if err != nil {
		text := err.Error()
		if at := strings.LastIndex(text, "`: "); at >= 0 { // it begins with the setting
			text = quoted.ReplaceAllString(text[at+len("`: "):], "...")
		} else {
			text = Forms
		}
		return nil, fmt.Errorf("the Postgres settings are not usable: %s", text)
	}
	c := cfg.ConnConfig
	odd := oddUser.MatchString(c.User) || oddName.MatchString(c.Database) || oddName.MatchString(c.Host)
	for _, f := range c.Fallbacks {
		odd = odd || oddName.MatchString(f.Host)
	}
	for key := range c.RuntimeParams {
		odd = odd || !parameter.MatchString(key) || oddParameter.MatchString(key)
	}
	if odd {
		return nil, errors.New("not a Postgres database: a host, user, database or parameter is invalid: expected " + Forms)
	}
	has := func(key string) bool { return regexp.MustCompile(`[\s?&]` + key + `\s*=`).MatchString(" " + setting) }
	if c.ConnectTimeout <= 0 || !has("connect_timeout") {
		c.ConnectTimeout = connectTimeout
	}
	if c.RuntimeParams["application_name"] == "" {
		c.RuntimeParams["application_name"] = "spate"
	}
	c.BuildContextWatcherHandler = func(conn *pgconn.PgConn) ctxwatch.Handler {
		return &pgconn.CancelRequestContextWatcherHandler{Conn: conn, DeadlineDelay: cancelTimeout}
	}
	cfg.PingTimeout = connectTimeout
	if !has("pool_max_conns") {
		cfg.MaxConns = connections
	}
	return cfg, nil
}

// forQueue returns the configuration of the connections that the queue has of its own. One of them waits for notifications, which the queue
// breaks off when it wants to listen to something else: to have that confirmed by a server that does nothing would take cancelTimeout
// each time, two of them before the first delivery.
func forQueue(cfg *pgxpool.Config) *pgxpool.Config {
	cfg.MaxConns = min(cfg.MaxConns, queueConnections)
	cfg.MinConns, cfg.MinIdleConns = 0, 0
	cfg.ConnConfig.BuildContextWatcherHandler = func(conn *pgconn.PgConn) ctxwatch.Handler {
		return &pgconn.DeadlineContextWatcherHandler{Conn: conn.Conn()}
	}
	return cfg
}

// cutter can cut connections: a server that is silent is not waited for when they are closed.
type cutter struct {
	dial pgconn.DialFunc

	mu   sync.Mutex
	open map[net.Conn]struct{}
	over bool
}

// Dial is a pgconn.DialFunc.
func (c *cutter) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := c.dial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return nil, errors.Join(net.ErrClosed, conn.Close())
	}
	if c.open == nil {
		c.open = make(map[net.Conn]struct{})
	}
	c.open[conn] = struct{}{}
	return cuttable{Conn: conn, of: c}, nil
}

// cut closes what is open, and lets nothing be opened any more.
func (c *cutter) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
	for conn := range c.open {
		_ = conn.Close() // whoever uses it finds out
	}
}

type cuttable struct {
	net.Conn
	of *cutter
}

// Close implements net.Conn.
func (c cuttable) Close() error {
	c.of.mu.Lock()
	delete(c.of.open, c.Conn)
	c.of.mu.Unlock()
	return c.Conn.Close()
}
