package decider

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"spate/shared/decision"
)

// ageHeader says how old the view is, in seconds.
const ageHeader = "Spate-Decisions-Age"

// levelHeader is the level of the decision that holds longest.
const levelHeader = "Spate-Decision"

// answer is a decision in the form of CrowdSec's API.
type answer struct {
	ID       int64  `json:"id"`
	Origin   string `json:"origin"`
	Type     string `json:"type"`
	Scope    string `json:"scope"`
	Value    string `json:"value"`
	Duration string `json:"duration"` // that is left
	Scenario string `json:"scenario"`
	Until    string `json:"until"`
	UUID     string `json:"uuid,omitempty"` // the incident
}

func answerOf(d decision.Decision, now time.Time) answer {
	a := answer{
		ID: d.ID(), Origin: "spate", Type: d.Level, Scope: d.Scope, Value: d.Value, Duration: d.Until.Sub(now).Round(time.Millisecond).String(), Scenario: d.Rule,
		Until: d.Until.Format(time.RFC3339Nano), UUID: d.Incident,
	}
	if d.Rule == "" {
		a.Origin, a.Scenario = "manual", d.Reason
	}
	return a
}

// Handlers returns the HTTP handlers by pattern.
func (d *Decider) Handlers() map[string]http.Handler {
	return map[string]http.Handler{
		"GET /v1/decisions":        http.HandlerFunc(d.lookup),
		"GET /v1/decisions/stream": http.HandlerFunc(d.stream),
		"GET /v1/check":            http.HandlerFunc(d.check),
		"/":                        http.HandlerFunc(other),
	}
}

// paths are those of the pages, and of those that every service has.
var paths = []string{"/v1/decisions", "/v1/check", "/v1/decisions/stream", "/healthz", "/readyz", "/metrics"}

// other answers what is asked of no page.
func other(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	if slices.Contains(paths, r.URL.Path) {
		w.Header().Set("Allow", "GET, HEAD")
		refuse(w, http.StatusMethodNotAllowed, r.URL.Path+" supports only GET and HEAD")
		return
	}
	refuse(w, http.StatusNotFound, "page not found; the pages are "+strings.Join(paths, ", "))
}

// Values of headers that every answer has. They are shared, as nobody changes them.
var (
	jsonType = []string{"application/json"}
	noStore  = []string{"no-store"}
)

// usable reports whether the view may be answered from; otherwise it has answered.
func (d *Decider) usable(w http.ResponseWriter) bool {
	age, known := d.age()
	h := w.Header()
	h["Content-Type"], h["Cache-Control"] = jsonType, noStore
	switch {
	case !known:
		refuse(w, http.StatusServiceUnavailable, "the decisions have not been read yet")
	case d.cfg.MaxAge > 0 && age > d.cfg.MaxAge:
		h.Set(ageHeader, seconds(age))
		refuse(w, http.StatusServiceUnavailable, fmt.Sprintf("the decisions are %s s old, which is more than SPATE_DECIDE_MAX_AGE allows", seconds(age)))
	default:
		h.Set(ageHeader, seconds(age))
		return true
	}
	d.stale.Inc()
	return false
}

func seconds(age time.Duration) string { return strconv.FormatFloat(age.Seconds(), 'f', 1, 64) }

func refuse(w http.ResponseWriter, status int, text string) {
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)                           // it is read as it is
	_ = enc.Encode(map[string]string{"message": text}) // an error here is the client's going away
}

// maxValues bounds the values of one request.
const maxValues = 1000

// find returns the decisions about the values that a request asks for, in their order, or has answered it. CrowdSec's bouncers ask for an address with ip=.
func (d *Decider) find(w http.ResponseWriter, r *http.Request, now time.Time) (found []decision.Decision, ok bool) {
	q := r.URL.Query()
	scope, values := q.Get("scope"), q["value"]
	if ip := q["ip"]; len(ip) > 0 && scope == "" && len(values) == 0 {
		scope, values = "ip", ip
	}
	wrong := ""
	switch {
	case scope == "" || len(values) == 0 || slices.Contains(values, ""):
		wrong = "scope and value are required, as in " + r.URL.Path + "?scope=username&value=42; or ip, as in ?ip=192.0.2.1"
	case len(values) > maxValues:
		wrong = fmt.Sprintf("the request has %d values; the maximum is %d", len(values), maxValues)
	}
	if wrong != "" {
		w.Header().Set("Content-Type", "application/json")
		refuse(w, http.StatusBadRequest, wrong)
		return nil, false
	}
	if !d.usable(w) {
		return nil, false
	}
	kind, none := q.Get("type"), 0
	for _, value := range values {
		of := d.view.Lookup(scope, value, now)
		if kind != "" {
			of = slices.DeleteFunc(of, func(f decision.Decision) bool { return f.Level != kind })
		}
		if len(of) == 0 {
			none++
		}
		found = append(found, of...)
	}
	d.clear.Add(float64(none))
	d.flagged.Add(float64(len(values) - none))
	return found, true
}

// check answers by its status, for proxies: 204 nothing is decided about any of the values, 403 something is.
func (d *Decider) check(w http.ResponseWriter, r *http.Request) {
	found, ok := d.find(w, r, d.cfg.Now())
	switch {
	case !ok:
	case len(found) == 0:
		w.Header().Del("Content-Type")
		w.WriteHeader(http.StatusNoContent)
	default:
		w.Header().Set(levelHeader, found[0].Level)
		refuse(w, http.StatusForbidden, found[0].Level)
	}
}

// lookup answers what is decided about values.
func (d *Decider) lookup(w http.ResponseWriter, r *http.Request) {
	now := d.cfg.Now()
	found, ok := d.find(w, r, now)
	if !ok {
		return
	}
	if len(found) == 0 {
		_, _ = w.Write([]byte("null\n")) // as CrowdSec has it
		return
	}
	out := make([]answer, len(found))
	for i, f := range found {
		out[i] = answerOf(f, now)
	}
	_ = json.NewEncoder(w).Encode(out) // likewise
}

// changes is what a stream answers.
type changes struct {
	New     []answer `json:"new"`
	Deleted []answer `json:"deleted"`
}

// stream answers all decisions at a client's start, and then what has changed since it last asked. A client that is not known, because it
// asked another replica before, or that was away for too long, gets everything.
func (d *Decider) stream(w http.ResponseWriter, r *http.Request) {
	if !d.usable(w) {
		return
	}
	now := d.cfg.Now()
	q := r.URL.Query()
	wanted := func(decision.Decision) bool { return true }
	if scopes := q.Get("scopes"); scopes != "" {
		list := strings.Split(strings.ToLower(scopes), ",")
		wanted = func(f decision.Decision) bool { return slices.Contains(list, strings.ToLower(f.Scope)) }
	}
	out := changes{New: []answer{}, Deleted: []answer{}}
	who := clientOf(r)
	since, known := d.clients.last(who, now)
	startup := q.Get("startup") == "true" || !known
	var list []decision.Change
	var last uint64
	if !startup {
		var ok bool
		list, last, ok = d.view.Since(since)
		startup = !ok
	}
	if startup {
		var all []decision.Decision
		all, last = d.view.All(now)
		for _, f := range all {
			if wanted(f) {
				out.New = append(out.New, answerOf(f, now))
			}
		}
	}
	// Only the last change of each decision is reported.
	seen := make(map[string]bool)
	for _, c := range slices.Backward(list) {
		key := string(c.Decision.Key())
		switch {
		case seen[key] || !wanted(*c.Decision):
		case c.Ended || !c.Decision.Active(now):
			out.Deleted = append(out.Deleted, answerOf(*c.Decision, now))
		default:
			out.New = append(out.New, answerOf(*c.Decision, now))
		}
		seen[key] = true
	}
	if json.NewEncoder(w).Encode(out) == nil {
		d.clients.asked(who, last, now)
	}
}

// clients are those that follow the stream, with the last change that each was told.
type clients struct {
	mu   sync.Mutex
	list map[[sha256.Size]byte]client
}

type client struct {
	last uint64
	at   time.Time
}

const (
	// maxClients bounds those that are remembered; the one that has been away for longest is forgotten.
	maxClients = 1000
	// awayFor is when a client is forgotten.
	awayFor = time.Hour
)

// clientOf tells clients apart: by address, token and program.
func clientOf(r *http.Request) [sha256.Size]byte {
	host, _, _ := net.SplitHostPort(r.RemoteAddr) // it is the server's
	return sha256.Sum256([]byte(strings.Join([]string{host, r.Header.Get("X-Api-Key"), r.Header.Get("Authorization"), r.UserAgent(), r.URL.Query().Get("scopes")}, "\x00")))
}

func (c *clients) last(who [sha256.Size]byte, now time.Time) (uint64, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	known, ok := c.list[who]
	return known.last, ok && now.Sub(known.at) < awayFor
}

func (c *clients) asked(who [sha256.Size]byte, last uint64, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.list == nil {
		c.list = make(map[[sha256.Size]byte]client)
	}
	c.list[who] = client{last, now}
	if len(c.list) <= maxClients {
		return
	}
	var oldest [sha256.Size]byte
	at := now
	for k, v := range c.list {
		if v.at.Before(at) {
			oldest, at = k, v.at
		}
	}
	delete(c.list, oldest)
}
