package cli

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"spate/services/detector"
	"spate/services/receiver"
	"spate/shared/alert"
	"spate/shared/notify"
	"spate/shared/store"
)

// evil renames the window, clears the screen, forges a line, and turns what follows around: by C0, DEL, C1, bidi controls and broken UTF-8.
const evil = "\x1b]0;PWNED\x07\x1b[2J\nCRITICAL forged\r\b\x7f\u0085\u009b31m\u202e\u2066\xff\xc0"

// harmless fails if a text steers a terminal, or has lines that begin as evil's do.
func harmless(t *testing.T, what, text string) {
	t.Helper()
	if !utf8.ValidString(text) {
		t.Errorf("%s: is not UTF-8: %q", what, text)
	}
	if i := strings.IndexFunc(text, func(r rune) bool {
		return r != '\n' && r != '\t' && (unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r))
	}); i >= 0 {
		t.Errorf("%s: steers the terminal at %d: %q", what, i, text)
	}
}

// oneLine fails if a text has a line that evil forged.
func oneLine(t *testing.T, what, text string) {
	t.Helper()
	if strings.Contains("\n"+text, "\nCRITICAL forged") {
		t.Errorf("%s: a line is forged: %q", what, text)
	}
}

// Every command that shows what others wrote shows it escaped.
func TestNothingSteersTheTerminal(t *testing.T) {
	b := newBench(t)
	user, err := json.Marshal("u" + evil)
	if err != nil {
		t.Fatal(err)
	}
	// In JSON, C1 and bidi controls need no escape.
	r := record(strings.NewReplacer(`\u007f`, "\x7f").Replace(string(user)), 0, alert.Opened)
	text := strings.ToValidUTF8(evil, "") // databases keep nothing else
	r.Evidence = alert.Evidence{Topic: "t" + text, Partitions: map[string]alert.OffsetRange{"0": {}, "p" + text: {}}}
	id := r.ID + "_opened"
	ops := notify.Endpoint{Name: "ops", Filter: notify.Alerts()}
	b.apply(heard, []alert.Record{r}, ops)
	b.try(store.Try{WebhookID: id, Endpoint: "ops", At: heard, Outcome: notify.Exhausted, Reason: "it says " + evil})

	// Nothing listens there: the events are not read.
	args := func(text string) []string { return append(strings.Fields(text), "--brokers", "127.0.0.1:1") }
	for _, c := range []struct {
		code int
		args []string
	}{
		{ExitOK, []string{"alerts", "ls"}},
		{ExitOK, []string{"alerts", "ls", "--json"}},
		{ExitOK, args("alerts show " + r.ID)},
		{ExitOK, args("alerts show --json " + r.ID)},
		{ExitFailed, []string{"alerts", "show", evil}},
		{ExitUsage, []string{"alerts", "ls", "--since", evil}},
		{ExitUsage, []string{"alerts", "ls", "--only", evil}},
		{ExitUsage, []string{"alerts", "ls", evil}},
		{ExitUsage, []string{"alerts", "ls", "--" + evil}},
		{ExitOK, []string{"deliveries", "ls"}},
		{ExitOK, []string{"deliveries", "ls", "--json"}},
		{ExitOK, []string{"deliveries", "show", id}},
		{ExitOK, []string{"deliveries", "show", id, "--json"}},
		{ExitFailed, []string{"deliveries", "show", evil, "--endpoint", evil}},
		{ExitFailed, []string{"deliveries", "resend", evil}},
		{ExitOK, []string{"deliveries", "resend", id}},
		{ExitOK, []string{"endpoints", "disable", "ops", "--reason", evil}},
		{ExitOK, []string{"endpoints", "ls"}},
		{ExitOK, []string{"endpoints", "ls", "--json"}},
		{ExitOK, []string{"endpoints", "enable", "ops"}},
		{ExitFailed, []string{"endpoints", "disable", evil}},
		{ExitUsage, []string{"endpoints", "ls", "--endpoints", file(t, "endpoints:\n  - name: "+evil+"\n")}},
		{ExitUsage, []string{"endpoints", "ls", "--endpoints", file(t, "endpoints:\n  - name: \"\\x1b[2J\\u202e\"\n    \"\\x1b\": 1\n")}},
	} {
		stdout, stderr := b.run(c.code, c.args...)
		harmless(t, strings.Join(c.args[:2], " "), stdout+stderr)
		oneLine(t, strings.Join(c.args[:2], " "), stdout)
	}

	for _, c := range []struct {
		code int
		args []string
	}{
		{ExitUsage, []string{"replay", evil, "-q"}},
		{ExitUsage, []string{"verify", evil, "-q"}},
		{ExitUsage, []string{"simulate", evil, "-q", "--brokers", "127.0.0.1:1"}},
		{ExitUsage, []string{"health", evil}},
		{ExitUsage, []string{"user", evil, "--brokers", evil}},
		{ExitUsage, []string{"up", "--topic", evil}},
		{ExitUsage, []string{"alerts", "ls", "--database-url", "sqlite://" + evil}},
		{ExitUsage, []string{evil}},
		{ExitUsage, []string{"alerts", "ls", "--mode", evil}},
		{ExitUsage, []string{"alerts", "ls", "--log-level", evil}},
	} {
		code, stdout, stderr := spate(c.args...)
		if code != c.code {
			t.Errorf("%q: exit code %d: %s", c.args, code, stderr)
		}
		harmless(t, c.args[0], stdout+stderr)
	}
}

func TestNothingInAFileSteersTheTerminal(t *testing.T) {
	bare(t)
	var csv strings.Builder
	csv.WriteString("event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session\n")
	for range 7 {
		csv.WriteString("2019-11-01 00:00:00 UTC,view,1,2,,b,1.0,\"u" + evil + "\",s\n")
	}
	path := filepath.Join(t.TempDir(), "a\x1b[2J.csv")
	if err := os.WriteFile(path, []byte(csv.String()+"\"x"+evil+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"replay", path}, {"replay", path, "--json"}, {"replay", path, "--alerts", "-"}, {"verify", path}, {"simulate", path, "--out", filepath.Join(t.TempDir(), "a.jsonl")}} {
		code, stdout, stderr := spate(args...)
		if code != ExitOK {
			t.Errorf("%v: exit code %d: %s", args, code, stderr)
		}
		harmless(t, args[0], stdout+stderr)
		oneLine(t, args[0], stdout)
	}
}

func TestNothingThatComesInSteersTheTerminal(t *testing.T) {
	r := record(`"u\u001b[2J`+"\u009b\u202e"+`"`, 0, alert.Opened)
	r.ID, r.Severity, r.State = evil, evil, evil
	u := detector.Key{Token: json.RawMessage(`"` + evil), Windows: []detector.KeyWindow{{AlertID: evil, Rule: evil, Columns: json.RawMessage(evil), Key: json.RawMessage(evil)}}}
	call := receiver.Call{Verified: true, WebhookID: evil, Type: evil, Timestamp: evil, Data: json.RawMessage(`{"user_id":"` + "\u009b\u202e" + `"}`)}
	told := call
	told.Type, told.Data = notify.TypeOpened, json.RawMessage(`{"user_id":"`+"\\u001b\u009b\u202e"+`","severity":"\u001b"}`)
	for _, asJSON := range []bool{false, true} {
		var b strings.Builder
		v := newView(&b, asJSON)
		v.alert(r)
		if err := v.close(); err != nil {
			t.Error(err)
		}
		p := &callPrinter{w: &b, json: asJSON}
		p.print(call)
		p.print(told)
		p.print(receiver.Call{Reason: evil, Remote: evil, At: time.Now()})
		if !asJSON { // it is not valid JSON
			if err := printKey(&b, "key", u, true); err != nil {
				t.Fatal(err)
			}
		}
		harmless(t, "", b.String())
		oneLine(t, "", b.String())
	}
}

// Package terminal escapes what is printed; nothing goes past it.
func TestAllIsPrintedThroughTerminal(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		set := token.NewFileSet()
		f, err := parser.ParseFile(set, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			sel, ok := call.Fun.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			pkg, ok := sel.X.(*ast.Ident)
			if !ok {
				return true
			}
			to, _ := first(call.Args).(*ast.CallExpr)
			switch {
			case pkg.Name == "fmt" && strings.HasPrefix(sel.Sel.Name, "Fprint"):
				t.Errorf("%s: fmt.%s; print with package terminal", set.Position(call.Pos()), sel.Sel.Name)
			case pkg.Name == "json" && sel.Sel.Name == "NewEncoder" && to == nil:
				t.Errorf("%s: json.NewEncoder; give it a terminal.JSONWriter", set.Position(call.Pos()))
			}
			return true
		})
	}
}

func first(args []ast.Expr) ast.Expr {
	if len(args) == 0 {
		return nil
	}
	return args[0]
}
