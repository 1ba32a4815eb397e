package detector

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"spate/shared/alert"
	"spate/shared/ops"
)

// The client id of a member of the group is whatever its owner likes.
func TestAddressOf(t *testing.T) {
	for id, want := range map[string]string{
		"spate-detector@127.0.0.1:8080": "http://127.0.0.1:8080", "spate-detector@detector-0.svc:8080": "http://detector-0.svc:8080", "spate-detector@[::1]:1": "http://[::1]:1",
		"spate-detector-tls@detector-0.svc:8080": "https://detector-0.svc:8080", "spate-detector-tls@h:80/x": "", "spate-detector-tls@": "",
		"spate-detector@h:8080/redir?x=": "", "spate-detector@u:p@h:80": "", "spate-detector@h:80 ": "", "spate-detector@h": "", "spate-detector@:80": "",
		"spate-detector@h:0": "", "spate-detector@h:080": "", "spate-detector@h:99999": "", "spate-detector@h:http": "", "spate-detector@": "",
		"spate-detector@h\n:80": "", "spate-detector@h#:80": "", "spate-detector@[fe80::1%25eth0]:80": "", "spate-detector@a b:80": "", "spate-detector@\x1b[2J:80": "",
		"other@h:80": "", "h:80": "",
	} {
		if got, ok := addressOf(id); got != want || ok != (want != "") {
			t.Errorf("addressOf(%q) = %q, %v", id, got, ok)
		}
	}
}

// What a stranger answers is not believed, and leads nowhere.
func TestAnswers(t *testing.T) {
	start := time.UnixMilli(10_000).UTC()
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(Key{Token: json.RawMessage(`"u<1"`), Windows: []KeyWindow{{
		Rule: "scraper", AlertID: alert.ID("scraper", `"u<1"`, 10_000, 10_000), WindowStart: start, WindowEnd: start.Add(10 * time.Second), Count: 7,
	}}})
	if err != nil {
		t.Fatal(err)
	}
	good := b.Bytes()
	asked := 0
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { asked++; _, _ = w.Write(good) }))
	defer elsewhere.Close()
	t.Setenv("HTTP_PROXY", elsewhere.URL)
	for name, c := range map[string]struct {
		answer func(http.ResponseWriter, *http.Request)
		want   string
	}{
		"good":         {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(good) }, ""},
		"redirect":     {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere.URL, http.StatusFound) }, "status 302"},
		"other fields": {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"token":"u<1","x":1}`)) }, "unknown field"},
		"more":         {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(append(good, good...)) }, "unexpected data after"},
		"another key":  {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"token":"\u001b[2J"}`)) }, "a different key"},
		"alert id": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(strings.Replace(string(good), `"alert_id":"`, `"alert_id":"\u001b`, 1)))
		}, "an alert ID does not match"},
		"endless":   {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 2<<20)) }, "larger than"},
		"not owned": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusMisdirectedRequest) }, ErrNotOwner.Error()},
	} {
		server := httptest.NewServer(http.HandlerFunc(c.answer))
		var u Key
		body, err := get(t.Context(), ops.Asker{}, server.URL, keysPath+"x")
		if err == nil {
			u, err = parseKey(body, `"u<1"`)
		}
		server.Close()
		switch {
		case c.want == "" && (err != nil || len(u.Windows) != 1 || string(u.Token) != `"u<1"`):
			t.Errorf("%s: %+v, %v", name, u, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %+v, %v", name, u, err)
		}
	}
	if asked > 0 {
		t.Error("an answer, or a proxy, led elsewhere")
	}
}
