package web

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"spate/shared/alert"
	"spate/shared/store"
)

// maxResult bounds the rows of a result that a page shows.
const maxResult = 500

type studioView struct {
	Statement string
	Since     string
	Name      string // of the rule
	Faults    []Fault
	Checked   bool // it has no faults
	IsQuery   bool // and is not a rule
	Columns   []string
	Rows      [][]string
	Result    Result
	More      int64
	Added     string
	Ran       bool
	CanRun    bool
	CanSave   bool
	Live      bool // rows follow
	Time      chart
}

// spans are the times that the studio offers.
var spans = []string{"1m", "10m", "1h", "6h", "24h"}

// Spans implements the template's list.
func (studioView) Spans() []string { return spans }

const example = `SELECT user_id, COUNT(*) AS events
FROM activity
GROUP BY user_id, TUMBLE(txn_timestamp, INTERVAL '10' SECOND)
HAVING COUNT(*) > 5`

// studio runs a statement on the log, or checks or saves a rule.
func (s *Server) studio(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), answerTime)
	defer cancel()
	perr := r.ParseForm()
	v := studioView{Statement: strings.ReplaceAll(r.FormValue("statement"), "\r\n", "\n"), Since: r.FormValue("since"), Name: r.FormValue("name"), CanRun: s.cfg.Query != nil, CanSave: s.cfg.Rules != nil}
	if v.Statement == "" {
		v.Statement = example
		if s.cfg.Rules != nil {
			v.Statement = cmp.Or(s.cfg.Rules.Example(ctx), example)
		}
	}
	if v.Since == "" {
		v.Since = spans[1]
	}
	var err error
	if perr != nil {
		err = &badRequest{fmt.Errorf("the statement cannot be read: %w", perr)}
	} else if r.Method == http.MethodPost {
		switch r.FormValue("do") {
		case "save":
			if v.Faults, err = s.saveRule(ctx, r, v.Statement); err == nil && len(v.Faults) == 0 {
				s.hub.Changed()
				http.Redirect(w, r, "/rules?done=saved", http.StatusSeeOther)
				return
			}
		case "check":
			v.Faults = s.cfg.Rules.Check(ctx, v.Statement)
			v.Checked = len(v.Faults) == 0
			v.IsQuery = v.Checked && !s.cfg.Rules.IsRule(v.Statement)
		case "live":
			s.follow(w, r, v)
			return
		default:
			err = s.run(ctx, &v)
		}
	}
	s.showStudio(w, r, v, err)
}

func (s *Server) showStudio(w http.ResponseWriter, r *http.Request, v studioView, err error) {
	p := page{Title: "Studio", View: "studio", Data: v, Err: err}
	if r.Header.Get(fragmentHeader) == "" {
		s.render(w, r, "studio", p)
		return
	}
	body, rerr := s.execute("studio", "live", s.framed(r, p))
	if rerr != nil {
		s.cfg.Log.Error("cannot render a console page", "page", "studio", "error", rerr)
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write(body) // an error here is the visitor's going away
}

// span is the time before now that a statement reads.
func (s *Server) span(v studioView) (time.Duration, error) {
	since, err := time.ParseDuration(v.Since)
	if err != nil || since <= 0 {
		return 0, &badRequest{errors.New("since: is not a duration; use a number and a unit, such as 10m")}
	}
	if s.cfg.Query == nil {
		return 0, errors.New("this console cannot run statements")
	}
	return since, nil
}

// rowsGoHere is where a page is cut to let rows in, and endGoesHere where it says why there are no more. Text of events cannot contain them, because it is escaped.
const rowsGoHere, endGoesHere = "<!--rows-->", "<!--end-->"

// maxLive bounds the rows of a rule that is followed.
const maxLive = 2000

var errEnough = errors.New("a page shows no more rows")

// follow runs a rule live: the page stays open, and gets a row when its window closes.
func (s *Server) follow(w http.ResponseWriter, r *http.Request, v studioView) {
	since, err := s.span(v)
	if err != nil {
		s.showStudio(w, r, v, err)
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	go func() {
		select {
		case <-s.ending:
			cancel()
		case <-ctx.Done():
		}
	}()
	out, tail, rows := http.NewResponseController(w), []byte(nil), 0
	send := func(b []byte) error {
		if err := out.SetWriteDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		if _, err := w.Write(b); err != nil {
			return err
		}
		return out.Flush()
	}
	result, err := s.cfg.Query.Follow(ctx, v.Statement, since, func(names []string) error {
		v.Columns, v.Live = names, true
		part := "frame"
		if r.Header.Get(fragmentHeader) != "" {
			part = "live"
		}
		body, err := s.execute("studio", part, s.framed(r, page{Title: "Studio", View: "studio", Data: v}))
		if err != nil {
			return err
		}
		head, rest, _ := bytes.Cut(body, []byte(rowsGoHere))
		tail = rest
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		return send(head)
	}, func(row []any) error {
		if rows++; rows > maxLive {
			return errEnough
		}
		var b bytes.Buffer
		b.WriteString("<tr>")
		for _, x := range row {
			b.WriteString("<td><bdi>" + esc(cell(cellOf(x))) + "</bdi></td>")
		}
		b.WriteString("</tr>\n")
		return send(b.Bytes())
	})
	if tail == nil { // nothing was sent
		s.showStudio(w, r, v, err)
		return
	}
	why := "The console is shutting down."
	switch {
	case errors.Is(err, errEnough):
		why = fmt.Sprintf("The run ended after %s rows. To see fewer rows, raise the rule's limit.", grouped(maxLive))
	case err != nil:
		why = message(err)
	case result.Partial != "" && ctx.Err() == nil:
		why = fmt.Sprintf("The run ended because it reached the %s limit.", result.Partial)
	}
	for _, note := range result.Notes {
		why += " Note: " + note + "."
	}
	_ = send(bytes.Replace(tail, []byte(endGoesHere), []byte(`<p class="note ended" role="status">`+esc(why)+"</p>"), 1)) // an error here is the visitor's going away
}

func (s *Server) run(ctx context.Context, v *studioView) error {
	since, err := s.span(*v)
	if err != nil {
		return err
	}
	v.Ran = true
	keys, place := make(map[string]bool), -1
	v.Result, err = s.cfg.Query.Run(ctx, v.Statement, since, func(names []string, key int) error {
		v.Columns, place = append(v.Columns, names...), key
		return nil
	}, func(row []any) error {
		if len(v.Rows) == maxResult {
			v.More++
		} else {
			cells := make([]string, len(row))
			for i, x := range row {
				cells[i] = cellOf(x)
			}
			v.Rows = append(v.Rows, cells)
		}
		if place >= 0 && len(keys) < maxKeys {
			keys[cellOf(row[place])] = true
		}
		return nil
	})
	if err != nil {
		v.Ran = false
		return err
	}
	if p := v.Result.Profile; p != nil && len(p.Slots) > 1 {
		v.Time = chart{Title: "When the windows began", SVG: slots(p.Slots)}
	}
	if place < 0 || s.cfg.Rules == nil {
		return nil
	}
	v.Added, err = s.added(ctx, v.Columns[place], keys, time.Now().Add(-since))
	return err
}

// maxKeys bounds the keys that are compared with those of incidents: a result has no more.
const maxKeys = 100_000

// added says which keys a rule finds that no live rule has found since a time.
func (s *Server) added(ctx context.Context, column string, keys map[string]bool, since time.Time) (string, error) {
	st, err := s.store(ctx)
	if err != nil {
		return "", nil // there is nothing to compare with
	}
	rules, _, err := s.cfg.Rules.List(ctx)
	if err != nil {
		return "", err
	}
	if !slices.ContainsFunc(rules, func(r Rule) bool { return r.Mode == "live" && slices.Equal(r.Key, []string{column}) }) {
		return fmt.Sprintf("%s. No live rule has the key %s, so there is nothing to compare with.", count(int64(len(keys)), "key", "keys"), column), nil
	}
	live, looked := make(map[string]bool), 0
	for i, err := range st.Incidents(ctx, store.IncidentFilter{Since: since, Newest: true, Limit: statIncidents}) {
		if err != nil {
			return "", err
		}
		looked++
		key, _ := keyOf(i.Key)
		if v := key[column]; v != nil && i.Mode != alert.Shadow {
			live[*v] = true
		}
	}
	var fresh []string
	for key := range keys {
		if !live[key] {
			fresh = append(fresh, key)
		}
	}
	slices.Sort(fresh)
	text := fmt.Sprintf("%s; %s an incident from a live rule in this period", count(int64(len(keys)), "key", "keys"), count(int64(len(keys)-len(fresh)), "has", "have"))
	if looked == statIncidents {
		text += fmt.Sprintf(", judging by the newest %s incidents", grouped(statIncidents))
	}
	switch {
	case len(fresh) == 0:
		return text + ", so the rule adds no keys.", nil
	case len(fresh) > 5:
		return fmt.Sprintf("%s, and %s not: %s and more.", text, count(int64(len(fresh)), "does", "do"), strings.Join(fresh[:5], ", ")), nil
	}
	return fmt.Sprintf("%s, and %s not: %s.", text, count(int64(len(fresh)), "does", "do"), strings.Join(fresh, ", ")), nil
}

func (s *Server) saveRule(ctx context.Context, r *http.Request, text string) ([]Fault, error) {
	if s.cfg.Rules == nil {
		return nil, errors.New("this console has no access to the rules log")
	}
	if name := strings.TrimSpace(r.FormValue("name")); !strings.Contains(text, "-- rule:") {
		if name == "" || strings.ContainsAny(name, "\r\n") {
			return nil, &badRequest{errors.New("name: missing; enter one in the Name field, or as the first line of the rule: -- rule: my_rule")}
		}
		text = "-- rule: " + name + "\n" + text
	}
	if faults := s.cfg.Rules.Check(ctx, text); len(faults) > 0 {
		return faults, nil
	}
	_, err := s.cfg.Rules.Save(ctx, text, s.who(r, r.FormValue("by")))
	return nil, err
}
