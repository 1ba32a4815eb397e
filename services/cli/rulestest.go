package cli

import (
	"encoding/xml"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"spate/shared/cases"
	"spate/shared/rule/syntax"
	"spate/shared/terminal"
)

type rulesTestCommand struct {
	Files   []string `arg:"" name:"file" help:"Rules files, whose cases are in NAME_test.yaml next to them, or case files."`
	Verbose bool     `short:"v" help:"Print all cases, not only those that fail."`
	Filter  string   `name:"run" placeholder:"PATTERN" help:"Run only the cases whose names match the regular expression."`
	JSON    bool     `name:"json" help:"Print one JSON object per line: one for each case, or, if files have errors, one for each error."`
	JUnit   string   `name:"junit" placeholder:"FILE" help:"Also write the results as JUnit XML, for CI systems."`
}

// Help is shown below the usage.
func (rulesTestCommand) Help() string {
	return `A case is a list of events and the alerts that the rules must raise for them. The pipeline's engine evaluates the rules, without
a broker. Put the cases of scraper.sql in scraper_test.yaml:

  cases:
    - name: a scraper is found
      events:
        - {user_id: 7, event_type: view, product_id: 1, txn_timestamp: "2024-01-01 00:00:00"}
        - {repeat: 30, every: 1900ms, user_id: 7, event_type: view, product_id: "1#"}   # 11, 12, ... 130
      expect:
        scraper:
          - {user_id: 7, products: 31, window_start: "2024-01-01 00:00:00", opened: false}
      others: ignore   # alerts from other rules
    - name: a customer is not
      events:
        - {user_id: 8, event_type: purchase, product_id: 1, txn_timestamp: "2024-01-01 00:00:00"}
      expect: {}   # no rule raises an alert

Only the members that an expected alert names are compared. The exit code is 1 if a case fails, and 2 if a file has errors, which are printed
to standard error as FILE:LINE:COLUMN: message; the cases of the other files run anyway. docs/rules.md has the details.

  spate rules test scraper.sql
  spate rules test rules/*.sql -v --run 'is found$'
  spate rules test rules/*.sql --junit report.xml`
}

// errCases is how a test ends of which cases failed; they have been printed already.
var errCases = errors.New("cases failed")

// testedCase is how a case went.
type testedCase struct {
	File     string          `json:"file"`
	Line     int             `json:"line"`
	Name     string          `json:"name"`
	Rules    string          `json:"rules"`
	Result   string          `json:"result"` // pass or fail
	Seconds  float64         `json:"seconds"`
	Late     int64           `json:"late"` // events that were too late for a rule
	Failures []cases.Failure `json:"failures"`
}

// testedFile is a file of cases, and how they went.
type testedFile struct {
	name   string
	none   bool // a rules file without cases
	file   *cases.File
	broken []cases.Source
	ran    []testedCase
	took   time.Duration
}

func (c *rulesTestCommand) Run(e *env) error {
	pattern, err := regexp.Compile(c.Filter)
	if err != nil {
		return usage(fmt.Errorf("run: %w", err))
	}
	files, err := c.load()
	if err != nil {
		return err
	}
	o := newOut(e.stdout)
	broken, failed := false, false
	for _, f := range files {
		broken = broken || len(f.broken) > 0
	}
	for _, f := range files {
		if err := c.test(o, f, pattern); err != nil {
			return o.end(err)
		}
		if len(f.broken) > 0 {
			if err := c.errors(e, o, f); err != nil {
				return o.end(err)
			}
		}
		if f.failed() {
			failed = true
		}
	}
	if !c.JSON {
		switch {
		case broken || failed:
			o.printf("%s\n", o.paint("FAIL", terminal.Red))
		case c.Verbose:
			o.printf("PASS\n")
		}
	}
	if err := o.end(nil); err != nil {
		return err
	}
	if c.JUnit != "" {
		if err := writeJUnit(c.JUnit, files); err != nil {
			return err
		}
	}
	switch {
	case broken:
		return errRules
	case failed:
		return errCases
	}
	return nil
}

// load reads the files of cases, each once.
func (c *rulesTestCommand) load() (files []*testedFile, err error) {
	for _, name := range c.Files {
		f := &testedFile{name: filepath.Clean(name)}
		if !cases.Is(name) {
			beside, ok := cases.Beside(f.name)
			if !ok { // the rules are checked all the same
				r, err := readRules(name, nil)
				if err != nil {
					return nil, err
				}
				if f.none = true; len(r.errs) > 0 {
					f.broken = []cases.Source{{Name: r.name, Text: r.text, Errors: r.errs}}
				}
				files = append(files, f)
				continue
			}
			if _, err := os.Stat(name); err != nil {
				return nil, usage(fileError(err))
			}
			f.name = beside
		}
		if slices.ContainsFunc(files, func(o *testedFile) bool { return o.name == f.name }) {
			continue
		}
		if f.file, f.broken, err = cases.Load(f.name, defaultRule); err != nil {
			return nil, usage(fileError(err))
		}
		files = append(files, f)
	}
	return files, nil
}

// test runs the cases of a file.
func (c *rulesTestCommand) test(o *out, f *testedFile, pattern *regexp.Regexp) error {
	start := time.Now()
	if !f.none && len(f.broken) == 0 {
		for _, one := range f.file.Cases {
			if !pattern.MatchString(one.Name) {
				continue
			}
			begun := time.Now()
			if c.Verbose && !c.JSON {
				o.printf("=== RUN   %s\n", one.Name)
			}
			result, err := one.Run()
			if err != nil {
				return fmt.Errorf("%s:%d: %w", f.name, one.Line, err)
			}
			tested := testedCase{File: f.name, Line: one.Line, Name: one.Name, Rules: one.Rules, Result: "pass", Seconds: time.Since(begun).Seconds(),
				Late: result.Late, Failures: append([]cases.Failure{}, result.Failures...)}
			if len(result.Failures) > 0 {
				tested.Result = "fail"
			}
			f.ran = append(f.ran, tested)
			if c.JSON {
				if err := o.json(tested); err != nil {
					return err
				}
				continue
			}
			o.tested(tested, c.Verbose)
		}
	}
	f.took = time.Since(start)
	if c.JSON {
		return nil
	}
	switch {
	case len(f.broken) > 0:
		o.printf("%s\t%s [errors]\n", o.paint("FAIL", terminal.Red), f.name)
	case f.none:
		beside, _ := cases.Beside(f.name)
		o.printf("?   \t%s\t[no cases: there is no %s; spate rules test --help shows an example]\n", f.name, filepath.Base(beside))
	case f.failed():
		o.printf("%s\t%s\t%.3fs\n", o.paint("FAIL", terminal.Red), f.name, f.took.Seconds())
	case len(f.ran) == 0:
		o.printf("ok  \t%s\t%.3fs [no cases to run]\n", f.name, f.took.Seconds())
	default:
		o.printf("ok  \t%s\t%.3fs\n", f.name, f.took.Seconds())
	}
	return nil
}

func (f *testedFile) failed() bool {
	return slices.ContainsFunc(f.ran, func(c testedCase) bool { return c.Result == "fail" })
}

// errors prints the errors of a file, and of those that it names.
func (c *rulesTestCommand) errors(e *env, o *out, f *testedFile) error {
	for _, s := range f.broken {
		if !c.JSON {
			_ = rulesFile{name: s.Name, text: s.Text, errs: s.Errors}.printErrors(e.stderr) // the command ends that way, later
			continue
		}
		for _, err := range s.Errors {
			line, column := syntax.LineColumn(s.Text, err.Pos)
			if err := o.json(ruleError{s.Name, line, column, err.Message, err.Fix}); err != nil {
				return err
			}
		}
	}
	return nil
}

// tested prints how a case went, as go test does.
func (o *out) tested(c testedCase, verbose bool) {
	switch {
	case c.Result == "fail":
		o.printf("%s %s (%.2fs)\n", o.paint("--- FAIL:", terminal.Red), c.Name, c.Seconds)
	case verbose:
		o.printf("--- PASS: %s (%.2fs)\n", c.Name, c.Seconds)
	}
	for _, line := range c.explain() {
		o.printf("    %s\n", line)
	}
}

// shownFailures bounds the failures of a case that people are shown.
const shownFailures = 20

// explain says what failed, in lines.
func (c testedCase) explain() (lines []string) {
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	for i, f := range c.Failures {
		if i == shownFailures {
			add("and %s", plural(len(c.Failures)-i, "more failure"))
			break
		}
		place := fmt.Sprintf("%s:%d: %s", filepath.Base(c.File), f.Line, f.Rule)
		switch f.Kind {
		case cases.Missing:
			add("%s: missing alert", place)
			for _, d := range f.Differs {
				add("    %s: got %s, expected %s", d.Member, d.Got, d.Expected)
			}
			add("    expected %s", f.Expected)
		case cases.Unexpected:
			add("%s: unexpected alert", place)
			add("    got      %s", f.Got)
		default:
			add("%s: alert differs", place)
			for _, d := range f.Differs {
				add("    %s: got %s, expected %s", d.Member, d.Got, d.Expected)
			}
			add("    got      %s", f.Got)
			add("    expected %s", f.Expected)
		}
	}
	if c.Late > 0 && len(c.Failures) > 0 {
		add("%s late for all windows of a rule: the partition's watermark had already passed these windows", map[bool]string{true: "1 event was", false: fmt.Sprint(c.Late, " events were")}[c.Late == 1])
	}
	return lines
}

// The elements of JUnit XML, as CI systems read it.
type (
	junitSuites struct {
		XMLName  xml.Name     `xml:"testsuites"`
		Tests    int          `xml:"tests,attr"`
		Failures int          `xml:"failures,attr"`
		Errors   int          `xml:"errors,attr"`
		Time     string       `xml:"time,attr"`
		Suites   []junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name     string      `xml:"name,attr"`
		Tests    int         `xml:"tests,attr"`
		Failures int         `xml:"failures,attr"`
		Errors   int         `xml:"errors,attr"`
		Time     string      `xml:"time,attr"`
		Cases    []junitCase `xml:"testcase"`
	}
	junitCase struct {
		Class   string        `xml:"classname,attr"`
		Name    string        `xml:"name,attr"`
		File    string        `xml:"file,attr"`
		Line    int           `xml:"line,attr"`
		Time    string        `xml:"time,attr"`
		Failure *junitProblem `xml:"failure"`
		Error   *junitProblem `xml:"error"`
	}
	junitProblem struct {
		Message string `xml:"message,attr"`
		Text    string `xml:",chardata"`
	}
)

// writeJUnit writes the results of all files. The errors of a file are cases of their own.
func writeJUnit(name string, files []*testedFile) error {
	seconds := func(s float64) string { return fmt.Sprintf("%.3f", s) }
	var all junitSuites
	var took time.Duration
	for _, f := range files {
		class := strings.TrimSuffix(strings.TrimSuffix(filepath.Base(f.name), filepath.Ext(f.name)), "_test")
		suite := junitSuite{Name: f.name, Time: seconds(f.took.Seconds())}
		for _, c := range f.ran {
			one := junitCase{Class: class, Name: c.Name, File: c.File, Line: c.Line, Time: seconds(c.Seconds)}
			if len(c.Failures) > 0 {
				one.Failure = &junitProblem{plural(len(c.Failures), "failure"), strings.Join(c.explain(), "\n")}
				suite.Failures++
			}
			suite.Cases = append(suite.Cases, one)
		}
		for _, s := range f.broken {
			for _, err := range s.Errors {
				line, _ := syntax.LineColumn(s.Text, err.Pos)
				suite.Cases = append(suite.Cases, junitCase{Class: class, Name: fmt.Sprintf("%s:%d", s.Name, line), File: s.Name, Line: line, Time: seconds(0),
					Error: &junitProblem{err.Message, err.Format(s.Name, s.Text)}})
				suite.Errors++
			}
		}
		suite.Tests = len(suite.Cases)
		all.Tests, all.Failures, all.Errors = all.Tests+suite.Tests, all.Failures+suite.Failures, all.Errors+suite.Errors
		took += f.took
		all.Suites = append(all.Suites, suite)
	}
	all.Time = seconds(took.Seconds())
	b, err := xml.MarshalIndent(all, "", "  ")
	if err == nil {
		err = os.WriteFile(name, append(append([]byte(xml.Header), b...), '\n'), 0o666)
	}
	if err != nil {
		return fmt.Errorf("write the JUnit file: %w", err)
	}
	return nil
}
