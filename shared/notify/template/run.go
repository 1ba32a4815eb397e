package template

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	texttemplate "text/template"
	"text/template/parse"
	"time"

	"spate/shared/notify/brief"
	"spate/shared/notify/post"
)

// The bounds of a run: rounds of loops and of templates that call others, and bytes of texts that functions make.
const (
	maxSteps = 10_000
	maxWork  = 16 << 20
)

// program is a template that has been made ready to run within bounds: every loop and every template counts its rounds, and what is printed is printed
// by show.
type program struct{ t *texttemplate.Template }

const (
	stepName = "step__"
	showName = "show__"
)

// where is how text/template begins its errors: template: NAME:LINE:COLUMN: executing "NAME" at <NODE>: what is wrong.
var where = regexp.MustCompile(`^template: [^:]*:(\d+)(?::\d+)?: (?:executing "[^"]*" )?`)

// located returns an error with its line first.
func located(err error) error {
	text := err.Error()
	m := where.FindStringSubmatch(text)
	if m == nil {
		return errors.New(strings.TrimPrefix(text, "template: "))
	}
	text = strings.TrimPrefix(text, m[0])
	for _, name := range []string{stepName, showName} { // which nobody has written
		text = strings.Replace(text, "at <"+name+">: error calling "+name+": ", "", 1)
	}
	return fmt.Errorf("line %s: %s", m[1], text)
}

// compileText reads a template. The error has the line.
func compileText(name, text string) (*program, error) {
	if len(text) > maxTemplate {
		return nil, fmt.Errorf("is %d bytes long; the maximum is %d", len(text), maxTemplate)
	}
	t, err := texttemplate.New(name).Funcs((&run{}).functions()).Parse(text)
	if err != nil {
		return nil, located(err)
	}
	for _, t := range t.Templates() {
		if t.Tree != nil && t.Root != nil {
			bound(t.Root)
			begin(t.Root)
		}
	}
	return &program{t}, nil
}

// begin makes a list count, first of all.
func begin(list *parse.ListNode) {
	step := &parse.ActionNode{NodeType: parse.NodeAction, Pos: list.Pos, Pipe: &parse.PipeNode{NodeType: parse.NodePipe, Pos: list.Pos, Cmds: []*parse.CommandNode{command(stepName, list.Pos)}}}
	list.Nodes = append([]parse.Node{step}, list.Nodes...)
}

func command(name string, at parse.Pos) *parse.CommandNode {
	return &parse.CommandNode{NodeType: parse.NodeCommand, Pos: at, Args: []parse.Node{parse.NewIdentifier(name).SetTree(nil).SetPos(at)}}
}

// bound makes the loops in a list count, and what it prints go through show.
func bound(list *parse.ListNode) {
	if list == nil {
		return
	}
	for _, n := range list.Nodes {
		switch n := n.(type) {
		case *parse.ActionNode:
			if len(n.Pipe.Decl) == 0 {
				n.Pipe.Cmds = append(n.Pipe.Cmds, command(showName, n.Pos))
			}
		case *parse.IfNode:
			bound(n.List)
			bound(n.ElseList)
		case *parse.WithNode:
			bound(n.List)
			bound(n.ElseList)
		case *parse.RangeNode:
			bound(n.List)
			bound(n.ElseList)
			begin(n.List)
		}
	}
}

// run is what one message may do, for all its templates.
type run struct {
	secret      post.Secret
	steps, work int
}

func newRun(secret post.Secret) *run { return &run{secret: secret} }

var (
	errSteps  = fmt.Errorf("it executes more than %d loop iterations and template calls", maxSteps)
	errWork   = fmt.Errorf("it produces more than %d bytes of text", maxWork)
	errOutput = errors.New("the result is too long")
)

// execute returns what a template makes of data.
func (r *run) execute(p *program, data any, limit int) ([]byte, error) {
	t, err := p.t.Clone()
	if err != nil {
		return nil, located(err)
	}
	out := &bounded{limit: limit}
	if err := t.Funcs(r.functions()).Execute(out, data); err != nil {
		if errors.Is(err, errOutput) {
			return nil, fmt.Errorf("the result is longer than %d bytes", limit)
		}
		return nil, located(err)
	}
	return out.b.Bytes(), nil
}

// bounded is a writer that refuses what is too much.
type bounded struct {
	b     bytes.Buffer
	limit int
}

func (w *bounded) Write(p []byte) (int, error) {
	if w.b.Len()+len(p) > w.limit {
		return 0, errOutput
	}
	return w.b.Write(p)
}

// charge counts the bytes of texts.
func (r *run) charge(n int) error {
	if r.work += n; r.work > maxWork {
		return errWork
	}
	return nil
}

// text charges for a text, and returns it.
func (r *run) text(s string) (string, error) { return s, r.charge(len(s)) }

// show is a value as it is printed: nothing for what is not there, a number as it was written, an object as JSON.
func show(v any) (string, error) {
	switch v := v.(type) {
	case nil:
		return "", nil
	case string:
		return v, nil
	case json.Number:
		return v.String(), nil
	case map[string]any, []any:
		return encode(v)
	}
	return fmt.Sprint(v), nil
}

func encode(v any) (string, error) {
	b, err := post.Encode(v)
	if err != nil {
		return "", errors.New("cannot be written as JSON")
	}
	return string(b), nil
}

// wide is a verb that prints more than is there, such as %1000000d.
var wide = regexp.MustCompile(`%[^a-zA-Z%]*(\*|[0-9]{4,})`)

// functions are those of templates, in place of those of text/template that can make long texts of short ones. What is in an error is shown: it quotes
// no value, which could be the secret.
func (r *run) functions() texttemplate.FuncMap {
	return texttemplate.FuncMap{
		stepName: func() (string, error) {
			if r.steps++; r.steps > maxSteps {
				return "", errSteps
			}
			return "", nil
		},
		showName: func(v any) (string, error) {
			s, err := show(v)
			if err != nil {
				return "", err
			}
			return r.text(s)
		},
		"json": func(v any) (string, error) {
			s, err := encode(v)
			if err != nil {
				return "", err
			}
			return r.text(s)
		},
		"upper": func(v any) (string, error) {
			s, err := show(v)
			return r.both(strings.ToUpper(s), err)
		},
		"lower": func(v any) (string, error) {
			s, err := show(v)
			return r.both(strings.ToLower(s), err)
		},
		"cut": func(limit int, v any) (string, error) {
			s, err := show(v)
			if err == nil {
				err = r.charge(len(s))
			}
			return r.both(brief.Cut(s, limit), err)
		},
		"default": func(otherwise, v any) any {
			if truth, ok := texttemplate.IsTrue(v); ok && truth {
				return v
			}
			return otherwise
		},
		"number": func(v any) (any, error) {
			if v == nil { // not every message has every number
				return int64(0), nil
			}
			s, err := show(v)
			if err != nil {
				return nil, err
			}
			if n, err := strconv.ParseInt(s, 10, 64); err == nil {
				return n, nil
			}
			x, err := strconv.ParseFloat(s, 64)
			if err != nil {
				return nil, errors.New("is not a number")
			}
			return x, nil
		},
		"date": func(layout string, v any) (string, error) {
			if v == nil { // not every message has every time
				return "", nil
			}
			at, err := instant(v)
			if err != nil {
				return "", err
			}
			return r.text(at.Format(layout))
		},
		"unix": func(v any) (string, error) {
			if v == nil {
				return "", nil
			}
			at, err := instant(v)
			if err != nil {
				return "", err
			}
			return fmt.Sprintf("%d.%03d", at.Unix(), at.Nanosecond()/1e6), nil
		},
		"secret": func() (string, error) { return r.text(r.secret.Reveal()) },

		"print":    func(args ...any) (string, error) { return r.print(fmt.Sprint, args) },
		"println":  func(args ...any) (string, error) { return r.print(fmt.Sprintln, args) },
		"html":     func(args ...any) (string, error) { return r.print(texttemplate.HTMLEscaper, args) },
		"js":       func(args ...any) (string, error) { return r.print(texttemplate.JSEscaper, args) },
		"urlquery": func(args ...any) (string, error) { return r.print(texttemplate.URLQueryEscaper, args) },
		"printf": func(format string, args ...any) (string, error) {
			if wide.MatchString(format) {
				return "", errors.New("printf: a width or precision is above 999 or is taken from an argument")
			}
			most := 999 // what one verb makes
			for _, a := range args {
				if s, err := show(a); err == nil {
					most = max(most, len(s))
				}
			}
			if err := r.charge(most * strings.Count(format, "%")); err != nil {
				return "", err
			}
			return r.print(func(args ...any) string { return fmt.Sprintf(format, args...) }, args)
		},
		"call": func(...any) (string, error) { return "", errors.New("call: is not available in templates") },
	}
}

func (r *run) both(s string, err error) (string, error) {
	if err != nil {
		return "", err
	}
	return r.text(s)
}

// print charges for arguments before it makes a text of them, and for the text.
func (r *run) print(do func(...any) string, args []any) (string, error) {
	for i, a := range args {
		switch a.(type) {
		case nil, map[string]any, []any, json.Number:
			s, err := show(a)
			if err != nil {
				return "", err
			}
			args[i] = s
		}
		if s, ok := args[i].(string); ok {
			if err := r.charge(len(s)); err != nil {
				return "", err
			}
		}
	}
	return r.text(do(args...))
}

// instant reads a time of the data: RFC 3339, as all of them are. It returns it in UTC.
func instant(v any) (time.Time, error) {
	s, ok := v.(string)
	if !ok {
		return time.Time{}, errors.New("is not a time")
	}
	at, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return time.Time{}, errors.New("is not a time; use a form such as 2026-09-01T12:00:00Z")
	}
	return at.UTC(), nil
}
