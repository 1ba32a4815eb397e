package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
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

// IsURL tells whether a setting names a Postgres database: postgres://user:password@host:port/database?parameter=value, or postgresql://.
func IsURL(setting string) bool {
	return strings.HasPrefix(setting, "postgres://") || strings.HasPrefix(setting, "postgresql://")
}

// Name returns what a URL names, without what is secret in it.
func Name(setting string) (string, error) {
	cfg, err := parse(setting)
	if err != nil {
		return "", err
	}
	return name(cfg), nil
}

func name(cfg *pgxpool.Config) string {
	c := cfg.ConnConfig
	u := url.URL{Scheme: "postgres", User: url.User(c.User), Host: net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port))), Path: "/" + c.Database}
	return u.String()
}

// parse reads a URL. Its errors have nothing of it but the names of parameters and their values, those of passwords excepted: where a
// URL is cut in the wrong place, any other part may be a piece of the password.
func parse(setting string) (*pgxpool.Config, error) {
	u, err := url.Parse(setting)
	if err != nil || !IsURL(setting) || u.Fragment != "" || strings.ContainsRune(u.Path+u.RawQuery, '@') {
		return nil, errors.New("it is no Postgres URL: postgres://user:password@host:port/database, where any of % / ? # @ : in the user or the password is percent-encoded, as in %23")
	}
	// The driver's errors hide passwords as far as they recognise them. It gets none to hide.
	public := *u
	if u.User != nil {
		public.User = url.User(u.User.Username())
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, errors.New("the parameters of the Postgres URL are not URL-encoded")
	}
	for key := range query {
		if strings.Contains(key, "password") {
			query.Del(key)
		}
	}
	public.RawQuery = query.Encode()
	if _, err := pgxpool.ParseConfig(public.String()); err != nil {
		text := err.Error()
		if p := (*pgconn.ParseConfigError)(nil); errors.As(err, &p) {
			_, text, _ = strings.Cut(text, "`: ")
		}
		return nil, fmt.Errorf("the Postgres URL is not usable: %s", text)
	}
	cfg, err := pgxpool.ParseConfig(setting)
	if err != nil {
		return nil, errors.New("the password of the Postgres URL is not usable")
	}
	c := cfg.ConnConfig
	if c.ConnectTimeout <= 0 || !query.Has("connect_timeout") {
		c.ConnectTimeout = connectTimeout
	}
	if c.RuntimeParams["application_name"] == "" {
		c.RuntimeParams["application_name"] = "spate"
	}
	c.BuildContextWatcherHandler = func(conn *pgconn.PgConn) ctxwatch.Handler {
		return &pgconn.CancelRequestContextWatcherHandler{Conn: conn, DeadlineDelay: cancelTimeout}
	}
	cfg.PingTimeout = connectTimeout
	if !query.Has("pool_max_conns") {
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
