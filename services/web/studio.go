package web

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"
)

// maxResult bounds the rows of a result that a page shows.
const maxResult = 500

type studioView struct {
	Statement string
	Since     string
	Faults    []Fault
	Checked   bool // it is a rules file without faults
	Columns   []string
	Rows      [][]string
	Took      time.Duration
	More      bool
	Note      string
	Ran       bool
	CanRun    bool
	CanSave   bool
}

// spans are the times that the studio offers.
var spans = []string{"1m", "10m", "1h", "6h", "24h"}

// Spans implements the template's list.
func (studioView) Spans() []string { return spans }

const example = `SELECT user_id, COUNT(*) AS events
FROM activity
GROUP BY user_id, TUMBLE(txn_timestamp, INTERVAL '10' SECOND)
HAVING COUNT(*) > 5`

// errEnough ends a statement whose rows are more than a page shows.
var errEnough = errors.New("enough rows")

// studio runs a statement on the log, or checks or saves a rule.
func (s *Server) studio(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), answerTime)
	defer cancel()
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	v := studioView{Statement: r.FormValue("statement"), Since: r.FormValue("since"), CanRun: s.cfg.Query != nil, CanSave: s.cfg.Rules != nil}
	if v.Statement == "" {
		v.Statement = example
	}
	if v.Since == "" {
		v.Since = spans[1]
	}
	var err error
	if r.Method == http.MethodPost {
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
		default:
			err = s.run(ctx, &v)
		}
	}
	p := page{Title: "Studio", View: "studio", Data: v, Err: err}
	if r.Header.Get(fragmentHeader) != "" {
		body, rerr := s.execute("studio", "live", s.framed(r, p))
		if rerr != nil {
			s.cfg.Log.Error("cannot render a page of the console", "page", "studio", "error", rerr)
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write(body) // an error here is the visitor's going away
		return
	}
	s.render(w, r, "studio", p)
}

func (s *Server) run(ctx context.Context, v *studioView) error {
	since, err := time.ParseDuration(v.Since)
	if err != nil || since <= 0 {
		return &badRequest{errors.New("since: is not a duration, such as 10m")}
	}
	if s.cfg.Query == nil {
		return errors.New("this console cannot run statements")
	}
	v.Ran = true
	began := time.Now()
	v.Note, err = s.cfg.Query.Run(ctx, v.Statement, since, func(names []string) { v.Columns = names }, func(row []any) error {
		if len(v.Rows) == maxResult {
			v.More = true
			return errEnough
		}
		cells := make([]string, len(row))
		for i, x := range row {
			cells[i] = cellOf(x)
		}
		v.Rows = append(v.Rows, cells)
		return nil
	})
	v.Took = time.Since(began)
	if errors.Is(err, errEnough) {
		err = nil
	}
	return err
}

func (s *Server) saveRule(ctx context.Context, r *http.Request, text string) ([]Fault, error) {
	if s.cfg.Rules == nil {
		return nil, errors.New("this console has no log of the rules")
	}
	if name := strings.TrimSpace(r.FormValue("name")); name != "" && !strings.Contains(text, "-- rule:") {
		if strings.ContainsAny(name, "\r\n") {
			return nil, &badRequest{errors.New("name: has more than one line")}
		}
		text = "-- rule: " + name + "\n" + text
	}
	if faults := s.cfg.Rules.Check(ctx, text); len(faults) > 0 {
		return faults, nil
	}
	_, err := s.cfg.Rules.Save(ctx, text, s.who(r, r.FormValue("by")))
	return nil, err
}
