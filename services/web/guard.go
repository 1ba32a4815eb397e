package web

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// policy is what a page may load: its own style, script and data, nothing from elsewhere, nothing written into the page.
const policy = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// cookie is where a browser keeps that somebody has logged in.
const cookie = "spate-session"

// sessions are the logins. They end with the process.
type sessions struct {
	mu   sync.Mutex
	ends map[[sha256.Size]byte]session
}

type session struct {
	until time.Time
	token [sha256.Size]byte // of the token that it was opened with: another token ends it
}

const (
	sessionTime = 12 * time.Hour
	maxSessions = 1000
)

func (s *sessions) open(token string, now time.Time) string {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // it never fails
	id := hex.EncodeToString(b)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ends == nil {
		s.ends = make(map[[sha256.Size]byte]session)
	}
	for key, e := range s.ends {
		if !e.until.After(now) || len(s.ends) >= maxSessions {
			delete(s.ends, key)
		}
	}
	s.ends[sha256.Sum256([]byte(id))] = session{now.Add(sessionTime), sha256.Sum256([]byte(token))}
	return id
}

func (s *sessions) close(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.ends, sha256.Sum256([]byte(id)))
}

func (s *sessions) holds(id, token string, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.ends[sha256.Sum256([]byte(id))]
	return ok && e.until.After(now) && e.token == sha256.Sum256([]byte(token))
}

// guard lets those pass who may see the pages.
func (s *Server) guard(next http.Handler) http.Handler {
	// A page of a stranger's cannot write here: browsers say where a request comes from.
	origin := http.NewCrossOriginProtection()
	origin.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.refuse(w, r, http.StatusForbidden, "This request was sent by a page on another site, so nothing was changed.")
	}))
	checked := origin.Handler(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		most := int64(maxForm)
		if r.URL.Path == rulesPath {
			most = maxRulesForm
		}
		r.Body = http.MaxBytesReader(w, r.Body, most)
		if name, ok := s.servedAs(r.Host); !ok {
			s.refuse(w, r, http.StatusForbidden, fmt.Sprintf("The console is not served under the host name %.100q. Use its IP address, or start it with --public-host %.100s.", name, name))
			return
		}
		if r.URL.Path == "/healthz" || strings.HasPrefix(r.URL.Path, "/assets/") || r.URL.Path == "/login" {
			checked.ServeHTTP(w, r)
			return
		}
		ok, err := s.allowed(r)
		switch {
		case err != nil:
			s.cfg.Log.Error("cannot read the console token", "error", err)
			s.refuse(w, r, http.StatusInternalServerError, "The console cannot read its token; see its log for the reason.")
		case ok:
			checked.ServeHTTP(w, r)
		case s.cfg.TrustedHeader != "":
			s.refuse(w, r, http.StatusUnauthorized, fmt.Sprintf("The proxy in front of the console did not send your name (%s).", s.cfg.TrustedHeader))
		case strings.HasPrefix(r.URL.Path, "/api/") || r.Method != http.MethodGet || r.Header.Get(fragmentHeader) != "":
			h.Set("WWW-Authenticate", `Bearer realm="spate"`)
			s.refuse(w, r, http.StatusUnauthorized, "A token is required: send it as Authorization: Bearer ..., or log in at /login.")
		default:
			http.Redirect(w, r, "/login?next="+escapeQuery(r.URL.RequestURI()), http.StatusSeeOther)
		}
	})
}

// servedAs returns the host name of a request, and whether the console is served under it. A page of a stranger's can make its own name point here, so names are known ones; an IP
// address cannot be a stranger's.
func (s *Server) servedAs(host string) (string, bool) {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	return host, net.ParseIP(host) != nil || slices.ContainsFunc(append([]string{"localhost"}, s.cfg.Hosts...), func(n string) bool { return host != "" && strings.EqualFold(n, host) })
}

// allowed reports whether somebody may see the pages.
func (s *Server) allowed(r *http.Request) (bool, error) {
	if s.cfg.TrustedHeader != "" {
		names := r.Header.Values(s.cfg.TrustedHeader) // a second one may be the visitor's own
		return len(names) == 1 && names[0] != "", nil
	}
	if s.cfg.Token == nil {
		return true, nil
	}
	token, err := s.cfg.Token()
	if err != nil {
		return false, err
	}
	if token == "" {
		return true, nil
	}
	if scheme, given, ok := strings.Cut(r.Header.Get("Authorization"), " "); ok && strings.EqualFold(scheme, "Bearer") {
		return same(given, token), nil
	}
	c, err := r.Cookie(cookie)
	return err == nil && s.sessions.holds(c.Value, token, time.Now()), nil
}

func same(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

// who is the person who makes a request, for what is written down.
func (s *Server) who(r *http.Request, given string) string {
	if s.cfg.TrustedHeader != "" {
		return r.Header.Get(s.cfg.TrustedHeader)
	}
	if given = strings.TrimSpace(given); given != "" {
		return given
	}
	return "console"
}

// here returns an address of the console that somebody wants to go to, or its beginning.
func here(next string) string {
	u, err := url.Parse(next)
	if err != nil || u.Scheme != "" || u.Host != "" || u.Opaque != "" || !strings.HasPrefix(u.Path, "/") || strings.HasPrefix(u.Path, "//") || strings.ContainsFunc(next, func(r rune) bool { return r <= ' ' || r == '\\' }) {
		return "/"
	}
	return u.RequestURI()
}

func (s *Server) login(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil { // no files are taken
		s.refuse(w, r, http.StatusBadRequest, "The form cannot be read.")
		return
	}
	next := here(r.Form.Get("next"))
	if s.cfg.Token == nil || s.cfg.TrustedHeader != "" {
		http.Redirect(w, r, next, http.StatusSeeOther)
		return
	}
	wrong := ""
	if r.Method == http.MethodPost {
		token, err := s.cfg.Token()
		switch {
		case err != nil:
			s.cfg.Log.Error("cannot read the console token", "error", err)
			wrong = "The console cannot read its token; see its log for the reason."
		case same(strings.TrimSpace(r.Form.Get("token")), token):
			http.SetCookie(w, &http.Cookie{Name: cookie, Value: s.sessions.open(token, time.Now()), Path: "/", HttpOnly: true, Secure: r.TLS != nil, SameSite: http.SameSiteStrictMode, MaxAge: int(sessionTime.Seconds())})
			http.Redirect(w, r, next, http.StatusSeeOther)
			return
		default:
			wrong = "The token is wrong."
			w.WriteHeader(http.StatusUnauthorized)
		}
	}
	s.render(w, r, "login", page{Title: "Log in", Data: struct{ Next, Wrong string }{next, wrong}, Bare: true})
}

func (s *Server) logout(w http.ResponseWriter, r *http.Request) {
	if c, err := r.Cookie(cookie); err == nil {
		s.sessions.close(c.Value)
	}
	http.SetCookie(w, &http.Cookie{Name: cookie, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode, MaxAge: -1})
	http.Redirect(w, r, "/login", http.StatusSeeOther)
}
