package tests

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
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

// TestMetricsPage: docs/metrics.md has every metric that the program has, and no other.
func TestMetricsPage(t *testing.T) {
	metric := regexp.MustCompile(`(?:Name:\s*|NewDesc\()"(spate_[a-z_]+)"`)
	named := regexp.MustCompile("`(spate_[a-z_]+)`")
	code, page := make(map[string]bool), make(map[string]bool)
	for _, dir := range []string{"../services", "../shared"} {
		err := filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || filepath.Ext(file) != ".go" || strings.HasSuffix(file, "_test.go") {
				return err
			}
			for _, m := range metric.FindAllStringSubmatch(readText(t, file), -1) {
				code[m[1]] = true
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range named.FindAllStringSubmatch(readText(t, "../docs/metrics.md"), -1) {
		page[m[1]] = true
	}
	for name := range code {
		if !page[name] {
			t.Errorf("docs/metrics.md does not have %s", name)
		}
	}
	for name := range page {
		if !code[name] {
			t.Errorf("docs/metrics.md has %s, which is not a metric", name)
		}
	}
	if len(code) < 30 {
		t.Errorf("found %d metrics: the test looks at the wrong lines", len(code))
	}
}
