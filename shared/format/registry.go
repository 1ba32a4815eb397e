package format

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/avro"
	"github.com/twmb/franz-go/pkg/sr"
	"google.golang.org/protobuf/reflect/protoreflect"

	"spate/shared/kafka/security"
)

const (
	// magic is the first byte of Confluent's wire format: then come the schema's id, four bytes, and the value. No JSON begins with it.
	magic = 0

	// registryTimeout bounds what a schema and those that it refers to take to be fetched. What has come until then need not be fetched again.
	registryTimeout = 5 * time.Second
	maxSchemaBytes  = 8 << 20          // of an answer
	maxReferences   = 100              // of a schema, those of its references included
	askAgain        = 10 * time.Second // for a schema that cannot be used
	// maxUnknown is how many ids that the registry does not have are asked for in askAgain: what comes in must not decide how often.
	maxUnknown = 100
)

// errTooLarge: an answer is longer than maxSchemaBytes.
var errTooLarge = fmt.Errorf("schema is larger than %d bytes", maxSchemaBytes)

// header splits a value of Confluent's wire format.
func header(data []byte) (id int, body []byte, ok bool) {
	if len(data) < 5 || data[0] != magic {
		return 0, nil, false
	}
	return int(int32(binary.BigEndian.Uint32(data[1:]))), data[5:], true
}

// RegistryConfig says where schemas are.
type RegistryConfig struct {
	URL string
	security.Registry
}

// Validate reports every problem at once; it does no I/O.
func (c RegistryConfig) Validate() error {
	var errs []error
	problem := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	u, err := url.Parse(c.URL)
	switch {
	case c.URL == "":
		problem("schema-registry-url: missing, but other schema registry settings are set; set SPATE_SCHEMA_REGISTRY_URL")
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		problem("schema-registry-url: must be https://host[:port][/path], without a user name or password") // what it is may have a password
	case u.User != nil:
		problem("schema-registry-url: must not contain a user name or password; set SPATE_SCHEMA_REGISTRY_USERNAME, and SPATE_SCHEMA_REGISTRY_PASSWORD or _PASSWORD_FILE")
	case u.RawQuery != "" || u.Fragment != "":
		problem("schema-registry-url: must not contain a query or fragment; use https://host[:port][/path]")
	}
	if c.Password != "" && c.PasswordFile != "" {
		problem("schema-registry-password-file: SPATE_SCHEMA_REGISTRY_PASSWORD is also set; set only one of them")
	}
	if c.Username == "" && (c.Password != "" || c.PasswordFile != "") {
		problem("schema-registry-username: missing, but a password is set; set SPATE_SCHEMA_REGISTRY_USERNAME")
	}
	if c.Username != "" && c.Password == "" && c.PasswordFile == "" {
		problem("schema-registry-password-file: missing; the user name requires a password, in a file or in SPATE_SCHEMA_REGISTRY_PASSWORD")
	}
	return errors.Join(errs...)
}

// Registry has the schemas of a process, each fetched once. It is safe for concurrent use.
type Registry struct {
	client *sr.Client
	host   string // for people
	now    func() time.Time

	mu       sync.Mutex
	schemas  map[int]*schema
	versions map[sr.SchemaReference]sr.SubjectSchema // that were referred to
	unknown  []time.Time                             // when ids were asked for that the registry does not have, since askAgain
}

// schema is one of a registry.
type schema struct {
	id   int
	json bool
	// avro or proto is what the schema has, of these kinds.
	avro  *avro.Schema
	types *avroType
	proto protoreflect.FileDescriptor

	err   error // why it cannot be used
	asked time.Time
}

// NewRegistry returns the registry at an address, and reads its files once, so that a wrong one is an error at the start.
func NewRegistry(c RegistryConfig, log *slog.Logger) (*Registry, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	hc, err := c.Client(log)
	if err != nil {
		return nil, err
	}
	hc.Timeout = registryTimeout
	hc.Transport = bounded{hc.Transport}
	u, _ := url.Parse(c.URL) // it is valid
	client, err := sr.NewClient(sr.URLs(strings.TrimRight(c.URL, "/")), sr.HTTPClient(hc), sr.UserAgent("spate"), sr.LogLevel(sr.LogLevelNone))
	if err != nil {
		return nil, err
	}
	return &Registry{client: client, host: u.Host, now: time.Now, schemas: make(map[int]*schema), versions: make(map[sr.SchemaReference]sr.SubjectSchema)}, nil
}

// bounded bounds what answers are read of.
type bounded struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.RoundTripper.RoundTrip(r)
	if err == nil {
		resp.Body = &body{resp.Body, maxSchemaBytes}
	}
	return resp, err
}

// body is that of an answer.
type body struct {
	io.ReadCloser
	left int
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.left -= n; b.left < 0 {
		return 0, errTooLarge
	}
	return n, err
}

// Check reports whether the registry answers.
func (r *Registry) Check(ctx context.Context) error {
	_, err := r.client.SupportedTypes(ctx)
	return r.explain(err)
}

// schema returns the schema with an id. One that the registry does not have, or that cannot be used, says so in its err; an error means that the registry
// could not be asked.
func (r *Registry) schema(ctx context.Context, id int) (*schema, error) {
	r.mu.Lock()
	defer r.mu.Unlock() // one question at a time: whoever needs a schema cannot go on without it
	s := r.schemas[id]
	if s != nil && (s.err == nil || r.now().Sub(s.asked) < askAgain) {
		return s, nil
	}
	now := r.now()
	r.unknown = slices.DeleteFunc(r.unknown, func(asked time.Time) bool { return now.Sub(asked) >= askAgain })
	if len(r.unknown) == 0 {
		maps.DeleteFunc(r.schemas, func(_ int, s *schema) bool { return s.err != nil && now.Sub(s.asked) >= askAgain })
	}
	if s == nil && len(r.unknown) >= maxUnknown {
		return &schema{id: id, err: fmt.Errorf("the schema registry %s had no usable schema for %d IDs requested in the last %v; not requesting schema %d for now", r.host, maxUnknown, askAgain, id)}, nil
	}
	s, err := r.fetch(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("schema %d: %w", id, r.explain(err))
	}
	if s.err != nil {
		r.unknown = append(r.unknown, now)
	}
	r.schemas[id] = s
	return s, nil
}

// fetch asks the registry for a schema and those that it refers to.
func (r *Registry) fetch(ctx context.Context, id int) (*schema, error) {
	asking, cancel := context.WithTimeout(ctx, registryTimeout)
	defer cancel()
	s := &schema{id: id, asked: r.now()}
	text, err := r.client.SchemaByID(asking, id)
	switch {
	case unknown(err):
		s.err = fmt.Errorf("the schema registry %s has no schema %d", r.host, id)
		return s, nil
	case errors.Is(err, errTooLarge), err != nil && strings.Contains(err.Error(), "unknown schema type"): // which has no name
		s.err = fmt.Errorf("schema %d of the registry %s is unusable: %w", id, r.host, err)
		return s, nil
	case err != nil:
		return nil, err
	}
	refs := &references{registry: r, seen: make(map[sr.SchemaReference]bool)}
	if text.Type != sr.TypeJSON { // JSON is read as it is
		if err := refs.add(asking, text.References); unknown(err) {
			s.err = fmt.Errorf("schema %d references a schema that the registry %s does not have: %w", id, r.host, err)
			return s, nil
		} else if errors.Is(err, errReferences) {
			s.err = fmt.Errorf("schema %d %w", id, err)
			return s, nil
		} else if err != nil {
			return nil, err
		}
	}
	switch text.Type {
	case sr.TypeJSON:
		s.json = true
	case sr.TypeAvro:
		if s.avro, s.err = parseAvro(text.Schema, refs.all); s.err == nil {
			s.types, s.err = avroTypes{}.make(s.avro.Root(), "")
		}
	case sr.TypeProtobuf:
		s.proto, s.err = parseProtobuf(ctx, text.Schema, refs.all)
	default:
		s.err = fmt.Errorf("it has an unsupported type: %v", text.Type)
	}
	if err := ctx.Err(); err != nil { // it may be why it could not be compiled
		return nil, err
	}
	if s.err != nil {
		s.err = fmt.Errorf("schema %d is unusable: %w", id, s.err)
	}
	return s, nil
}

var errReferences = fmt.Errorf("references more than %d other schemas", maxReferences)

// references are the schemas that another one refers to, those first that others need.
type references struct {
	registry *Registry
	seen     map[sr.SchemaReference]bool
	all      []reference
}

type reference struct{ name, text string }

func (r *references) add(ctx context.Context, refs []sr.SchemaReference) error {
	for _, ref := range refs {
		if r.seen[ref] {
			continue
		}
		if r.seen[ref] = true; len(r.seen) > maxReferences {
			return errReferences
		}
		s, known := r.registry.versions[ref]
		if !known {
			var err error
			if s, err = r.registry.client.SchemaByVersion(ctx, ref.Subject, ref.Version); err != nil {
				return err
			}
			r.registry.versions[ref] = s
		}
		if err := r.add(ctx, s.References); err != nil {
			return err
		}
		r.all = append(r.all, reference{ref.Name, s.Schema.Schema})
	}
	return nil
}

// unknown reports whether the registry answered that it does not have something. A web server that is not a registry also says 404, but in its own words.
func unknown(err error) bool {
	var answer *sr.ResponseError
	return errors.As(err, &answer) && answer.StatusCode == http.StatusNotFound && sr.IsNotFoundError(answer.ErrorCode)
}

// explain says what an error of the registry means, and what to do.
func (r *Registry) explain(err error) error {
	var answer *sr.ResponseError
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &answer):
		if u := (*url.Error)(nil); errors.As(err, &u) {
			err = u.Err // it has the address, and that it is a GET
		}
		return fmt.Errorf("cannot connect to the schema registry %s (schema-registry-url): %w", r.host, err)
	}
	switch answer.StatusCode {
	case http.StatusUnauthorized:
		return fmt.Errorf("the schema registry %s rejected the login: check SPATE_SCHEMA_REGISTRY_USERNAME and SPATE_SCHEMA_REGISTRY_PASSWORD (401)", r.host)
	case http.StatusForbidden:
		return fmt.Errorf("the schema registry %s does not allow this user to read schemas (403)", r.host)
	case http.StatusNotFound:
		return fmt.Errorf("%s has no schema registry at that path (schema-registry-url): 404", r.host)
	}
	return fmt.Errorf("the schema registry %s returned status %d", r.host, answer.StatusCode) // what it says may repeat what it was sent, the password too
}
