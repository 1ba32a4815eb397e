package cli

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestEndpointsOfUnknownRules: whoever misspells a rule in an endpoint hears of it, and of no other one.
func TestEndpointsOfUnknownRules(t *testing.T) {
	r := newRuled(t)
	r.run(ExitOK, "apply", rulesFileOf(t, "rules.sql", twoRules))
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer server.Close()
	path := file(t, `
endpoints:
- {name: pager, url: "`+server.URL+`/hook", allow_private: true, secret: `+secretA+`, rules: [scraper, scrapper]}
- {name: chat, url: "`+server.URL+`/hook", allow_private: true, secret: `+secretA+`, rules: [scraper]}
- {name: all, url: "`+server.URL+`/hook", allow_private: true, secret: `+secretA+`}
`)
	const want = "endpoint pager: rules: no rule in force is named scrapper; did you mean scraper?"
	at := []string{"--endpoints", path, "--brokers", r.addr}
	db := []string{"--database-url", filepath.Join(t.TempDir(), "a.db")}
	for _, c := range []struct {
		args []string
		n    int
	}{
		{append([]string{"endpoints", "ls"}, db...), 1}, {append([]string{"endpoints", "ls", "--json"}, db...), 1},
		{[]string{"endpoints", "test", "pager"}, 1}, {[]string{"endpoints", "test", "chat"}, 0}, {[]string{"endpoints", "test", "all"}, 0},
	} {
		code, _, errs := spate(append(c.args, at...)...)
		if code != ExitOK || strings.Count(errs, "spate: warning: "+want+"\n") != c.n || strings.Count(errs, "rules: ") != c.n {
			t.Errorf("%q: exit code %d: %s", c.args, code, errs)
		}
	}
	_, out, _ := spate(append(append([]string{"doctor"}, db...), at...)...)
	says(t, out, "warning  endpoints     "+want+"\n                       -> correct the name in the endpoints file, or apply the rule (spate rules apply)\n")
	if n := strings.Count(out, "no rule in force"); n != 1 {
		t.Errorf("%d warnings: %s", n, out)
	}
	// Without the log of the rules nobody knows.
	r.broker.Close()
	if code, _, errs := spate(append(append([]string{"endpoints", "ls"}, db...), at...)...); code != ExitOK || strings.Contains(errs, "no rule in force") {
		t.Errorf("exit code %d: %s", code, errs)
	}
}

// saidOn is where a command writes until it has written what it is to; then it ends.
type saidOn struct {
	mu   sync.Mutex
	all  strings.Builder
	want string
	end  context.CancelFunc
}

func (s *saidOn) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all.Write(p)
	if strings.Contains(s.all.String(), s.want) {
		s.end()
	}
	return len(p), nil
}

// TestAlertOfUnknownRules: the services that notify say it when they start.
func TestAlertOfUnknownRules(t *testing.T) {
	r := newRuled(t)
	r.run(ExitOK, "apply", rulesFileOf(t, "rules.sql", twoRules))
	path := file(t, "endpoints:\n- {name: pager, url: 'https://pager.example/hook', secret: "+secretA+", rules: [scrapper]}\n")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	said := &saidOn{want: "endpoint pager: rules: no rule in force is named scrapper; did you mean scraper?", end: cancel}
	c := alertCommand{State: t.TempDir()}
	c.Brokers, c.Topic, c.MaxBatchBytes, c.HTTP, c.Endpoints = []string{r.addr}, "activity", 64<<20, "127.0.0.1:0", path
	if err := c.Run(&env{ctx: ctx, stdout: io.Discard, stderr: said}); err != nil && !errors.Is(err, context.Canceled) || !strings.Contains(said.all.String(), said.want) {
		t.Errorf("%v: %s", err, said.all.String())
	}
}
