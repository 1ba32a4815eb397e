package rule

import (
	"fmt"
	"maps"
	"strings"
	"time"

	"spate/shared/rule/syntax"
)

// Set is what a rules file says.
type Set struct {
	Rules  []*Rule
	Inputs []Input // the columns that the rules read
	Tables []*Table
}

// Stream is what the tables of the rules say of the stream: how far the watermark stays behind, negative if they do not say, and the name of the
// event time, empty if all rules read the built-in table. Two that differ are an error: a stream has one watermark.
func (s *Set) Stream() (lateness time.Duration, clock string, err error) {
	ms, of, builtIn := int64(-1), "", true
	for _, r := range s.Rules {
		t := r.Table
		builtIn = builtIn && t.BuiltIn
		name := t.Columns[t.Time].Name
		if clock != "" && name != clock || ms >= 0 && t.LatenessMS >= 0 && t.LatenessMS != ms {
			return 0, "", fmt.Errorf("the tables %s and %s have different watermarks, but a stream can have only one", of, t.Name)
		}
		clock, ms, of = name, max(ms, t.LatenessMS), t.Name
	}
	if builtIn {
		clock = ""
	}
	return time.Duration(ms) * time.Millisecond, clock, nil
}

// MaxRules bounds the rules of a file.
const MaxRules = 64

// Options are what a rules file does not say.
type Options struct {
	// Name is that of a rule without the directive, if the file has only one.
	Name string
	// Set has values of parameters, by "rule.parameter".
	Set map[string]string
	// Tables are known without CREATE TABLE.
	Tables []*Table
	// Inputs are those that [Set.Inputs] begins with.
	Inputs []Input
}

// Compile reads and checks a rules file. It reports all errors.
func Compile(source string, o Options) (*Set, syntax.Errors) {
	set := maps.Clone(o.Set)
	for name, value := range o.Set {
		if of, param, ok := strings.Cut(name, "."); ok && of == o.Name {
			set["."+param] = value // of a statement without a name
		}
	}
	script, errs := syntax.Parse(source, set)
	s := &Set{}
	b := builder{errs: &errs, options: o, inputs: newInputs(o.Inputs), broken: map[string]bool{}}
	for _, name := range script.Created {
		b.broken[name] = true
	}
	b.tables(script.Tables)
	for i, in := range script.Inserts {
		if i == MaxRules {
			errs.Add(in.Pos, "", "a file can have at most %d rules", MaxRules)
			break
		}
		if r := b.rule(in, len(script.Inserts)); r != nil {
			s.Rules = append(s.Rules, r)
		}
	}
	if len(script.Inserts) == 0 && len(errs) == 0 {
		errs.Add(0, "write INSERT INTO alerts SELECT …", "the file has no rule")
	}
	s.Inputs, s.Tables = b.inputs.list, b.declared
	errs.Sort()
	return s, errs
}
