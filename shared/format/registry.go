package format

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
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

	registryTimeout = 5 * time.Second
	maxSchemaBytes  = 8 << 20          // of an answer
	maxReferences   = 100              // of a schema, those of its references included
	askAgain        = 10 * time.Second // for a schema that cannot be used
)

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
		problem("schema-registry-url: missing, and other settings of the registry are there (SPATE_SCHEMA_REGISTRY_URL)")
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		problem("schema-registry-url: is not the address of a registry: https://host[:port], without name and password") // what it is may have a password
	case u.User != nil:
		problem("schema-registry-url: has a name or a password; set SPATE_SCHEMA_REGISTRY_USERNAME, and SPATE_SCHEMA_REGISTRY_PASSWORD or _PASSWORD_FILE")
	case u.RawQuery != "" || u.Fragment != "":
		problem("schema-registry-url: has a query or a fragment; give https://host[:port][/path]")
	}
	if c.Password != "" && c.PasswordFile != "" {
		problem("schema-registry-password-file: SPATE_SCHEMA_REGISTRY_PASSWORD is set, too; only one of them can be")
	}
	if c.Username == "" && (c.Password != "" || c.PasswordFile != "") {
		problem("schema-registry-username: missing, and there is a password")
	}
	if c.Username != "" && c.Password == "" && c.PasswordFile == "" {
		problem("schema-registry-password-file: missing; the username needs a password, in a file or in SPATE_SCHEMA_REGISTRY_PASSWORD")
	}
	return errors.Join(errs...)
}

// Registry has the schemas of a process, each fetched once. It is safe for concurrent use.
type Registry struct {
	client *sr.Client
	host   string // for people
	now    func() time.Time

	mu      sync.Mutex
	schemas map[int]*schema
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
	return &Registry{client: client, host: u.Host, now: time.Now, schemas: make(map[int]*schema)}, nil
}

// bounded bounds what answers are read of.
type bounded struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.RoundTripper.RoundTrip(r)
	if err == nil {
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(resp.Body, maxSchemaBytes), resp.Body}
	}
	return resp, err
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
	s, err := r.fetch(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("schema %d: %w", id, r.explain(err))
	}
	r.schemas[id] = s
	return s, nil
}

// fetch asks the registry for a schema and those that it refers to.
func (r *Registry) fetch(ctx context.Context, id int) (*schema, error) {
	ctx, cancel := context.WithTimeout(ctx, registryTimeout)
	defer cancel()
	s := &schema{id: id, asked: r.now()}
	text, err := r.client.SchemaByID(ctx, id)
	if unknown(err) {
		s.err = fmt.Errorf("the schema registry %s has no schema %d", r.host, id)
		return s, nil
	} else if err != nil {
		return nil, err
	}
	refs := &references{registry: r, seen: make(map[sr.SchemaReference]bool)}
	if text.Type != sr.TypeJSON { // JSON is read as it is
		if err := refs.add(ctx, text.References); unknown(err) {
			s.err = fmt.Errorf("schema %d refers to a schema that the registry %s does not have: %w", id, r.host, err)
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
		s.err = fmt.Errorf("is of a kind that spate does not know: %v", text.Type)
	}
	if s.err != nil {
		s.err = fmt.Errorf("schema %d cannot be used: %w", id, s.err)
	}
	return s, nil
}

var errReferences = fmt.Errorf("refers to more than %d others", maxReferences)

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
		s, err := r.registry.client.SchemaByVersion(ctx, ref.Subject, ref.Version)
		if err != nil {
			return err
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
		return fmt.Errorf("the schema registry %s cannot be asked (schema-registry-url): %w", r.host, err)
	}
	switch answer.StatusCode {
	case http.StatusUnauthorized:
		return fmt.Errorf("the schema registry %s does not accept the login: set SPATE_SCHEMA_REGISTRY_USERNAME and SPATE_SCHEMA_REGISTRY_PASSWORD (401)", r.host)
	case http.StatusForbidden:
		return fmt.Errorf("the schema registry %s does not let this user read schemas (403)", r.host)
	case http.StatusNotFound:
		return fmt.Errorf("%s answers, and is not a schema registry at that path (schema-registry-url): 404", r.host)
	}
	return fmt.Errorf("the schema registry %s answers with %d: %.200s", r.host, answer.StatusCode, answer.Message)
}
