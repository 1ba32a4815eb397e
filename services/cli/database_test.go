package cli

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"spate/shared/ops"
)

// In every spelling that people use, a database is what they mean or refused by the setting's name, and its password is told to nobody.
func TestDatabaseURL(t *testing.T) {
	const secret = "s3cr3t"
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := dead.Addr().String()
	dead.Close() // the address is what is needed
	host, port, _ := net.SplitHostPort(at)
	const postgres, refused = "postgres://", ""
	for i, c := range []struct{ setting, name string }{
		{"postgres://u:s3cr3t@AT/db", postgres},
		{"postgresql://u:s3cr3t@AT/db", postgres},
		{"POSTGRES://u:s3cr3t@AT/db", postgres},
		{"PostgreSQL://u:s3cr3t@AT/db", postgres},
		{"  postgres://u:s3cr3t@AT/db", postgres},
		{"postgres://u:s3cr3t@AT/db \n", postgres},
		{"postgres://u:a:s3cr3t@AT/db", postgres},
		{"postgres://u:s3cr3t%40%2F%23%25@AT/db", postgres},
		{"postgres://u:s3cr3t@AT,AT/db", postgres},
		{"postgres://AT/db?user=u&password=s3cr3t", postgres},
		{"postgres://u:s3cr3t@AT/db?sslmode=disable", postgres},
		{"host=HOST port=PORT user=u password=s3cr3t dbname=db", postgres},
		{" host = HOST  port = PORT user=u password = s3cr3t dbname=db\t", postgres},
		{"password='a s3cr3t@/#%?:' host=HOST port=PORT user=u", postgres},
		{"dbname=db password=s3cr3t user=u port=PORT host=HOST,HOST connect_timeout=3", postgres},
		{"user=u@server password=s3cr3t host=HOST port=PORT", postgres},

		{"postgres://u:pa@s3cr3t@h/db", refused},
		{"postgres://u:pa/s3cr3t@h/db", refused},
		{"postgres://u:pa#s3cr3t@h/db", refused},
		{"postgres://u:pa?s3cr3t@h/db", refused},
		{"postgres://u:pa%s3cr3t@h/db", refused},
		{"postgres://u:pa s3cr3t@h/db", refused},
		{"postgres://u:12/s3cr3t@h/db", refused},
		{"postgres://u:s3cr3t@h:99999/db", refused},
		{"postgres://u:s3cr3t@h/db?sslmode=perhaps", refused},
		{"postgres://u:s3cr3t@h/db?connect_timeout=s3cr3t", refused},
		{"postgres://h;password=s3cr3t/db", refused},
		{"postgres:/u:s3cr3t@h/db", refused},
		{"postgres//u:s3cr3t@h/db", refused},
		{"postgres:u:s3cr3t@h/db", refused},
		{"postgresql:u:s3cr3t@h/db", refused},
		{"postgress://u:s3cr3t@h/db", refused},
		{"//u:s3cr3t@h/db", refused},
		{"u:s3cr3t@h/db", refused},
		{"u:s3cr3t@h:5432/db", refused},
		{"h:5432:db:u:s3cr3t", refused},
		{"u/s3cr3t@h", refused},
		{"'postgres://u:s3cr3t@h/db'", refused},
		{"\ufeffpostgres://u:s3cr3t@h/db", refused},
		{"mysql://u:s3cr3t@h/db", refused},
		{"s3cr3t://u@h/db", refused},
		{"u:s3cr3t@tcp(h:3306)/db", refused},
		{"jdbc:postgresql://h/db?user=u&password=s3cr3t", refused},
		{"Server=h;User Id=u;Password=s3cr3t;Database=db", refused},
		{"Host=h;Username=u;Password=s3cr3t;Database=db", refused},
		{"host=h;password=s3cr3t", refused},
		{"host=h password=my s3cr3t port=1", refused},
		{"host=h pasword=s3cr3t", refused},
		{"host=h Password=s3cr3t", refused},
		{"host=h port=s3cr3t", refused},
		{"host=h dbname=postgres://u:s3cr3t@h/db", refused},
		{"host=h user=u:s3cr3t", refused},
		{"host=h password='s3cr3t", refused},
		{"password=s3cr3t =", refused},
		{"-h h -W s3cr3t", refused},
		{"sqlite://u:s3cr3t@h/db", refused},
		{"SQLITE://u:s3cr3t@h/db", refused},
		{"sqlite:s3cr3t@h/db", refused},
		{"sqlite:///a.db?key=s3cr3t", refused},
		{"file:a.db?key=s3cr3t", refused},
		{"a.db?key=s3cr3t", refused},
		{"sqlite:///%zz?s3cr3t", refused},

		{"sqlite:///DIR/b.db", "/b.db"},
		{"SQLite:///DIR/b.db", "/b.db"},
		{"sqlite://./b.db", "/b.db"},
		{"b.db", "/b.db"},
		{" b.db ", "/b.db"},
		{"./b:c=@?.db", "/b:c=@?.db"},
		{"DIR/b c.db", "/b c.db"},
		{"", "/spate.db"},
		{" ", "/spate.db"},
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			bare(t)
			t.Log(c.setting)
			dir := t.TempDir()
			t.Chdir(dir)
			setting := strings.NewReplacer("AT", at, "HOST", host, "PORT", port, "/DIR", dir, "DIR", dir).Replace(c.setting)
			quiet := func(what, text string) {
				t.Helper()
				if strings.Contains(text, secret) {
					t.Errorf("%s: it tells the password: %s", what, text)
				}
			}
			quiet("format", fmt.Sprintf("%v %q %#v %d", databaseURL(setting), databaseURL(setting), databaseFlags{databaseURL(setting)}, databaseURL(setting)))

			f := databaseFlags{databaseURL(strings.TrimSpace(setting))}
			db, err := f.database(dir)
			quiet("name", db.name)
			switch {
			case c.name == refused:
				if err == nil {
					t.Errorf("it is taken for %s", db.name)
				} else if !strings.Contains(err.Error(), "SPATE_DATABASE_URL, --database-url") {
					t.Errorf("the error names no setting: %v", err)
				} else if !strings.Contains(err.Error(), "sqlite://") && !strings.Contains(err.Error(), "postgres://user:password@") && !strings.Contains(err.Error(), "not usable: ") {
					t.Errorf("the error names no form: %v", err)
				}
			case err != nil:
				t.Error(err)
			case c.name == postgres && !strings.HasPrefix(db.name, postgres):
				t.Errorf("it is taken for the file %s", db.name)
			case c.name != postgres && !strings.HasSuffix(db.name, c.name):
				t.Errorf("it is taken for %s", db.name)
			}
			if err != nil {
				quiet("error", err.Error())
			}

			commands := [][]string{{"migrate", "status"}, {"migrate", "up"}, {"alerts", "ls"}, {"deliveries", "ls"}, {"up", "--listen", "127.0.0.1:0"}}
			if c.name != refused {
				commands = commands[:2] // the others wait for a server, or run on
			}
			ways := []string{"flag", "word", "environment"}
			if testing.Short() { // each command is tried in each way, and not with each setting
				ways, commands = ways[i%3:][:1], commands[i%len(commands):][:1]
			}
			for _, args := range commands {
				for _, way := range ways {
					args := append(args, "--state", dir)
					switch way {
					case "flag":
						args = append(args, "--database-url="+setting)
					case "word":
						args = append(args, "--database-url", setting)
					case "environment":
						t.Setenv("SPATE_DATABASE_URL", setting)
					}
					_, out, errs := spate(args...)
					os.Unsetenv("SPATE_DATABASE_URL")
					quiet(strings.Join(args[:2], " ")+" by "+way, out+errs)
				}
			}
			t.Setenv("SPATE_DATABASE_URL", setting)
			if !testing.Short() || i%7 == 0 {
				_, out, errs := spate("up", "--help")
				quiet("help", out+errs)
			}
			_, out, errs := spate("migrate", "status", setting)
			quiet("where no argument is", out+errs)
			_, out, errs = spate(append([]string{"migrate", "status", "--database-url"}, strings.Fields(setting)...)...)
			quiet("without quotes", out+errs)
			err = filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
				quiet("files", path)
				if c.name == refused && path != dir {
					t.Errorf("there is a file %s", path)
				}
				return err
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// While it waits for a server, a service tells its log and its pages which, without the password.
func TestWaitingForADatabaseHidesThePassword(t *testing.T) {
	bare(t)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	var log bytes.Buffer
	e := &env{ctx: ctx, stdout: &log, stderr: &log, level: "debug"}
	db, err := databaseFlags{"host=127.0.0.1 port=1 user=u password=s3cr3t"}.database(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.openWhenReady(ctx, e.logger(0), nil)
	if text := log.String() + fmt.Sprint(err); !strings.Contains(text, "connection refused") || strings.Contains(text, "s3cr3t") {
		t.Error(text)
	}
}

// TestWaitsForALockedFile: another alerter is making the database, and holds the lock for longer than SQLite waits, as on a machine that is busy.
func TestWaitsForALockedFile(t *testing.T) {
	bare(t)
	path := filepath.Join(t.TempDir(), "a.db")
	other, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	other.SetMaxOpenConns(1)
	if _, err := other.Exec("BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	e := &env{ctx: t.Context(), stdout: io.Discard, stderr: io.Discard, level: "info"}
	db, err := databaseFlags{databaseURL(path)}.database(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var status ops.Status
	done := make(chan error, 1)
	go func() {
		st, err := db.openWhenReady(t.Context(), e.logger(0), &status)
		if err == nil {
			err = st.Close()
		}
		done <- err
	}()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for _, why := status.Get(); !strings.Contains(why, "locked by another process"); _, why = status.Get() {
		select {
		case <-tick.C:
		case err := <-done:
			t.Fatalf("it did not wait: %v", err)
		}
	}
	if _, err := other.Exec("ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
