package console

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

	"github.com/alecthomas/kong"
	"go.yaml.in/yaml/v3"

	"spate/services/alerter"
	"spate/shared/alert"
	"spate/shared/notify"
	"spate/shared/notify/webhook"
	"spate/shared/terminal"
)

// webhookFlags say who is notified of alerts: one endpoint in flags, any number in a file.
//
// It has no method Validate, and must have none: kong would call it, also for the commands that embed it.
type webhookFlags struct {
	WebhookURL          string     `name:"webhook-url" env:"SPATE_WEBHOOK_URL" placeholder:"URL" help:"Tell this address of every alert, signed after Standard Webhooks: https://host/path. It needs a secret, too. It is the endpoint named webhook."`
	WebhookSecret       secretText `name:"webhook-secret" env:"SPATE_WEBHOOK_SECRET" placeholder:"SECRET" help:"What signs the calls: whsec_ and 24 to 64 random bytes in base64; two with a space between them while you replace one. Set it in the environment: everyone on this machine can read command lines."`
	WebhookAllowPrivate bool       `name:"webhook-allow-private" env:"SPATE_WEBHOOK_ALLOW_PRIVATE" help:"Let the address of --webhook-url be on this machine or in a private network."`
	Endpoints           string     `name:"endpoints" env:"SPATE_ENDPOINTS" placeholder:"FILE" help:"YAML file of more endpoints, each with a name, url, secret, and, if you like, a filter, a rate, and digests; spate endpoints --help shows one."`
}

// flagEndpoint is the name of the endpoint that the flags make.
const flagEndpoint = "webhook"

// secretText is a flag that holds secrets. It takes all that follow it on the command line, with or without quotes, so that none ends up
// in a complaint about an argument that nobody expects; printed, it is hidden.
type secretText string

const secretPrefix = "whsec_"

// Decode implements kong.MapperValue.
func (s *secretText) Decode(ctx *kong.DecodeContext) error {
	text, err := popText(ctx, "a secret", func(next string) bool { return strings.HasPrefix(next, secretPrefix) })
	*s = secretText(text)
	if err != nil {
		return fmt.Errorf("%w: "+secretPrefix+"..., or set SPATE_WEBHOOK_SECRET", err)
	}
	return nil
}

// popText reads the value of a flag, and the arguments after it that are more of the same.
func popText(ctx *kong.DecodeContext, what string, more func(string) bool) (string, error) {
	var text string
	if err := ctx.Scan.PopValueInto("value", &text); err != nil {
		return "", errors.New(what + " is missing after it") // the cause quotes what is there
	}
	for {
		next, ok := ctx.Scan.Peek().Value.(string)
		if !ok || !more(next) {
			return text, nil
		}
		ctx.Scan.Pop()
		text += " " + next
	}
}

// Format keeps every verb of package fmt from showing it.
func (s secretText) Format(f fmt.State, _ rune) {
	if s != "" {
		_, _ = io.WriteString(f, "[secret]")
	}
}

// endpointSpec is an endpoint as it is configured.
type endpointSpec struct {
	notify.Endpoint
	webhook webhook.Config
	link    string
}

// endpoints returns who is notified of alerts, and what closes them, which is never nil. An error is the person's to mend; it names
// everything that is wrong by file, line, endpoint and field, and has neither a secret nor a URL's path in it.
func (f webhookFlags) endpoints(log *slog.Logger) ([]alerter.Endpoint, func(), error) {
	specs, errs := f.fromFlags()
	if f.Endpoints != "" {
		more, problems := readEndpoints(f.Endpoints, len(specs) > 0, log)
		specs, errs = append(specs, more...), append(errs, problems...)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, func() {}, err
	}
	var out []alerter.Endpoint
	var senders []*webhook.Sender
	stop := func() {
		for _, s := range senders {
			s.Close()
		}
	}
	for _, s := range specs {
		sender, err := webhook.New(s.webhook)
		if err != nil { // it was checked
			stop()
			return nil, func() {}, fmt.Errorf("endpoint %q: %w", s.Name, err)
		}
		if err := s.webhook.Refused(); err != nil {
			log.Warn("no call to this endpoint will be made: "+err.Error(), "endpoint", s.Name)
		}
		senders = append(senders, sender)
		out = append(out, alerter.Endpoint{Endpoint: s.Endpoint, Notifier: sender, Link: s.link})
	}
	return out, stop, nil
}

// fromFlags returns the endpoint of the flags, or none, and every problem with them.
func (f webhookFlags) fromFlags() ([]endpointSpec, []error) {
	secret := strings.TrimSpace(string(f.WebhookSecret))
	switch {
	case f.WebhookURL == "" && secret == "":
		return nil, nil
	case secret == "":
		return nil, []error{errors.New("webhook-secret: missing, and webhook-url is set: calls are signed; set SPATE_WEBHOOK_SECRET to whsec_ and 24 to 64 random bytes in base64, " +
			"for example whsec_$(openssl rand -base64 32)")}
	case f.WebhookURL == "":
		return nil, []error{errors.New("webhook-url: missing, and webhook-secret is set; set SPATE_WEBHOOK_URL to the address that is notified of alerts")}
	}
	cfg := webhook.Config{URL: f.WebhookURL, AllowPrivate: f.WebhookAllowPrivate}
	var errs []error
	var err error
	if cfg.Secrets, err = webhook.ParseSecrets(secret); err != nil {
		for _, e := range unjoin(err) {
			errs = append(errs, fmt.Errorf("webhook-secret: %w", e))
		}
		cfg.Secrets = placeholderSecrets
	}
	for _, e := range unjoin(cfg.Validate()) {
		errs = append(errs, fmt.Errorf("webhook-%w", e)) // it begins with the field's name
	}
	return []endpointSpec{{Endpoint: notify.Endpoint{Name: flagEndpoint}, webhook: cfg}}, errs
}

// placeholderSecrets stand for secrets whose problems are known, so that those of the other fields are found, too.
var placeholderSecrets = func() []webhook.Secret {
	s, err := webhook.ParseSecrets(webhook.NewSecret())
	if err != nil {
		panic(err)
	}
	return s
}()

// unjoin returns the errors that errors.Join put together.
func unjoin(err error) []error {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var out []error
		for _, e := range joined.Unwrap() {
			out = append(out, unjoin(e)...)
		}
		return out
	}
	return []error{err}
}

const (
	maxEndpointsFile = 1 << 20  // bytes
	maxSecretFile    = 64 << 10 // bytes
)

// endpointKeys are those of an endpoint in the file.
var endpointKeys = []string{
	"name", "url", "url_env", "url_file", "secret", "secret_env", "secret_file", "allow_private", "rules", "min_severity", "transitions", "rate", "digest_above", "link",
}

// endpointsFile is a file of endpoints that is being read.
type endpointsFile struct {
	path  string
	holds bool // secrets, or addresses, whose paths are secret
	specs []endpointSpec
	errs  []error
}

// readEndpoints returns the endpoints of a file, and everything that is wrong with it. taken tells that flags make an endpoint, whose
// name is taken. The log is told of a file with secrets that others can read.
func readEndpoints(path string, taken bool, log *slog.Logger) ([]endpointSpec, []error) {
	f := &endpointsFile{path: path}
	data, err := readBounded(path, maxEndpointsFile)
	if err != nil {
		return nil, []error{fmt.Errorf("endpoints: %s: %w", shown(path), err)}
	}
	if f.document(data) && len(f.specs) == 0 && len(f.errs) == 0 {
		f.problem(0, "there are no endpoints in it; it begins with endpoints: and has a list below it, each with name, url and secret")
	}
	if info, err := os.Stat(path); err == nil && f.holds && info.Mode().Perm()&0o077 != 0 {
		log.Warn("the file of endpoints has secrets in it, and others on this machine have access to it; run chmod 600 on it", "file", path, "mode", fmt.Sprintf("%04o", info.Mode().Perm()))
	}
	lines := make(map[string]bool)
	if taken {
		lines[flagEndpoint] = true
	}
	for _, s := range f.specs {
		if s.Name != "" && lines[s.Name] {
			if taken && s.Name == flagEndpoint {
				f.problem(0, "endpoint %q: name: is taken by the endpoint of --webhook-url (SPATE_WEBHOOK_URL)", s.Name)
			} else {
				f.problem(0, "endpoint %q: name: there are two of it", shown(s.Name))
			}
		}
		lines[s.Name] = true
	}
	return f.specs, f.errs
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
func (f *endpointsFile) problem(line int, format string, args ...any) {
	where := shown(f.path)
	if line > 0 {
		where += ": line " + strconv.Itoa(line)
	}
	f.errs = append(f.errs, fmt.Errorf("%s: %w", where, fmt.Errorf(format, args...)))
}

// document reads the only document; it returns false if it is none.
//
// It walks the nodes instead of having them decoded into a struct: the decoder stops at the first mistake of a kind, and quotes values,
// which may be secrets that went to the wrong place.
func (f *endpointsFile) document(data []byte) bool {
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
		f.problem(second.Line, "a second document begins; write all endpoints in one list")
	} else if !errors.Is(err, io.EOF) {
		f.syntax(err)
		return false
	}
	root := resolve(doc.Content[0])
	if null(root) {
		return true
	}
	if root.Kind != yaml.MappingNode {
		f.problem(root.Line, "the file begins with endpoints: and has a list of them below it")
		return false
	}
	for key, value := range f.members(root, "", []string{"endpoints"}) {
		if key != "endpoints" || null(value) {
			continue
		}
		if value.Kind != yaml.SequenceNode {
			f.problem(value.Line, "endpoints: is not a list; each endpoint begins with a dash, as in - name: pager")
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
func (f *endpointsFile) syntax(err error) {
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
func (f *endpointsFile) members(n *yaml.Node, label string, known []string) map[string]*yaml.Node {
	out := make(map[string]*yaml.Node)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := resolve(n.Content[i]), resolve(n.Content[i+1])
		name := key.Value
		switch {
		case key.Kind != yaml.ScalarNode:
			f.problem(key.Line, "%sa key is not text", label)
		case name == "<<":
			f.problem(key.Line, "%smerging (<<) is not supported; write the keys out", label)
		case !slices.Contains(known, name):
			if !keyForm.MatchString(name) {
				name = "[no name of a key]" // it may be a value that is indented wrongly
			}
			f.problem(key.Line, "%sunknown key %s; there is %s", label, shown(name), strings.Join(known, ", "))
		case out[name] != nil:
			f.problem(key.Line, "%s%s: is there twice", label, name)
		default:
			out[name] = value
		}
	}
	return out
}

var keyForm = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]{0,30}$`)

// endpointNode is an endpoint that is being read.
type endpointNode struct {
	*endpointsFile
	line   int
	label  string
	fields map[string]*yaml.Node
}

// endpoint reads the n-th endpoint.
func (f *endpointsFile) endpoint(n int, node *yaml.Node) {
	e := endpointNode{endpointsFile: f, line: node.Line, label: fmt.Sprintf("endpoint %d: ", n)}
	if node.Kind != yaml.MappingNode {
		f.problem(node.Line, "%sis none; write - name: pager, and below it url and secret", e.label)
		return
	}
	for i := 0; i+1 < len(node.Content); i += 2 {
		if v := resolve(node.Content[i+1]); resolve(node.Content[i]).Value == "name" && v.Kind == yaml.ScalarNode && (notify.Endpoint{Name: v.Value}).Validate() == nil {
			e.label = fmt.Sprintf("endpoint %q: ", v.Value)
		}
	}
	e.fields = f.members(node, e.label, endpointKeys)

	var s endpointSpec
	s.Name = e.text("name")
	s.Filter.Rules = e.texts("rules")
	s.Filter.MinSeverity = alert.Severity(e.text("min_severity"))
	for _, t := range e.texts("transitions") {
		s.Filter.Transitions = append(s.Filter.Transitions, alert.State(t))
	}
	s.DigestAbove = int(e.number("digest_above", true))
	s.Rate = e.number("rate", false)
	if v := e.at("name"); v == nil {
		e.wrong("name", "missing; it tells endpoints apart, as in name: pager")
	}
	prefix := fmt.Sprintf("endpoint %q: ", s.Name)
	for _, err := range unjoin(s.Validate()) {
		text := strings.TrimPrefix(err.Error(), prefix)
		field, _, _ := strings.Cut(text, ":")
		if field == "name" && e.at("name") == nil {
			continue // it is missing
		}
		f.problem(e.lineOf(field), "%s%s", e.label, shown(text))
	}

	s.link = e.text("link")
	e.link(s.link)
	s.webhook.AllowPrivate = e.yes("allow_private")
	var ok bool
	if s.webhook.URL, ok = e.oneOf("url", "https://host/path"); !ok {
		s.webhook.URL = "https://unknown.invalid" // its problem is known
	}
	secrets, ok := e.oneOf("secret", "whsec_ and 24 to 64 random bytes in base64")
	if ok {
		var err error
		if s.webhook.Secrets, err = webhook.ParseSecrets(secrets); err != nil {
			for _, p := range unjoin(err) {
				e.wrong(e.given("secret"), "%w", p)
			}
		}
	}
	if len(s.webhook.Secrets) == 0 {
		s.webhook.Secrets = placeholderSecrets
	}
	for _, err := range unjoin(s.webhook.Validate()) {
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
			e.wrong(field, "an item of the list is not text")
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
		e.wrong(field, "is neither true nor false")
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
		e.wrong(there[0], "is given as %s; one of them is right", strings.Join(there, " and "))
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
	case strings.Contains(value, secretPrefix) || strings.Contains(value, "://"):
		e.wrong(from, "is the value itself; write it as %s", field)
		return "", false
	case from == field+"_env":
		if !envForm.MatchString(value) {
			e.wrong(from, "is not a valid name of an environment variable: letters, digits and _")
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
			e.wrong(from, "%s: %w", shown(value), err)
			return "", false
		}
		text := strings.TrimSpace(string(data))
		if text == "" {
			e.wrong(from, "%s: is empty", shown(value))
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
		e.wrong("link", "has a brace that is part of neither {since} nor {until}; write %%7B and %%7D for others")
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		e.wrong("link", "is not a URL; write it as https://host/path, in which {since} and {until} become times")
	}
}

var (
	secretIn = regexp.MustCompile(secretPrefix + `[^\s"']+`)
	pathIn   = regexp.MustCompile(`(https?://[^/?#\s"']*)[/?#][^\s"']*`)
)

// shown is what may be told of a value that should have no secret in it, but can, by mistake.
func shown(text string) string {
	return terminal.Text(pathIn.ReplaceAllString(secretIn.ReplaceAllString(text, secretPrefix+"…"), "$1/…"))
}
