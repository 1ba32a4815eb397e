package tests

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// house is the import rule of the repository. Paths are folders below the module's root, "" is the root itself.
//
// .golangci.yml (depguard) has the same rule for editors; this test keeps it where the linter is not installed, and follows imports
// further than the linter can.
type house struct {
	// imports are those of every folder, of all its files, whatever their build constraints: path to the first file that has it.
	// An import of this module is a folder, without "spate".
	code, tests map[string]map[string]string
}

const module = "spate"

// core are the packages that know nothing but the standard library and each other. shared/fault is one of them: it imports nothing
// of this module, and in the released program it is a few constants, false.
var core = []string{"shared/activity", "shared/alert", "shared/fault", "shared/rule", "shared/rule/syntax", "shared/window"}

// mappings are what the core imports of others: Unicode's, which the standard library lacks.
var mappings = []string{"golang.org/x/text/cases", "golang.org/x/text/language"}

// composers are the services that put others together.
var composers = []string{"services/cli", "services/embedded", "services/web"}

func readHouse(t *testing.T) house {
	t.Helper()
	const root = ".."
	h := house{code: make(map[string]map[string]string), tests: make(map[string]map[string]string)}
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		if d.IsDir() {
			// What the go command leaves out as well.
			if name := d.Name(); rel != "." && (strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") || name == "testdata") {
				return filepath.SkipDir
			}
			return nil
		}
		if path.Ext(rel) != ".go" {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		to := h.code
		if strings.HasSuffix(rel, "_test.go") {
			to = h.tests
		}
		dir := strings.TrimPrefix(path.Dir(rel), ".")
		if to[dir] == nil {
			to[dir] = make(map[string]string)
		}
		for _, spec := range f.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			if _, ok := to[dir][imported]; !ok {
				to[dir][imported] = rel
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// folder returns the folder of a package of this module.
func folder(imported string) (string, bool) {
	if imported == module {
		return "", true
	}
	return strings.CutPrefix(imported, module+"/")
}

// standard reports whether a package is one of the standard library: the first element of all others has a dot or is this module.
func standard(imported string) bool {
	first, _, _ := strings.Cut(imported, "/")
	return first != module && !strings.Contains(first, ".")
}

// service returns the service that a folder belongs to.
func service(dir string) (string, bool) {
	rest, ok := strings.CutPrefix(dir, "services/")
	if !ok {
		return "", false
	}
	name, _, _ := strings.Cut(rest, "/")
	return "services/" + name, true
}

// each calls f for every import of some folders' files. file is where it is.
func each(of map[string]map[string]string, f func(dir, imported, file string)) {
	for dir, imports := range of {
		for imported, file := range imports {
			f(dir, imported, file)
		}
	}
}

// reach returns the folders of this module that the code of dir imports, directly or not, with the way there.
func (h house) reach(dir string) map[string][]string {
	ways := map[string][]string{dir: {dir}}
	for queue := []string{dir}; len(queue) > 0; queue = queue[1:] {
		for imported := range h.code[queue[0]] {
			to, ours := folder(imported)
			if !ours || ways[to] != nil {
				continue
			}
			ways[to] = append(slices.Clone(ways[queue[0]]), to)
			queue = append(queue, to)
		}
	}
	return ways
}

func TestImportRule(t *testing.T) {
	h := readHouse(t)
	// Without these the test would look at nothing.
	for _, dir := range append(slices.Concat(core, composers), "", "shared/kafka", "services/router", "services/detector", "services/verifier") {
		if len(h.code[dir]) == 0 && !slices.Contains(core, dir) {
			t.Errorf("folder %q is not there, or imports nothing", dir)
		}
		if _, ok := h.code[dir]; !ok {
			t.Errorf("folder %q has no code", dir)
		}
	}

	t.Run("core", func(t *testing.T) {
		each(h.code, func(dir, imported, file string) {
			if !slices.Contains(core, dir) || standard(imported) || slices.Contains(mappings, imported) {
				return
			}
			if to, ours := folder(imported); !ours || !slices.Contains(core, to) {
				t.Errorf("%s imports %s: %s imports the standard library and %s only", file, imported, dir, strings.Join(core, ", "))
			}
		})
	})

	t.Run("shared", func(t *testing.T) {
		for _, of := range []map[string]map[string]string{h.code, h.tests} {
			each(of, func(dir, imported, file string) {
				to, ours := folder(imported)
				if _, isService := service(to); ours && isService && strings.HasPrefix(dir, "shared/") {
					t.Errorf("%s imports %s: shared/ is what services agree on, and knows none", file, imported)
				}
			})
		}
	})

	t.Run("services", func(t *testing.T) {
		for _, of := range []map[string]map[string]string{h.code, h.tests} {
			each(of, func(dir, imported, file string) {
				from, isService := service(dir)
				to, ours := folder(imported)
				other, toService := service(to)
				if isService && ours && toService && from != other && !slices.Contains(composers, from) {
					t.Errorf("%s imports %s: a service imports no other; %s put them together", file, imported, strings.Join(composers, " and "))
				}
			})
		}
	})

	t.Run("engine", func(t *testing.T) {
		for dir := range h.code {
			if way := h.reach(dir)["shared/window"]; way != nil && strings.HasPrefix(dir+"/", "shared/rule/") {
				t.Errorf("rules depend on the engine that evaluates them: %s", strings.Join(way, " imports "))
			}
		}
	})

	t.Run("reference", func(t *testing.T) {
		// The verifier says what the engine should have found. If it shared code with it, it would share its mistakes.
		ways := h.reach("services/verifier")
		for _, engine := range []string{"shared/window", "shared/activity", "shared/rule", "shared/rule/syntax"} {
			if way := ways[engine]; way != nil {
				t.Errorf("the reference shares code with the engine: %s", strings.Join(way, " imports "))
			}
			if strings.HasPrefix(engine, "shared/rule") {
				continue // rules_diff_test.go compares the two
			}
			if file, ok := h.tests["services/verifier"][module+"/"+engine]; ok {
				t.Errorf("%s imports %s: the reference is tested without the engine", file, engine)
			}
		}
	})

	t.Run("main", func(t *testing.T) {
		each(h.code, func(dir, imported, file string) {
			if to, ours := folder(imported); dir == "" && ours && to != "services/cli" {
				t.Errorf("%s imports %s: main starts services/cli and does nothing else", file, imported)
			}
		})
	})
}
