package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"spate/services/embedded"
	"spate/shared/revision"
	"spate/shared/rule"
	"spate/shared/rule/syntax"
	"spate/shared/terminal"
)

type rulesCommand struct {
	Check    rulesCheckCommand    `cmd:"" help:"Check a rules file: print errors and warnings, which rules open alerts early, and what each rule costs."`
	Test     rulesTestCommand     `cmd:"" help:"Test rules: run the cases next to a rules file, and compare the alerts with the expected alerts."`
	Apply    rulesApplyCommand    `cmd:"" help:"Apply a rules file to a pipeline, before it starts or while it is running."`
	Ls       rulesLsCommand       `cmd:"" help:"List the rules in force."`
	Show     rulesShowCommand     `cmd:"" help:"Print the rules file of a revision."`
	Diff     rulesDiffCommand     `cmd:"" help:"Compare a rules file with the rules in force, or two revisions."`
	History  rulesHistoryCommand  `cmd:"" help:"List the revisions of the rules."`
	Rollback rulesRollbackCommand `cmd:"" help:"Apply the rules from an earlier revision again."`
	Export   rulesExportCommand   `cmd:"" help:"Export the rules in a file, or the rule from the settings, as Flink SQL."`
	Import   rulesImportCommand   `cmd:"" help:"Convert a Zeppelin notebook, Sigma correlations or a Flink SQL script into a rules file."`
}

// errRules is how a command ends that found errors in a rules file; they have been printed already.
var errRules = errors.New("errors in the rules file")

// rulesFile is a rules file that was read.
type rulesFile struct {
	name, text string
	path       string
	params     map[string]string
	set        *rule.Set
	errs       syntax.Errors
}

// readRules reads and compiles a rules file, or standard input if its name is -. Errors of the file itself are in the result.
func readRules(name string, set map[string]string) (rulesFile, error) {
	text, err := readText(name, syntax.MaxScript)
	if err != nil {
		return rulesFile{}, err
	}
	f := rulesFile{name: shown(name), text: text, path: name, params: set}
	f.set, f.errs = rule.Compile(text, rule.Options{Name: defaultRule(name), Set: set, Tables: []*rule.Table{rule.Activity()}})
	if len(f.errs) > 0 {
		return f, nil
	}
	return f, usage(f.unknown(set))
}

// source is the file as it is applied.
func (f rulesFile) source() *revision.Source {
	s := &revision.Source{Text: f.text, Set: f.params}
	if !f.set.Rules[0].Named { // a file has at least one
		s.Name = defaultRule(f.path)
	}
	return s
}

// shown is how a file is called in messages.
func shown(name string) string {
	if name == "-" {
		return "<stdin>"
	}
	return name
}

// readText reads a file, or standard input, of not much more than limit bytes.
func readText(name string, limit int64) (text string, err error) {
	f := os.Stdin
	if name != "-" {
		if f, err = os.Open(name); err != nil {
			return "", usage(fileError(err))
		}
		defer f.Close()
	}
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return "", usage(fileError(err))
	}
	return string(b), nil
}

// fileError is an error of a file as "name: reason".
func fileError(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return fmt.Errorf("%s: %w", p.Path, p.Err)
	}
	return err
}

var notInRuleName = regexp.MustCompile(`[^a-z0-9_-]+`)

// defaultRule is the name of a rule without one that is alone in its file: the file's.
func defaultRule(file string) string {
	base := strings.ToLower(filepath.Base(file))
	name := strings.Trim(notInRuleName.ReplaceAllString(strings.TrimSuffix(base, filepath.Ext(base)), "-"), "-_")
	if name = strings.TrimLeft(name, "0123456789-_"); name == "" {
		return "rule"
	}
	return name[:min(len(name), 63)]
}

// unknown reports values for parameters that the file does not have.
func (f rulesFile) unknown(set map[string]string) error {
	var errs []error
	var names []string
	for _, r := range f.set.Rules {
		for _, p := range r.Params {
			names = append(names, r.Name+"."+p.Name)
		}
	}
	for name := range set {
		if !slices.Contains(names, name) {
			known := "it has no parameters"
			if len(names) > 0 {
				known = "its parameters are " + strings.Join(names, ", ")
			}
			errs = append(errs, fmt.Errorf("set: %s has no parameter %s; %s", f.name, name, known))
		}
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(errs...)
}

// printErrors prints the errors of the file with the lines in which they are, and returns how the command ends.
func (f rulesFile) printErrors(w io.Writer) error {
	for _, err := range f.errs {
		terminal.Fprintf(w, "%s\n", terminal.Safe(terminal.Lines(err.Format(f.name, f.text))))
	}
	if n := len(f.errs); n > 0 {
		terminal.Fprintf(w, "%s: %s\n", f.name, terminal.Safe(plural(n, "error")))
		return errRules
	}
	return nil
}

// plural is a number of things.
func plural(n int, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return fmt.Sprintf("%d %s", n, thing)
}

// rulesFlags name a rules file to evaluate.
type rulesFlags struct {
	Rules string            `name:"rules" env:"SPATE_RULES" placeholder:"FILE" help:"Rules file to evaluate instead of the rule that --window, --threshold and --critical describe. To check a file, run spate rules check FILE."`
	Set   map[string]string `name:"set" mapsep:"none" placeholder:"RULE.PARAM=VALUE" help:"Value of a rule parameter; overrides the one in the file. Repeatable."`
}

// load adds the rules of the file, if one is named. What the file says of the stream, its watermark and the name of the time, takes the place of the
// settings. Errors in the file are printed.
func (f rulesFlags) load(r *embedded.Rule, stderr io.Writer) error {
	if f.Rules == "" {
		if len(f.Set) > 0 {
			return usage(errors.New("set: parameter values require a rules file (--rules FILE)"))
		}
		return nil
	}
	file, err := readRules(f.Rules, f.Set)
	if err != nil {
		return err
	}
	if len(file.errs) > 0 {
		return file.printErrors(stderr)
	}
	lateness, clock, err := file.set.Stream()
	if err != nil {
		return usage(fmt.Errorf("%s: %w", file.name, err))
	}
	if lateness >= 0 {
		r.Lateness = lateness
	}
	if clock != "" && !slices.Contains(r.Events.Fields.Time, clock) {
		r.Events.Fields.Time = []string{clock}
	}
	r.Rules = file.source()
	return nil
}
