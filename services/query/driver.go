package query

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"modernc.org/libc"
	"modernc.org/sqlite"
	"modernc.org/sqlite/vtab"

	sqlite3 "modernc.org/sqlite/lib"
)

// The driver keeps what is registered with it for ever, so there is one for all databases. A table's arguments say whose it is.
const module = "spate_query"

var (
	register sync.Once
	engine   sqlite.Driver

	sessions sync.Map // *DB by number
	numbers  atomic.Int64
)

// functions are those beside SQLite's own.
var functions = []struct {
	name string
	args int32
	call func(args []driver.Value) (driver.Value, error)
}{
	{"tumble_start", 2, func(a []driver.Value) (driver.Value, error) { return tumble("tumble_start", false, a) }},
	{"tumble_start", 3, func(a []driver.Value) (driver.Value, error) { return tumble("tumble_start", false, a) }},
	{"tumble_end", 2, func(a []driver.Value) (driver.Value, error) { return tumble("tumble_end", true, a) }},
	{"tumble_end", 3, func(a []driver.Value) (driver.Value, error) { return tumble("tumble_end", true, a) }},
	{"time_add", 2, timeAdd},
	{"to_epoch_ms", 1, func(a []driver.Value) (driver.Value, error) {
		ms, known, err := instant("to_epoch_ms", a[0])
		if err != nil || !known {
			return nil, err
		}
		return ms, nil
	}},
	{"from_epoch_ms", 1, func(a []driver.Value) (driver.Value, error) {
		ms, known, err := instant("from_epoch_ms", a[0])
		if err != nil || !known {
			return nil, err
		}
		return timeText(ms), nil
	}},
}

func ourFunctions() (names []string) {
	for _, f := range functions {
		if !slices.Contains(names, f.name) {
			names = append(names, f.name)
		}
	}
	return names
}

// dispatch is the one implementation of a function under a name: the driver knows one for each name.
func dispatch(name string) *sqlite.FunctionImpl {
	return &sqlite.FunctionImpl{NArgs: -1, Deterministic: true, Scalar: func(_ *sqlite.FunctionContext, args []driver.Value) (driver.Value, error) {
		var takes []string
		for _, f := range functions {
			if f.name != name {
				continue
			}
			if int(f.args) == len(args) {
				return f.call(args)
			}
			takes = append(takes, strconv.Itoa(int(f.args)))
		}
		return nil, fmt.Errorf("%s: wrong number of arguments; it takes %s", name, strings.Join(takes, " or "))
	}}
}

// connector opens the databases: one connection each.
type connector struct{}

func (connector) Connect(context.Context) (driver.Conn, error) { return engine.Open(":memory:") }
func (connector) Driver() driver.Driver                        { return &engine }

// connect opens a connection with the tables of db, which can read them and do nothing else.
func (db *DB) connect(ctx context.Context) (err error) {
	register.Do(func() {
		for _, name := range ourFunctions() {
			engine.MustRegisterFunction(name, dispatch(name))
		}
		_ = engine.RegisterModule(module, modules{}) // its name is new
	})
	db.number = numbers.Add(1)
	sessions.Store(db.number, db)
	db.sql = sql.OpenDB(connector{})
	db.sql.SetMaxOpenConns(1)
	defer func() {
		if err != nil {
			_ = db.Close()
		}
	}()
	if db.conn, err = db.sql.Conn(ctx); err != nil {
		return fmt.Errorf("open SQLite: %w", err)
	}
	// Sorts and groups that exceed the cache go to temporary files.
	for _, statement := range []string{"PRAGMA temp_store = FILE", fmt.Sprintf("PRAGMA cache_size = -%d", cacheKiB)} {
		if _, err = db.conn.ExecContext(ctx, statement); err != nil {
			return fmt.Errorf("set up SQLite: %w", err)
		}
	}
	for i, t := range db.tables {
		if _, err = db.conn.ExecContext(ctx, fmt.Sprintf("CREATE VIRTUAL TABLE %s USING %s(%d, %d)", quote(t.Name), module, db.number, i)); err != nil {
			return fmt.Errorf("create table %s: %w", t.Name, err)
		}
	}
	for limit, most := range map[int]int{sqlite3.SQLITE_LIMIT_LENGTH: maxValue, sqlite3.SQLITE_LIMIT_SQL_LENGTH: maxStatement, sqlite3.SQLITE_LIMIT_ATTACHED: 0, sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 200} {
		if _, err = sqlite.Limit(db.conn, limit, most); err != nil {
			return fmt.Errorf("set up SQLite: %w", err)
		}
	}
	return db.conn.Raw(func(c any) error {
		handle := reflect.ValueOf(c).Elem().FieldByName("db")
		if handle.Kind() != reflect.Uintptr || handle.Uint() == 0 {
			return fmt.Errorf("set up SQLite: the SQLite driver has changed, so its statements cannot be interrupted")
		}
		db.handle = uintptr(handle.Uint())
		return c.(sqlite.AuthorizerRegisterer).RegisterAuthorizer(db.authorize)
	})
}

const (
	cacheKiB     = 64 << 10
	maxValue     = 64 << 20 // bytes of a value: a batch of records has no more by default
	maxStatement = 1 << 20  // bytes
)

// interrupt ends the statement that is running. The driver does so only until its first row.
func (db *DB) interrupt() {
	tls := libc.NewTLS() // the connection's belongs to the goroutine that runs the statement
	defer tls.Close()
	sqlite3.Xsqlite3_interrupt(tls, db.handle)
}

// errorOffset is where the last statement has an error; -1 if SQLite does not say.
func (db *DB) errorOffset() int {
	tls := libc.NewTLS()
	defer tls.Close()
	return int(sqlite3.Xsqlite3_error_offset(tls, db.handle))
}

func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// authorize lets statements read the tables of db and the functions of JSON, and do nothing else.
func (db *DB) authorize(action sqlite.AuthorizerActionCode, arg1, arg2, _, _ string) sqlite.AuthorizerReturnCode {
	switch action {
	case sqlite.AuthSelect, sqlite.AuthRecursive:
		return sqlite.AuthorizerOK
	case sqlite.AuthFunction:
		if !strings.EqualFold(arg2, "load_extension") && !strings.EqualFold(arg2, "fts3_tokenizer") {
			return sqlite.AuthorizerOK
		}
	case sqlite.AuthRead:
		derived := arg2 == "" && !strings.HasPrefix(arg1, "sqlite_") && !strings.HasPrefix(arg1, "pragma_") // such as COUNT(*) of a name that WITH has given
		if arg1 == "" || derived || slices.Contains([]string{"json_each", "json_tree"}, arg1) || slices.ContainsFunc(db.tables, func(t *source) bool { return t.Name == arg1 }) {
			return sqlite.AuthorizerOK
		}
	}
	return sqlite.AuthorizerDeny
}

// modules finds the table that an argument names.
type modules struct{}

func (modules) Create(ctx vtab.Context, args []string) (vtab.Table, error) { return find(ctx, args) }

func (modules) Connect(ctx vtab.Context, args []string) (vtab.Table, error) { return find(ctx, args) }

func find(ctx vtab.Context, args []string) (vtab.Table, error) {
	if len(args) != 5 {
		return nil, fmt.Errorf("module %s has the wrong number of arguments: %d", module, len(args))
	}
	number, err := strconv.ParseInt(args[3], 10, 64)
	if err != nil {
		return nil, err
	}
	i, err := strconv.Atoi(args[4])
	if err != nil {
		return nil, err
	}
	of, ok := sessions.Load(number)
	if !ok || i < 0 || i >= len(of.(*DB).tables) {
		return nil, fmt.Errorf("there is no table %s in session %s", args[4], args[3])
	}
	t := of.(*DB).tables[i]
	columns := make([]string, len(t.Columns))
	for i, c := range t.Columns {
		columns[i] = quote(c.Name) + " " + affinities[c.Type]
	}
	return t, ctx.Declare("CREATE TABLE t(" + strings.Join(columns, ", ") + ")")
}
