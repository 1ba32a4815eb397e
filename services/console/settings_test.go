package console

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// TestSettingsPage: docs/settings.md, and docs/kafka.md for what is of secured connections, have every setting with its variable, flag and default, and no
// variable that is not one.
func TestSettingsPage(t *testing.T) {
	page := read(t, "../../docs/settings.md")
	secured := read(t, "../../docs/kafka.md")
	rows := make(map[string]string) // of tables, by the variables in their first column
	for line := range strings.Lines(page) {
		if cells := strings.Split(line, "|"); len(cells) > 3 {
			for _, name := range regexp.MustCompile("`([A-Za-z_*]+)`").FindAllStringSubmatch(cells[1], -1) {
				rows[name[1]] = line
			}
		}
	}
	known := make(map[string]bool)
	for _, name := range secretVariables {
		known[name] = true
		if !strings.Contains(page+secured, name) {
			t.Errorf("%s is on no page", name)
		}
	}
	var p program
	parser, err := kong.New(&p, kong.Vars{"services": ""})
	if err != nil {
		t.Fatal(err)
	}
	_ = kong.Visit(parser.Model.Node, func(node kong.Visitable, next kong.Next) error {
		flag, ok := node.(*kong.Flag)
		if !ok || len(flag.Envs) == 0 {
			return next(nil)
		}
		for _, name := range flag.Envs {
			known[name] = true
		}
		name := flag.Envs[0]
		row, there := rows[name]
		switch {
		case flag.Group != nil && flag.Group.Key == "security" || strings.HasPrefix(name, "SPATE_HTTP_"):
			if !strings.Contains(page+secured, strings.TrimPrefix(name, "SPATE_SCHEMA_REGISTRY_TLS")) {
				t.Errorf("%s is on no page", name)
			}
		case !there && strings.HasPrefix(name, "SPATE_"):
			t.Errorf("docs/settings.md does not have %s (--%s)", name, flag.Name)
		case name == "AWS_REGION": // of every AWS SDK
		case !strings.Contains(row, "`--"+flag.Name+"`"):
			t.Errorf("docs/settings.md has %s without --%s: %s", name, flag.Name, row)
		case flag.Default != "" && flag.Default != "0" && !strings.Contains(row, "`"+strings.ReplaceAll(flag.Default, `\\N`, `\N`)+"`"):
			t.Errorf("docs/settings.md has %s without its default %s: %s", name, flag.Default, row)
		}
		return next(nil)
	})
	for name := range rows {
		if !known[name] && !strings.Contains(name, "*") && strings.HasPrefix(name, "SPATE_") {
			t.Errorf("docs/settings.md has %s, which is not a setting", name)
		}
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
