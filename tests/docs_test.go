package tests

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestLinks: every link between the Markdown files of the repository leads to a file that is there, and to a heading that it has.
func TestLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	links := 0
	for _, file := range markdown(t) {
		for _, m := range link.FindAllStringSubmatch(withoutCode(readText(t, file)), -1) {
			target, anchor, hasAnchor := strings.Cut(m[1], "#")
			if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
				continue
			}
			links++
			to := file
			if target != "" {
				to = filepath.Join(filepath.Dir(file), filepath.FromSlash(target))
			}
			if _, err := os.Stat(to); err != nil {
				t.Errorf("%s: link to %s: %v", file, m[1], err)
				continue
			}
			if hasAnchor && !slices.Contains(anchors(readText(t, to)), anchor) {
				t.Errorf("%s: link to %s: %s has no such heading", file, m[1], to)
			}
		}
	}
	if links < 50 {
		t.Errorf("found %d links: the test looks at the wrong files", links)
	}
}

// TestReadmeIsShort: the README has 160 lines at most; what is more belongs to docs.
func TestReadmeIsShort(t *testing.T) {
	if n := strings.Count(readText(t, filepath.Join("..", "README.md")), "\n"); n > 160 {
		t.Errorf("README.md has %d lines", n)
	}
}

// markdown returns the Markdown files of the repository.
func markdown(t *testing.T) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir("..", func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && file != ".." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "node_modules" || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if filepath.Ext(file) == ".md" {
			files = append(files, file)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func readText(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// withoutCode returns Markdown without its fenced blocks.
func withoutCode(text string) string {
	var b strings.Builder
	fenced := false
	for line := range strings.Lines(text) {
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			fenced = !fenced
		} else if !fenced {
			b.WriteString(line)
		}
	}
	return b.String()
}

// anchors returns the names under which GitHub makes the headings of a Markdown text targets of links.
func anchors(text string) []string {
	drop := regexp.MustCompile(`[^\p{L}\p{N} _-]`)
	var names []string
	for line := range strings.Lines(withoutCode(text)) {
		hashes, title, ok := strings.Cut(strings.TrimSpace(line), " ")
		if ok && hashes != "" && strings.Trim(hashes, "#") == "" {
			name := drop.ReplaceAllString(strings.ToLower(title), "")
			names = append(names, strings.ReplaceAll(name, " ", "-"))
		}
	}
	return names
}

// go test ./tests -run TestMetricsPage -update writes the table of docs/metrics.md anew.
var update = flag.Bool("update", false, "write the pages that are made of the program")

const (
	metricsPage          = "../docs/metrics.md"
	tableBegin, tableEnd = "<!-- generated: go test ./tests -run TestMetricsPage -update -->\n", "<!-- end -->\n"
)

// metric is one that the program registers.
type metric struct{ name, kind, labels, help string }

// TestMetricsPage: docs/metrics.md has every metric with its labels and its help, as it is registered.
func TestMetricsPage(t *testing.T) {
	var metrics []metric
	for _, dir := range []string{"../services", "../shared"} {
		err := filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || filepath.Ext(file) != ".go" || strings.HasSuffix(file, "_test.go") {
				return err
			}
			tree, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
			if err == nil {
				metrics = append(metrics, registered(t, tree)...)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(metrics) < 30 {
		t.Errorf("found %d metrics: the test looks at the wrong lines", len(metrics))
	}
	slices.SortFunc(metrics, func(a, b metric) int { return strings.Compare(a.name, b.name) })
	var b strings.Builder
	b.WriteString(tableBegin + "\n| metric | kind | labels | meaning |\n| --- | --- | --- | --- |\n")
	for _, m := range metrics {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", m.name, m.kind, m.labels, strings.ReplaceAll(m.help, "|", `\|`))
	}
	b.WriteString("\n" + tableEnd)
	page := readText(t, metricsPage)
	before, rest, ok := strings.Cut(page, tableBegin)
	_, after, ok2 := strings.Cut(rest, tableEnd)
	if !ok || !ok2 {
		t.Fatal("docs/metrics.md has no place for the table")
	}
	want := before + b.String() + after
	if *update {
		if err := os.WriteFile(metricsPage, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if diff := cmp.Diff(want, page); diff != "" {
		t.Errorf("docs/metrics.md is not what the program registers; run go test ./tests -run TestMetricsPage -update\n%s", diff)
	}
}

// registered returns the metrics that a file makes: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: ..., Help: ...}, []string{...}) and the like, and
// prometheus.NewDesc(name, help, []string{...}, nil).
func registered(t *testing.T, file *ast.File) (out []metric) {
	list := func(arg *ast.CompositeLit) string {
		var labels []string
		for _, e := range arg.Elts {
			labels = append(labels, "`"+constant(t, e)+"`")
		}
		return strings.Join(labels, ", ")
	}
	lists := make(map[string]string) // labels := []string{...}
	ast.Inspect(file, func(n ast.Node) bool {
		a, ok := n.(*ast.AssignStmt)
		if !ok || len(a.Rhs) != 1 {
			return true
		}
		lit, ok := a.Rhs[0].(*ast.CompositeLit)
		name, named := a.Lhs[0].(*ast.Ident)
		if !ok || !named {
			return true
		}
		if array, ok := lit.Type.(*ast.ArrayType); ok {
			if of, ok := array.Elt.(*ast.Ident); ok && of.Name == "string" && literals(lit) {
				lists[name.Name] = list(lit)
			}
		}
		return true
	})
	ast.Inspect(file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		sel, ok := call.Fun.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		pkg, ok := sel.X.(*ast.Ident)
		if !ok || pkg.Name != "prometheus" && pkg.Name != "promauto" || !strings.HasPrefix(sel.Sel.Name, "New") || sel.Sel.Name == "NewRegistry" {
			return true
		}
		kind, known := map[string]string{
			"NewCounter": "counter", "NewCounterVec": "counter", "NewCounterFunc": "counter", "NewGauge": "gauge", "NewGaugeVec": "gauge", "NewGaugeFunc": "gauge",
			"NewHistogram": "histogram", "NewHistogramVec": "histogram", "NewDesc": "gauge",
		}[sel.Sel.Name]
		if !known || pkg.Name == "promauto" {
			t.Errorf("this test does not know the metrics that %s.%s makes", pkg.Name, sel.Sel.Name)
			return true
		}
		m := metric{kind: kind}
		for _, arg := range call.Args {
			switch arg := arg.(type) {
			case *ast.CompositeLit:
				if _, isList := arg.Type.(*ast.ArrayType); isList {
					m.labels = list(arg)
					continue
				}
				for _, e := range arg.Elts {
					field, ok := e.(*ast.KeyValueExpr)
					if !ok {
						continue
					}
					switch field.Key.(*ast.Ident).Name {
					case "Name":
						m.name = constant(t, field.Value)
					case "Help":
						m.help = constant(t, field.Value)
					case "ConstLabels":
						m.labels = "`" + constant(t, field.Value.(*ast.CompositeLit).Elts[0].(*ast.KeyValueExpr).Key) + "`"
					}
				}
			case *ast.Ident:
				m.labels = lists[arg.Name]
			default:
				if sel.Sel.Name == "NewDesc" && m.name == "" {
					m.name = constant(t, arg)
				} else if sel.Sel.Name == "NewDesc" && m.help == "" {
					m.help = constant(t, arg)
				}
			}
		}
		if strings.HasSuffix(m.name, "_total") {
			m.kind = "counter"
		}
		if strings.HasPrefix(m.name, "spate_") {
			out = append(out, m)
		}
		return true
	})
	return out
}

// constant is the text of an expression of string literals.
func constant(t *testing.T, e ast.Expr) string {
	switch e := e.(type) {
	case *ast.BasicLit:
		text, err := strconv.Unquote(e.Value)
		if err == nil {
			return text
		}
	case *ast.BinaryExpr:
		return constant(t, e.X) + constant(t, e.Y)
	}
	t.Errorf("a metric has a name, help or label that is not a literal: %T", e)
	return ""
}

// literals reports whether a list has nothing but literals.
func literals(list *ast.CompositeLit) bool {
	for _, e := range list.Elts {
		if _, ok := e.(*ast.BasicLit); !ok {
			return false
		}
	}
	return true
}

// TestAlarmsHaveOneName: of two alarms with one name, one is not looked at.
func TestAlarmsHaveOneName(t *testing.T) {
	seen := make(map[string]bool)
	for _, m := range regexp.MustCompile(`(?m)^\s*- alert: (\w+)$`).FindAllStringSubmatch(readText(t, "../deploy/compose/prometheus/rules.yml"), -1) {
		if seen[m[1]] {
			t.Errorf("%s is there twice", m[1])
		}
		seen[m[1]] = true
	}
	if len(seen) < 15 {
		t.Errorf("found %d alarms: the test looks at the wrong lines", len(seen))
	}
}
