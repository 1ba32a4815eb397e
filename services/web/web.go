package web

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"spate/services/doctor"
	"spate/services/explainer"
	"spate/services/query"
	"spate/shared/incident"
	"spate/shared/ops"
	"spate/shared/store"
)

// Store is what the console needs of a database.
type Store interface {
	store.Silences
	Incidents(ctx context.Context, f store.IncidentFilter) iter.Seq2[incident.Incident, error]
	Mark(ctx context.Context, id string, m incident.Marked) error
	Alerts(ctx context.Context, f store.Filter) iter.Seq2[store.Alert, error]
	Alert(ctx context.Context, id string) (store.Alert, error)
	ListDeliveries(ctx context.Context, f store.DeliveryFilter) iter.Seq2[store.Delivery, error]
	ListTries(ctx context.Context, f store.TryFilter) iter.Seq2[store.Try, error]
	Resend(ctx context.Context, now time.Time, f store.DeliveryFilter) (int, error)
	Endpoints(ctx context.Context) ([]store.EndpointState, error)
	AddTest(ctx context.Context, now time.Time, endpoint string) (store.Delivery, error)
	SetEnabled(ctx context.Context, now time.Time, endpoint string, enabled bool, reason string) error
}

// Key are the values of key columns as a person writes them; nil is NULL.
type Key = map[string]*string

// Answer is why something was flagged, or not.
type Answer struct {
	*explainer.Answer
	Deliveries any `json:"deliveries"`
}

// Why answers why.
type Why interface {
	// OfID explains an alert or an incident, by its id.
	OfID(ctx context.Context, id string) (*Answer, error)
	// OfKey explains a key at an event time, or in the recent past if it is zero, under a rule, or under all if it is empty.
	OfKey(ctx context.Context, key Key, rule string, at time.Time) ([]*Answer, error)
	// Windows returns the windows of a key between two event times, or in the recent past if both are zero. In mode aws it returns none, because that mode does not
	// record what became of each event.
	Windows(ctx context.Context, key Key, rule string, from, until time.Time) ([]*explainer.Windows, error)
}

// Rule is a rule that is in force, or is going to be.
type Rule struct {
	Name   string    `json:"name"`
	Mode   string    `json:"mode"`
	Window string    `json:"window"`
	Key    []string  `json:"key"`
	Since  int64     `json:"since"`          // revision; 0 is the rule from the settings
	From   time.Time `json:"from,omitzero"`  // it applies to windows that begin then or later; zero: from the beginning
	Until  time.Time `json:"until,omitzero"` // and before then; zero: no end is known
	// First is when its first window begins, if that is known, and Ends when its last one ends.
	First, Ends time.Time `json:"-"`

	Text   string     `json:"text"`
	Early  bool       `json:"opens_early"`
	Memory string     `json:"memory"`          // what it needs, in words
	Stats  *RuleStats `json:"stats,omitempty"` // nil: the database cannot be reached
}

// Pending reports whether its first window is yet to begin.
func (r Rule) Pending() bool { return r.First.After(time.Now()) }

// RuleStats are figures about a rule's incidents of the last seven days.
type RuleStats struct {
	Incidents  int     `json:"incidents"`
	Open       int     `json:"open"`
	Windows24h int     `json:"windows_24h"`
	Keys       int     `json:"keys"`
	Attack     int     `json:"attack"`
	Benign     int     `json:"benign"`
	Precision  float64 `json:"precision"` // -1: no marks
}

// Revision is a state of the rules.
type Revision struct {
	N       int64     `json:"revision"`
	At      time.Time `json:"at"`
	Author  string    `json:"author"`
	Message string    `json:"message,omitempty"`
	InForce string    `json:"in_force"` // a sentence without its point
	Text    string    `json:"text"`
}

// Rules are those of a pipeline.
type Rules interface {
	// List returns the rules that are in force, those that are going to be, and the revisions, the newest first.
	List(ctx context.Context) ([]Rule, []Revision, error)
	// Check returns the faults of rules, as spate rules check prints them. SQL over the log is checked when it runs.
	Check(ctx context.Context, text string) []Fault
	// Example is a rule like those in force; empty if there is none.
	Example(ctx context.Context) string
	// IsRule reports whether a text is a rule: it has a window.
	IsRule(text string) bool
	// Save adds the rules of a text to those in force, in shadow mode, and returns the number of the revision.
	Save(ctx context.Context, text, author string) (int64, error)
	// Draft returns the rules of a revision as the start of a change; a negative revision means the newest one.
	Draft(ctx context.Context, revision int64) (Draft, error)
	// Review says what a draft would change as the next revision.
	Review(ctx context.Context, d Draft) (Review, error)
	// Apply makes a draft the next revision, and returns its number. It fails if the newest revision is no longer the draft's base.
	Apply(ctx context.Context, d Draft) (int64, error)
}

// Draft is a text that may become the next revision of the rules.
type Draft struct {
	Base            int64 // the newest revision when it was begun
	Text            string
	Author, Message string
}

// Review is what a draft would change.
type Review struct {
	Faults   []Fault // if there are any, nothing else is known
	Same     bool    // the text is that of the newest revision
	Revision int64   // that it would be
	InForce  string
	Summary  string // of the rules
	Rules    []RuleChange
	Notes    []string
	Diff     []string // lines of the text, as diff -u prints them
}

// RuleChange is how a rule would change.
type RuleChange struct {
	Name, Change, Mode, Window string
	Key, Parts                 []string
}

// Fault is an error in a rules file.
type Fault struct {
	Line   int    `json:"line"`
	Column int    `json:"column"`
	Text   string `json:"text"`
	Shown  string `json:"shown"` // with the line and a caret below the place
}

// Query runs statements over the log.
type Query interface {
	// Run runs a statement over the events since a time, and passes its columns and rows on. key is the index of the column that is the key of a rule; -1 without one.
	Run(ctx context.Context, statement string, since time.Duration, columns func(names []string, key int) error, row func(values []any) error) (Result, error)
	// Follow runs a rule over the events since a time and those that come, and passes a row on when its window closes, until ctx ends or a bound is reached.
	Follow(ctx context.Context, statement string, since time.Duration, columns func(names []string) error, row func(values []any) error) (Result, error)
}

// Result is how a statement went.
type Result struct {
	Rows    int64
	Read    int64 // records
	Of      int64 // records that there are; 0 if that is not known
	Invalid int64 // records that are not events
	Late    int64 // events that were too late for the rule
	Partial string
	Notes   []string
	Elapsed time.Duration
	Rule    bool // the engine has evaluated it
	Profile *query.Profile
}

// Config says where the console reads, and who may see it. What is nil is left out of the pages.
type Config struct {
	// Store returns the database, or why it is away.
	Store func(ctx context.Context) (Store, error)
	// Scans says that the store finds incidents and alerts by reading everything that it has. Then Now lists only the open ones, which have an index, and Now and Health alone
	// update by themselves.
	Scans bool
	// Source are figures of the pipeline.
	Source Source
	Why    Why
	Rules  Rules
	Query  Query
	// Doctor checks what the pipeline depends on.
	Doctor func(ctx context.Context) []doctor.Finding
	// Changes calls back when an alert may have changed, until ctx ends. Pages are also updated whenever figures are read.
	Changes func(ctx context.Context, changed func())

	// Token returns the token that visitors need; nil: none.
	Token func() (string, error)
	// TrustedHeader is set by a proxy in front that has authenticated the visitor, whose name is its value. Nobody else may reach the console then.
	TrustedHeader string
	// Hosts are names that it may be asked under, besides localhost.
	Hosts []string

	// Name is what the console shows: the topic or stream.
	Name string
	Log  *slog.Logger
}

// Server serves the console.
type Server struct {
	cfg       Config
	hub       *hub
	sampler   *sampler
	fragments fragments
	sessions  sessions
	checks    checks
	handler   http.Handler
	ending    chan struct{}
}

// New returns a console that does not run yet.
func New(cfg Config) *Server {
	s := &Server{cfg: cfg, hub: newHub(), sampler: &sampler{log: cfg.Log}, ending: make(chan struct{})}
	if cfg.Source != nil {
		s.sampler.meter = &Meter{Source: cfg.Source}
	}
	s.handler = s.guard(s.routes())
	return s
}

// Handler serves the pages.
func (s *Server) Handler() http.Handler { return s.handler }

// Changed says that what the pages show has changed.
func (s *Server) Changed() { s.hub.Changed() }

// Run serves the pages at a listener until ctx ends; tls, if not nil, encrypts them.
func (s *Server) Run(ctx context.Context, ln net.Listener, encrypt *tls.Config) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { s.hub.run(ctx) })
	wg.Go(func() { s.sampler.run(ctx, s.hub.Changed) })
	if s.cfg.Changes != nil {
		wg.Go(func() { s.cfg.Changes(ctx, s.hub.Changed) })
	}
	server := ops.HTTPServer(s.handler)
	server.ErrorLog = slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug)
	server.WriteTimeout = 2 * answerTime // streams set their own
	if encrypt != nil {
		ln = tls.NewListener(ln, encrypt)
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(ln) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve the console: %w", err)
	case <-ctx.Done():
	}
	close(s.ending)
	end, stop := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer stop()
	if err := server.Shutdown(end); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("stop the console: %w", err)
	}
	_ = server.Close() // of what did not end in time
	return nil
}
