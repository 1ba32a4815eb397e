package endpoints

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v3"

	"spate/shared/alert"
	"spate/shared/notify"
	"spate/shared/notify/webhook"
	"spate/shared/terminal"
)

const (
	maxFile       = 1 << 20  // bytes
	maxSecretFile = 64 << 10 // bytes
)

// file is a file of endpoints that is being read.
type file struct {
	path  string
	holds bool // secrets, or URLs that carry one
	specs []Spec
	errs  []error
}

// Read returns the endpoints of a file. The error lists every problem of the file ([Problems]). taken says that flags define an endpoint, so that its
// name is taken. If other users of the machine can read a file with secrets, Read logs a warning.
func Read(path string, taken bool, log *slog.Logger) ([]Spec, error) {
	f := &file{path: path}
	data, err := readBounded(path, maxFile)
	if err != nil {
		return nil, fmt.Errorf("endpoints: %s: %w", Redacted(path), err)
	}
	if f.document(data) && len(f.specs) == 0 && len(f.errs) == 0 {
		f.problem(0, "the file contains no endpoints; write a list under endpoints:, each entry with name, url and secret, or with name, format and the fields of the format (spate endpoints formats)")
	}
	if info, err := os.Stat(path); err == nil && f.holds && info.Mode().Perm()&0o077 != 0 {
		log.Warn(fmt.Sprintf("the endpoints file %s contains secrets and is accessible to other users of this machine; run chmod 600 on it", Redacted(path)), "mode", fmt.Sprintf("%04o", info.Mode().Perm()))
	}
	lines := make(map[string]bool)
	if taken {
		lines[FlagName] = true
	}
	for _, s := range f.specs {
		if s.Name != "" && lines[s.Name] {
			if taken && s.Name == FlagName {
				f.problem(0, "endpoint %q: name: already used by the endpoint from --webhook-url (SPATE_WEBHOOK_URL)", s.Name)
			} else {
				f.problem(0, "endpoint %q: name: already used by another endpoint", Redacted(s.Name))
			}
		}
		lines[s.Name] = true
	}
	return f.specs, errors.Join(f.errs...)
}

// readBounded reads a file. The error does not name it.
func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err == nil {
		defer f.Close()
		var data []byte
		if data, err = io.ReadAll(io.LimitReader(f, limit+1)); err == nil && int64(len(data)) > limit {
			return nil, fmt.Errorf("is larger than %d bytes", limit)
		} else if err == nil {
			return data, nil
		}
	}
	var at *fs.PathError
	if errors.As(err, &at) {
		err = at.Err
	}
	return nil, fmt.Errorf("cannot be read: %w", err)
}

// problem notes what is wrong in a line; 0 is the file as a whole.
func (f *file) problem(line int, format string, args ...any) {
	where := Redacted(f.path)
	if line > 0 {
		where += ": line " + strconv.Itoa(line)
	}
	err := fmt.Errorf("%s: %w", where, fmt.Errorf(format, args...))
	if slices.ContainsFunc(f.errs, func(e error) bool { return e.Error() == err.Error() }) {
		return // a field is read by whoever needs it
	}
	f.errs = append(f.errs, err)
}

// document reads the only document; it returns false if it is none.
//
// It walks the nodes instead of having them decoded into a struct: the decoder stops at the first mistake of a kind, and quotes values,
// which may be secrets that went to the wrong place.
func (f *file) document(data []byte) bool {
	var doc, second yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(data))
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return true
	case err != nil:
		f.syntax(err)
		return false
	}
	if err := dec.Decode(&second); err == nil {
		f.problem(second.Line, "the file contains a second YAML document; put all endpoints in one list")
	} else if !errors.Is(err, io.EOF) {
		f.syntax(err)
		return false
	}
	root := resolve(doc.Content[0])
	if null(root) {
		return true
	}
	if root.Kind != yaml.MappingNode {
		f.problem(root.Line, "the file must contain endpoints:, followed by a list")
		return false
	}
	for key, value := range f.members(root, "", []string{"endpoints"}, nil) {
		if key != "endpoints" || null(value) {
			continue
		}
		if value.Kind != yaml.SequenceNode {
			f.problem(value.Line, "endpoints: is not a list; begin each endpoint with a dash, as in - name: pager")
			continue
		}
		for i, n := range value.Content {
			f.endpoint(i+1, resolve(n))
		}
	}
	return true
}

var (
	// quoted is what a message of the parser may quote of the file; single characters are the parser's own.
	quoted   = regexp.MustCompile(`'[^']{3,}'|"[^"]{3,}"|` + "`[^`]{3,}`")
	yamlLine = regexp.MustCompile(`line (\d+): `)
)

// syntax notes that the file is not valid YAML.
func (f *file) syntax(err error) {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	line := 0
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		line, _ = strconv.Atoi(m[1])
		text = strings.Replace(text, m[0], "", 1)
	}
	f.problem(line, "is not valid YAML: %s", quoted.ReplaceAllString(text, "…"))
}

func resolve(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

func null(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// members returns the values of a mapping by key, and notes keys that are unknown or there twice. explain, unless it is nil, says more of a key that is
// unknown, or nothing.
func (f *file) members(n *yaml.Node, label string, known []string, explain func(key string) string) map[string]*yaml.Node {
	out := make(map[string]*yaml.Node)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := resolve(n.Content[i]), resolve(n.Content[i+1])
		name := key.Value
		switch {
		case key.Kind != yaml.ScalarNode:
			f.problem(key.Line, "%sa key is not text", label)
		case name == "<<":
			f.problem(key.Line, "%smerging (<<) is not supported; write out the keys", label)
		case !slices.Contains(known, name):
			if !keyForm.MatchString(name) {
				name = "[not a key name]" // it may be a value that is indented wrongly
			}
			if explain != nil {
				if text := explain(name); text != "" {
					f.problem(key.Line, "%s%s: %s", label, name, text)
					continue
				}
			}
			f.problem(key.Line, "%sunknown key %s; valid keys are %s", label, Redacted(name), strings.Join(known, ", "))
		case out[name] != nil:
			f.problem(key.Line, "%s%s: is given twice", label, name)
		default:
			out[name] = value
		}
	}
	return out
}

var keyForm = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]{0,30}$`)

// endpointNode is an endpoint that is being read.
type endpointNode struct {
	*file
	line   int
	label  string
	format *Format // nil: it is not known
	fields map[string]*yaml.Node
	bad    map[string]bool // fields whose problem has been noted
}

// endpoint reads the n-th endpoint.
func (f *file) endpoint(n int, node *yaml.Node) {
	e := endpointNode{file: f, line: node.Line, label: fmt.Sprintf("endpoint %d: ", n), bad: make(map[string]bool)}
	if node.Kind != yaml.MappingNode {
		f.problem(node.Line, "%sis not a mapping; write - name: pager, followed by url and secret", e.label)
		return
	}
	format := DefaultFormat
	for i := 0; i+1 < len(node.Content); i += 2 {
		v := resolve(node.Content[i+1])
		if v.Kind != yaml.ScalarNode || null(v) {
			continue
		}
		switch resolve(node.Content[i]).Value {
		case "name":
			if (notify.Endpoint{Name: v.Value}).Validate() == nil {
				e.label = fmt.Sprintf("endpoint %q: ", v.Value)
			}
		case "format":
			format = v.Value
		}
	}
	e.format = formatOf(format)
	if e.format == nil {
		var all []string
		for i := range formats {
			all = append(all, formats[i].keys()...)
		}
		e.fields = f.members(node, e.label, all, nil)
		e.wrong("format", "%q is not one of %s", Redacted(format), strings.Join(formatNames(), ", "))
	} else {
		e.fields = f.members(node, e.label, e.format.keys(), func(key string) string {
			if with := having(key); len(with) > 0 {
				return fmt.Sprintf("is not a field of format %s; remove it, or set format: to one that has it: %s", format, strings.Join(with, ", "))
			}
			return ""
		})
	}

	var s Spec
	s.Name, s.Format = e.text("name"), e.text("format")
	if s.Format == "" {
		s.Format = DefaultFormat
	}
	s.Filter.Rules = e.texts("rules")
	s.Filter.MinSeverity = alert.Severity(e.text("min_severity"))
	for _, t := range e.texts("transitions") {
		s.Filter.Transitions = append(s.Filter.Transitions, alert.State(t))
	}
	s.DigestAbove = int(e.number("digest_above", true))
	s.Rate = e.number("rate", false)
	if v := e.at("name"); v == nil {
		e.wrong("name", "missing; give each endpoint a unique name, as in name: pager")
	}
	prefix := fmt.Sprintf("endpoint %q: ", s.Name)
	for _, err := range Problems(s.Validate()) {
		text := strings.TrimPrefix(err.Error(), prefix)
		field, _, _ := strings.Cut(text, ":")
		if field == "name" && e.at("name") == nil {
			continue // it is missing
		}
		f.problem(e.lineOf(field), "%s%s", e.label, Redacted(text))
	}

	s.Link = e.text("link")
	e.link(s.Link)
	if e.format != nil {
		e.destination(&s)
	}
	f.specs = append(f.specs, s)
}

// destination reads what the format needs.
func (e endpointNode) destination(s *Spec) {
	if e.format.open && s.DigestAbove > 0 {
		e.wrong("digest_above", "cannot be used with format %s, because a digest does not say which incidents have ended, and they would stay open at the destination; remove digest_above, and set rate if there are too many calls", e.format.Name)
	}
	d := e.format.read(e)
	s.Refused, s.Open, s.Shows = d.refused, d.open, e.format.shows
	for _, err := range Problems(d.validate()) {
		field, rest, ok := strings.Cut(err.Error(), ": ")
		if ok && slices.ContainsFunc(e.format.Fields, func(f Field) bool { return f.Name == field }) {
			if given := e.given(field); !e.bad[given] && !e.bad[field] {
				e.problem(e.lineIn(given, rest), "%s%s: %s", e.label, given, Redacted(rest))
			}
			continue
		}
		e.problem(e.line, "%s%s", e.label, err)
	}
}

// at returns a field's value; nil is none.
func (e endpointNode) at(field string) *yaml.Node {
	if n := e.fields[field]; n != nil && !null(n) {
		return n
	}
	return nil
}

func (e endpointNode) lineOf(field string) int {
	if n := e.fields[field]; n != nil {
		return n.Line
	}
	return e.line
}

// lineIn returns the line in the file of what is wrong with a field whose text may have lines of its own.
func (e endpointNode) lineIn(field, problem string) int {
	line := e.lineOf(field)
	if m := lineOfText.FindStringSubmatch(problem); m != nil && e.fields[field].Style == yaml.LiteralStyle {
		n, _ := strconv.Atoi(m[1])
		return line + n
	}
	return line
}

var lineOfText = regexp.MustCompile(`\bline (\d+): `)

// wrong notes a problem of a field.
func (e endpointNode) wrong(field, format string, args ...any) {
	e.bad[field] = true
	e.problem(e.lineOf(field), "%s%s: %w", e.label, field, fmt.Errorf(format, args...))
}

func (e endpointNode) text(field string) string {
	n := e.at(field)
	if n == nil {
		return ""
	}
	if n.Kind != yaml.ScalarNode {
		e.wrong(field, "is not text")
		return ""
	}
	return n.Value
}

func (e endpointNode) texts(field string) (out []string) {
	n := e.at(field)
	if n == nil {
		return nil
	}
	if n.Kind != yaml.SequenceNode {
		e.wrong(field, "is not a list; write it as [first, second]")
		return nil
	}
	for _, item := range n.Content {
		if item = resolve(item); item.Kind != yaml.ScalarNode || null(item) {
			e.wrong(field, "a list item is not text")
			continue
		}
		out = append(out, item.Value)
	}
	return out
}

func (e endpointNode) mapping(field string) map[string]string {
	n := e.at(field)
	if n == nil {
		return nil
	}
	if n.Kind != yaml.MappingNode {
		e.wrong(field, "is not a mapping; write each entry as NAME: value")
		return nil
	}
	out := make(map[string]string)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := resolve(n.Content[i]), resolve(n.Content[i+1])
		if key.Kind != yaml.ScalarNode || value.Kind != yaml.ScalarNode {
			e.wrong(field, "contains a name or value that is not text")
			continue
		}
		if len(value.Value) >= 8 && !strings.Contains(value.Value, "{{") && strings.ContainsAny(value.Value, "0123456789") {
			e.holds = true // it may be a token
		}
		out[key.Value] = value.Value
	}
	return out
}

func (e endpointNode) number(field string, whole bool) (x float64) {
	n := e.at(field)
	if n == nil {
		return 0
	}
	switch {
	case n.Kind != yaml.ScalarNode || n.ShortTag() != "!!int" && n.ShortTag() != "!!float" || n.Decode(&x) != nil || math.IsNaN(x) || math.IsInf(x, 0):
		e.wrong(field, "is not a number")
		return 0
	case whole && (x != math.Trunc(x) || math.Abs(x) > 1e9):
		e.wrong(field, "is not a whole number up to 1000000000")
		return 0
	}
	return x
}

func (e endpointNode) yes(field string) (is bool) {
	if n := e.at(field); n != nil && n.Decode(&is) != nil {
		e.wrong(field, "must be true or false")
	}
	return is
}

// given returns the form in which a field that can come from elsewhere is given.
func (e endpointNode) given(field string) string {
	for _, form := range []string{field, field + "_env", field + "_file"} {
		if e.fields[form] != nil {
			return form
		}
	}
	return field
}

// oneOf returns a value that is in the file itself, in an environment variable, or in another file; empty if there is none, which is noted if it is
// required, or if there is something wrong with it, which is noted.
func (e endpointNode) oneOf(field, form string, required bool) string {
	var there []string
	for _, f := range []string{field, field + "_env", field + "_file"} {
		if e.at(f) != nil {
			there = append(there, f)
		}
	}
	switch len(there) {
	case 0:
		if required {
			e.wrong(field, "missing; give %s (%s), %s_env (the name of an environment variable) or %s_file (a path)", field, form, field, field)
		}
		return ""
	case 1:
	default:
		e.wrong(there[0], "is given more than once, as %s; use only one of them", strings.Join(there, " and "))
		return ""
	}
	before := len(e.errs)
	value := strings.TrimSpace(e.text(there[0]))
	if len(e.errs) > before {
		return ""
	}
	switch from := there[0]; {
	case value == "":
		e.wrong(from, "is empty")
	case from == field:
		e.holds = e.holds || field != "url" || carriesSecret(value)
		return value
	case itself(value):
		e.wrong(from, "contains the value itself; move it to %s", field)
	case from == field+"_env":
		return e.variable(from, value)
	default:
		if !filepath.IsAbs(value) {
			value = filepath.Join(filepath.Dir(e.path), value)
		}
		data, err := readBounded(value, maxSecretFile)
		if err != nil {
			e.wrong(from, "%s: %w", Redacted(value), err)
			return ""
		}
		text := strings.TrimSpace(string(data))
		if text == "" {
			e.wrong(from, "%s: is empty", Redacted(value))
		}
		return text
	}
	return ""
}

// carriesSecret reports whether who reads a URL can do what only its owner should: it has a password, or something in it has the form of a token.
func carriesSecret(text string) bool {
	u, err := url.Parse(text)
	if err != nil {
		return true // nobody knows
	}
	if _, password := u.User.Password(); password {
		return true
	}
	host := u.Hostname()
	if slices.ContainsFunc(tokenHosts, func(h string) bool { return host == h || strings.HasSuffix(host, "."+h) }) {
		return true
	}
	words := strings.Split(u.Path, "/")
	for name, values := range u.Query() {
		if tokenNames.MatchString(name) {
			return true
		}
		words = append(words, values...)
	}
	return slices.ContainsFunc(words, func(w string) bool {
		return tokenForm.MatchString(w) && strings.ContainsAny(w, "0123456789") && strings.ContainsFunc(w, unicode.IsLetter)
	})
}

var (
	// tokenHosts are those whose URLs are the only thing that a sender needs.
	tokenHosts = []string{"hooks.slack.com", "hooks.slack-gov.com", "discord.com", "discordapp.com", "webhook.office.com", "logic.azure.com", "webhook.site"}
	tokenNames = regexp.MustCompile(`(?i)token|secret|passw|signature|^sig$|^code$|key`)
	tokenForm  = regexp.MustCompile(`^[A-Za-z0-9_.~+=-]{16,}$`)
)

// itself reports whether what should say where a value is, is the value.
func itself(where string) bool {
	found := secretIn.FindString(where)
	return strings.Contains(where, "://") || found != "" && (found == where || strings.HasPrefix(found, webhook.SecretPrefix) || strings.HasPrefix(found, "xox"))
}

// variable returns the value of an environment variable.
func (e endpointNode) variable(from, name string) string {
	if !envForm.MatchString(name) {
		e.wrong(from, "is not a valid environment variable name; use letters, digits and _")
		return ""
	}
	text := strings.TrimSpace(os.Getenv(name))
	switch {
	case text != "":
	case strings.ToUpper(name) == name:
		e.wrong(from, "the environment variable %s is not set", name)
	default: // it could be a password that went to the wrong place
		e.wrong(from, "the environment variable named here is not set")
	}
	return text
}

var envForm = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,127}$`)

// link checks where messages say to look.
func (e endpointNode) link(link string) {
	if link == "" {
		return
	}
	rest := strings.NewReplacer("{since}", "", "{until}", "").Replace(link)
	u, err := url.Parse(rest)
	switch {
	case strings.ContainsAny(rest, "{}"):
		e.wrong("link", "contains a brace that is not part of {since} or {until}; write other braces as %%7B and %%7D")
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		e.wrong("link", "is not a URL; use https://host/path, in which {since} and {until} are replaced with times")
	}
}

var (
	// secretIn is what has the form of a secret: of Standard Webhooks, a token of Slack, a key of PagerDuty.
	secretIn = regexp.MustCompile(webhook.SecretPrefix + `[^\s"']+|\bxox[a-z]-[^\s"']+|\b(?:[a-z0-9]{32}|R[A-Z0-9]{31})\b`)
	pathIn   = regexp.MustCompile(`(https?://[^/?#\s"']*)[/?#][^\s"']*`)
)

// Redacted returns the part of a text that may be shown. The text should contain no secret, but may by mistake; Redacted removes secrets and URL paths, and
// escapes the rest.
func Redacted(text string) string {
	hide := func(secret string) string {
		if strings.HasPrefix(secret, webhook.SecretPrefix) {
			return webhook.SecretPrefix + "…"
		}
		return "…"
	}
	return terminal.Text(pathIn.ReplaceAllString(secretIn.ReplaceAllStringFunc(text, hide), "$1/…"))
}
