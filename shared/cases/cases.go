// Package cases reads and runs test cases of rules: a YAML file beside a rules file, with events and the alerts that they must give. The rules are
// evaluated by the engine itself, in one go and without brokers (window.Evaluate).
//
// [Load] finds all errors before anything runs: those of the cases, of the rules files that they name, and of files of events. [Case.Run] then
// compares, and its [Failure]s say member by member what differs.
package cases

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"spate/shared/rule"
	"spate/shared/rule/syntax"
	"spate/shared/window"
)

// DefaultLateness is how far the watermark stays behind if the tables of the rules do not say.
const DefaultLateness = 10 * time.Second

const (
	maxEventsFile = 64 << 20
	maxEvents     = 10_000_000 // of a case
	maxPartitions = 1024
	maxWindows    = 3600 // that an expected alert stands for
)

// File is a file of cases.
type File struct {
	Name  string
	Cases []*Case
}

// Case is a test of the rules of a file.
type Case struct {
	Name   string
	Line   int
	Rules  string // the rules file
	set    *rule.Set
	stream window.Stream

	partitions int
	events     []source
	expect     map[string]*expectation // by rule
	ignore     bool                    // what rules find that expect does not name
}

// expectation are the rows that a rule must have.
type expectation struct {
	line int
	rows []want
}

// Source is a file with errors.
type Source struct {
	Name, Text string
	Errors     syntax.Errors
}

// Beside returns the file of the cases of a rules file: NAME_test.yaml or NAME_test.yml in its folder. If there is none, it is the first of them,
// and ok is false.
func Beside(rules string) (name string, ok bool) {
	stem := strings.TrimSuffix(rules, filepath.Ext(rules)) + "_test"
	for _, ext := range []string{".yaml", ".yml"} {
		if _, err := os.Stat(stem + ext); err == nil {
			return stem + ext, true
		}
	}
	return stem + ".yaml", false
}

// Is reports whether a file is one of cases, by its name.
func Is(name string) bool {
	ext := strings.ToLower(filepath.Ext(name))
	return ext == ".yaml" || ext == ".yml"
}

// Load reads a file of cases, and the files that it names. ruleName is the name of a rule without one that is alone in a rules file. The files that
// have errors are returned, each once; err is why the file itself cannot be read.
func Load(name string, ruleName func(file string) string) (*File, []Source, error) {
	text, err := read(name, syntax.MaxScript)
	if err != nil {
		return nil, nil, err
	}
	l := &loader{file: &File{Name: name}, ruleName: ruleName, texts: map[string]string{}, own: Source{Name: name, Text: text}}
	l.load()
	if len(l.own.Errors) > 0 {
		l.own.Errors.Sort()
		l.others = append([]Source{l.own}, l.others...)
	}
	return l.file, l.others, nil
}

// read reads a file of at most limit bytes.
func read(name string, limit int64) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return "", err
	}
	if int64(len(b)) > limit {
		return "", fmt.Errorf("%s: the file is larger than %d bytes", name, limit)
	}
	return string(b), nil
}

// reason is an error without the name of the file, which the message has.
func reason(err error) error {
	if p := (*os.PathError)(nil); errors.As(err, &p) {
		return p.Err
	}
	return err
}

// Expects are the rules that must have an alert, by name.
func (c *Case) Expects() (names []string) {
	for name, e := range c.expect {
		if len(e.rows) > 0 {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Result is how a case went.
type Result struct {
	Failures []Failure
	// Late counts events that were too late for a rule. A failure may be due to them.
	Late int64
}

// Run evaluates the rules over the events, and compares what they find with what is expected.
func (c *Case) Run() (Result, error) {
	found, err := window.Evaluate(c.stream, c.partitions, c.all())
	if err != nil {
		return Result{}, err
	}
	rows := make([][]Row, len(c.stream.Plan.Rules))
	type id struct {
		rule       int
		key        string
		start, end int64
	}
	opened := map[id]bool{}
	for _, v := range found.Verdicts {
		at := id{v.Rule, v.Key, v.Pane.StartMS, v.Pane.EndMS()}
		switch v.State {
		case window.Opened:
			opened[at] = true
		case window.Closed:
			row, err := rowOf(c.stream.Plan.Rules[v.Rule], v, opened[at])
			if err != nil {
				return Result{}, err
			}
			rows[v.Rule] = append(rows[v.Rule], row)
		}
	}
	out := Result{Late: found.Late}
	for i, r := range c.stream.Plan.Rules {
		e := c.expect[r.Name]
		if e == nil {
			if c.ignore {
				continue
			}
			e = &expectation{line: c.Line}
		}
		out.Failures = append(out.Failures, e.compare(r.Name, rows[i])...)
	}
	return out, nil
}
