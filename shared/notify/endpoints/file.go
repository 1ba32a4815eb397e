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

// endpointKeys are those of an endpoint in the file.
var endpointKeys = []string{
	"name", "url", "url_env", "url_file", "secret", "secret_env", "secret_file", "allow_private", "rules", "min_severity", "transitions", "rate", "digest_above", "link",
}

// file is a file of endpoints that is being read.
type file struct {
	path  string
	holds bool // secrets, or addresses, whose paths are secret
	specs []Spec
	errs  []error
}

// Read returns the endpoints of a file. The error has everything that is wrong with it ([Problems]). taken says that flags make an endpoint, whose
// name is taken then. A file with secrets that others on the machine can read is logged.
func Read(path string, taken bool, log *slog.Logger) ([]Spec, error) {
	f := &file{path: path}
	data, err := readBounded(path, maxFile)
	if err != nil {
		return nil, fmt.Errorf("endpoints: %s: %w", Redacted(path), err)
	}
	if f.document(data) && len(f.specs) == 0 && len(f.errs) == 0 {
		f.problem(0, "the file contains no endpoints; write a list under endpoints:, each entry with name, url and secret")
	}
	if info, err := os.Stat(path); err == nil && f.holds && info.Mode().Perm()&0o077 != 0 {
		log.Warn("the endpoints file contains secrets and is accessible to other users of this machine; run chmod 600 on it", "file", path, "mode", fmt.Sprintf("%04o", info.Mode().Perm()))
	}
	lines := make(map[string]bool)
	if taken {
		lines[FlagName] = true
	}
	for _, s := range f.specs {
		if s.Name != "" && lines[s.Name] {
			if taken && s.Name == FlagName {
				f.problem(0, "endpoint %q: name: already used by the endpoint of --webhook-url (SPATE_WEBHOOK_URL)", s.Name)
			} else {
				f.problem(0, "endpoint %q: name: is a duplicate", Redacted(s.Name))
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
	f.errs = append(f.errs, fmt.Errorf("%s: %w", where, fmt.Errorf(format, args...)))
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
		f.problem(root.Line, "expected endpoints: followed by a list")
		return false
	}
	for key, value := range f.members(root, "", []string{"endpoints"}) {
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

// members returns the values of a mapping by key, and notes keys that are unknown or there twice.
func (f *file) members(n *yaml.Node, label string, known []string) map[string]*yaml.Node {
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
	fields map[string]*yaml.Node
}

// endpoint reads the n-th endpoint.
func (f *file) endpoint(n int, node *yaml.Node) {
	e := endpointNode{file: f, line: node.Line, label: fmt.Sprintf("endpoint %d: ", n)}
	if node.Kind != yaml.MappingNode {
		f.problem(node.Line, "%sis not a mapping; write - name: pager, followed by url and secret", e.label)
		return
	}
	for i := 0; i+1 < len(node.Content); i += 2 {
		if v := resolve(node.Content[i+1]); resolve(node.Content[i]).Value == "name" && v.Kind == yaml.ScalarNode && (notify.Endpoint{Name: v.Value}).Validate() == nil {
			e.label = fmt.Sprintf("endpoint %q: ", v.Value)
		}
	}
	e.fields = f.members(node, e.label, endpointKeys)

	var s Spec
	s.Name = e.text("name")
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
	s.Webhook.AllowPrivate = e.yes("allow_private")
	var ok bool
	if s.Webhook.URL, ok = e.oneOf("url", "https://host/path"); !ok {
		s.Webhook.URL = "https://unknown.invalid" // its problem is known
	}
	secrets, ok := e.oneOf("secret", "whsec_ and 24 to 64 random bytes in base64")
	if ok {
		var err error
		if s.Webhook.Secrets, err = webhook.ParseSecrets(secrets); err != nil {
			for _, p := range Problems(err) {
				e.wrong(e.given("secret"), "%w", p)
			}
		}
	}
	if len(s.Webhook.Secrets) == 0 {
		s.Webhook.Secrets = placeholderSecrets
	}
	for _, err := range Problems(s.Webhook.Validate()) {
		text := err.Error()
		if rest, isURL := strings.CutPrefix(text, "url: "); isURL {
			e.wrong(e.given("url"), "%s", rest)
		} else {
			f.problem(e.line, "%s%s", e.label, text)
		}
	}
	f.specs = append(f.specs, s)
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

// wrong notes a problem of a field.
func (e endpointNode) wrong(field, format string, args ...any) {
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

// oneOf returns a value that is in the file itself, in an environment variable, or in another file, and whether there is one.
func (e endpointNode) oneOf(field, form string) (string, bool) {
	var there []string
	for _, f := range []string{field, field + "_env", field + "_file"} {
		if e.at(f) != nil {
			there = append(there, f)
		}
	}
	switch len(there) {
	case 0:
		e.wrong(field, "missing; give %s (%s), %s_env (the name of an environment variable) or %s_file (a path)", field, form, field, field)
		return "", false
	case 1:
	default:
		e.wrong(there[0], "is given more than once, as %s; use only one of them", strings.Join(there, " and "))
		return "", false
	}
	before := len(e.errs)
	value := strings.TrimSpace(e.text(there[0]))
	if len(e.errs) > before {
		return "", false
	}
	switch from := there[0]; {
	case value == "":
		e.wrong(from, "is empty")
		return "", false
	case from == field:
		e.holds = true
		return value, true
	case strings.Contains(value, webhook.SecretPrefix) || strings.Contains(value, "://"):
		e.wrong(from, "contains the value itself; move it to %s", field)
		return "", false
	case from == field+"_env":
		if !envForm.MatchString(value) {
			e.wrong(from, "is not a valid environment variable name; use letters, digits and _")
			return "", false
		}
		text := strings.TrimSpace(os.Getenv(value))
		if text == "" {
			e.wrong(from, "the environment variable %s is not set", value)
			return "", false
		}
		return text, true
	default:
		if !filepath.IsAbs(value) {
			value = filepath.Join(filepath.Dir(e.path), value)
		}
		data, err := readBounded(value, maxSecretFile)
		if err != nil {
			e.wrong(from, "%s: %w", Redacted(value), err)
			return "", false
		}
		text := strings.TrimSpace(string(data))
		if text == "" {
			e.wrong(from, "%s: is empty", Redacted(value))
			return "", false
		}
		return text, true
	}
}

var envForm = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,127}$`)

// link checks where digests say to look.
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
	secretIn = regexp.MustCompile(webhook.SecretPrefix + `[^\s"']+`)
	pathIn   = regexp.MustCompile(`(https?://[^/?#\s"']*)[/?#][^\s"']*`)
)

// Redacted returns what may be shown of a text that should hold no secret, but can, by mistake: neither secrets nor paths of URLs, and escaped.
func Redacted(text string) string {
	return terminal.Text(pathIn.ReplaceAllString(secretIn.ReplaceAllString(text, webhook.SecretPrefix+"…"), "$1/…"))
}
