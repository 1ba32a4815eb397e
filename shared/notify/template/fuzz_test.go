package template

import (
	"testing"

	"spate/shared/notify"
	"spate/shared/notify/brief"
	"spate/shared/notify/notifytest"
	"spate/shared/notify/post"
)

// FuzzRun: whatever a template is, it runs within its bounds, or says why not.
func FuzzRun(f *testing.F) {
	for _, text := range []string{
		body, `{{range 1000000000}}{{end}}`, `{{define "x"}}{{template "x"}}{{template "x"}}{{end}}{{template "x"}}`, `{{$x := "abc"}}{{range 60}}{{$x = printf "%s%s" $x $x}}{{end}}{{$x}}`,
		`{{block "b" .data}}{{range $k, $v := .}}{{if $v}}{{continue}}{{else with $k}}{{break}}{{end}}{{else}}{{end}}{{end}}`, `{{printf "%[1]s%[1]s" .title | html | js | urlquery | json}}`,
		`{{with $x := .data.key}}{{$x.ip}}{{else}}{{end}}{{/* */}}{{- index .facts 0 | len -}}`, `{{cut -1 .id}}{{date "x" .timestamp}}{{number "1e400"}}{{default 1 2}}{{.data.events.Int64}}`,
	} {
		f.Add(text)
	}
	m := notifytest.Incident(notify.TypeIncidentOpened)
	b, err := brief.Of(m, "")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := compileText("body", text)
		if err != nil {
			return
		}
		view, err := viewOf(m, b)
		if err != nil {
			t.Fatal(err)
		}
		r := newRun(post.NewSecret("s3cret"))
		out, err := r.execute(p, view, maxOutput)
		if err == nil && len(out) > maxOutput || r.steps > maxSteps+1 {
			t.Errorf("%d bytes, %d rounds", len(out), r.steps)
		}
	})
}
