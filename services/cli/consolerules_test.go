package cli

import (
	"encoding/json"
	"fmt"
	"html"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"spate/services/embedded"
	"spate/shared/revision"
)

var hidden = regexp.MustCompile(`name="(base|reviewed)" value="([^"]*)"`)

// formOf is the form of a page that changes the rules, as a browser would send it.
func formOf(t *testing.T, body string) url.Values {
	t.Helper()
	form := url.Values{}
	for _, m := range hidden.FindAllStringSubmatch(body, -1) {
		form.Set(m[1], m[2])
	}
	_, after, ok := strings.Cut(body, `<textarea id="text"`)
	_, after, _ = strings.Cut(after, ">")
	text, _, end := strings.Cut(after, "</textarea>")
	if !ok || !end {
		t.Fatalf("there is no text: %s", body)
	}
	form.Set("text", html.UnescapeString(text))
	return form
}

// TestRulesPageChanges: rules are changed in the console by review and application, and only as they were reviewed.
func TestRulesPageChanges(t *testing.T) {
	bare(t)
	address, _ := consoleOf(t)
	edit := address + "/rules/edit"
	// inForce are the rules with what is known of their beginning and their end, and for which windows each revision is in force.
	inForce := func() (texts, revisions []string) {
		t.Helper()
		_, body := visit(t, http.MethodGet, address+"/api/rules", nil)
		var v struct {
			Rules []struct {
				Name, Text  string
				From, Until time.Time
			}
			Revisions []struct {
				InForce string `json:"in_force"`
			}
		}
		if err := json.Unmarshal([]byte(body), &v); err != nil {
			t.Fatalf("%v: %s", err, body)
		}
		for _, r := range v.Rules {
			texts = append(texts, fmt.Sprintf("%s %v %v: %s", r.Name, !r.From.IsZero(), !r.Until.IsZero(), r.Text))
		}
		for _, r := range v.Revisions {
			revisions = append(revisions, r.InForce)
		}
		return texts, revisions
	}
	do := func(what string, form url.Values) (int, string) {
		t.Helper()
		form.Set("do", what)
		return visit(t, http.MethodPost, edit, form)
	}

	// The rule from the settings, with the values of the settings.
	_, body := visit(t, http.MethodGet, edit, nil)
	form := formOf(t, body)
	if text := form.Get("text"); !strings.Contains(text, "-- param: threshold = 5\n") || !strings.Contains(text, "-- rule: burst\n") {
		t.Fatalf("%s", text)
	}
	// Errors are shown with their place, and nothing is offered.
	wrong := url.Values{"base": form["base"], "text": {strings.Replace(form.Get("text"), "COUNT(*) > ${threshold}", "COUNTS(*) > 5", 1)}}
	if code, body := do("review", wrong); code != http.StatusOK || !strings.Contains(body, "COUNTS") || !strings.Contains(body, "The rules have errors.") || strings.Contains(body, `value="apply"`) {
		t.Errorf("%d %s", code, body)
	}
	if code, body := do("apply", wrong); code != http.StatusOK || !strings.Contains(body, "The rules have errors.") {
		t.Errorf("%d %s", code, body)
	}

	form.Set("text", strings.Replace(form.Get("text"), "-- param: threshold = 5", "-- param: threshold = 7", 1))
	form.Set("message", "fewer <false> alarms")
	form.Set("by", "Ann")
	code, body := do("review", form)
	for _, part := range []string{`<span class="badge changed">changed</span>`, "1 changed", "Apply revision 1", `<span class="removed">--- the rule from the settings`, `class="added">+-- param: threshold = 7`, "The revision would be in force for ", "Lateness 1s and max-ahead 1m are recorded with this revision"} {
		if code != http.StatusOK || !strings.Contains(html.UnescapeString(body), part) {
			t.Errorf("the review has no %q: %d %s", part, code, body)
		}
	}
	reviewed := formOf(t, body)
	reviewed["message"], reviewed["by"] = form["message"], form["by"]
	// Another text than the one reviewed is not applied.
	other := url.Values{"base": reviewed["base"], "reviewed": reviewed["reviewed"], "text": {reviewed.Get("text") + "\n"}}
	if code, body := do("apply", other); code != http.StatusOK || !strings.Contains(body, "The text has changed since it was reviewed") {
		t.Errorf("%d %s", code, body)
	}
	if _, list := inForce(); len(list) != 0 {
		t.Fatalf("%q before any was applied", list)
	}
	// What is the same is not offered.
	if code, body := do("review", url.Values{"base": form["base"], "text": {strings.Replace(form.Get("text"), "threshold = 7", "threshold = 5", 1)}}); code != http.StatusOK || !strings.Contains(body, "there is nothing to apply") || strings.Contains(body, `value="apply"`) {
		t.Errorf("%d %s", code, body)
	}
	do("review", form)
	if code, body := do("apply", reviewed); code != http.StatusSeeOther || !strings.Contains(body, "/rules?done=applied") {
		t.Fatalf("%d %s", code, body)
	}
	// The rule before it is in force until then.
	if texts, list := inForce(); len(list) != 1 || !strings.HasPrefix(list[0], "In force for windows that begin at ") || len(texts) != 2 || !strings.HasPrefix(texts[0], "burst false true: ") ||
		!strings.HasPrefix(texts[1], "burst true false: ") || !strings.Contains(texts[1], "COUNT(*) > 7") {
		t.Errorf("%q, %q", list, texts)
	}
	if _, body := visit(t, http.MethodGet, address+"/rules", nil); !strings.Contains(body, "fewer &lt;false&gt; alarms") || !strings.Contains(body, "by <bdi>Ann</bdi>") {
		t.Errorf("%s", body)
	}

	// Whoever began before that is told.
	for _, what := range []string{"review", "apply"} {
		if code, body := do(what, reviewed); code != http.StatusBadRequest || !strings.Contains(body, "applied revision 1 in the meantime") {
			t.Errorf("%s: %d %s", what, code, body)
		}
	}
	// Back to what was before, and to what is not there.
	_, body = visit(t, http.MethodGet, edit+"?revision=0", nil)
	if form = formOf(t, body); !strings.Contains(form.Get("text"), "threshold = 5\n") || !strings.Contains(body, "back to the rule from the settings") {
		t.Errorf("%s", body)
	}
	form = formOf(t, second(do("review", form)))
	if code, body := do("apply", form); code != http.StatusSeeOther {
		t.Errorf("%d %s", code, body)
	}
	if texts, list := inForce(); len(list) != 2 || !regexp.MustCompile(`^In force for windows that begin at .* or later, and before .* UTC$`).MatchString(list[1]) || len(texts) != 3 {
		t.Errorf("%q, %q", list, texts)
	}
	for _, path := range []string{"?revision=7", "?revision=x", "?revision=-3"} {
		if code, body := visit(t, http.MethodGet, edit+path, nil); code != http.StatusBadRequest || !strings.Contains(body, "revision") {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
}

func second(_ int, body string) string { return body }

// TestWithParams: the text that somebody edits says by itself what its rules are.
func TestWithParams(t *testing.T) {
	s := revision.Source{Name: "scraper", Set: map[string]string{"scraper.products": "40"}, Text: `-- param: products = 20 
-- param: name = 'a=b'
INSERT INTO alerts
SELECT user_id, COUNT(DISTINCT product_id) AS n FROM activity WHERE event_type <> ${name}
GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), user_id HAVING COUNT(DISTINCT product_id) > ${products}
`}
	text, err := withParams(s)
	if want := "-- rule: scraper\n" + strings.Replace(s.Text, "products = 20 ", "products = 40", 1); err != nil || text != want {
		t.Errorf("%v: got %s\nwant %s", err, text, want)
	}
	before, err := s.Compile(nil)
	if err != nil {
		t.Fatal(err)
	}
	after, err := revision.Source{Text: text}.Compile(nil)
	if err != nil {
		t.Fatal(err)
	}
	if list := compareRules(before.Rules, after.Rules); !same(list) {
		t.Errorf("%+v", list)
	}
	s.Set = map[string]string{"scraper.name": "a\nb"}
	if _, err := withParams(s); err == nil || !strings.Contains(err.Error(), "parameter name contains a line break") {
		t.Errorf("a line break: %v", err)
	}
	s.Text = "not a rule"
	if text, err := withParams(s); err != nil || text != "-- rule: scraper\nnot a rule" {
		t.Errorf("%s, %v", text, err)
	}
}

// TestRulesPageKeepsTheText: a text that is too long for rules is refused, and not lost.
func TestRulesPageKeepsTheText(t *testing.T) {
	bare(t)
	address, _ := consoleOf(t)
	_, body := visit(t, http.MethodGet, address+"/rules/edit", nil)
	form := formOf(t, body)
	form.Set("text", form.Get("text")+"\n-- "+strings.Repeat("{", 1<<20)+" the end")
	form.Set("do", "review")
	if code, body := visit(t, http.MethodPost, address+"/rules/edit", form); code != http.StatusOK || !strings.Contains(body, "{{{ the end</textarea>") || !strings.Contains(body, "The rules have errors.") {
		t.Errorf("%d, %d bytes", code, len(body))
	}
}

// TestStudioKnowsTheTables: rules of the studio read the tables that the rules in force declare, and the example does.
func TestStudioKnowsTheTables(t *testing.T) {
	bare(t)
	address, _, _ := pipelineOf(t, func(c *embedded.Config) { c.Rule.Events.Fields.Time = []string{"at"} }) // as the rules have it, which may not change it
	_, body := visit(t, http.MethodGet, address+"/rules/edit", nil)
	form := formOf(t, body)
	form.Set("text", "CREATE TABLE logins (account STRING, `at` TIMESTAMP(3), WATERMARK FOR `at` AS `at` - INTERVAL '1' SECOND);\n-- rule: hammering\nINSERT INTO alerts SELECT account, COUNT(*) AS n FROM logins GROUP BY account, TUMBLE(`at`, INTERVAL '10' SECOND) HAVING COUNT(*) > 5")
	form = formOf(t, second(visit(t, http.MethodPost, address+"/rules/edit", url.Values{"base": form["base"], "text": form["text"], "do": {"review"}})))
	form.Set("do", "apply")
	if code, body := visit(t, http.MethodPost, address+"/rules/edit", form); code != http.StatusSeeOther {
		t.Fatalf("%d %s", code, body)
	}
	example := "SELECT `account`, COUNT(*) AS events\nFROM `logins`\nGROUP BY `account`, TUMBLE(`at`, INTERVAL &#39;10&#39; SECOND)\nHAVING COUNT(*) &gt; 5"
	if _, body := visit(t, http.MethodGet, address+"/studio", nil); !strings.Contains(body, example) {
		t.Errorf("the example is not %s: %s", example, body)
	}
	studio := func(do, text string) (int, string) {
		return visit(t, http.MethodPost, address+"/studio", url.Values{"do": {do}, "name": {"viewer"}, "statement": {text}})
	}
	whole := "-- rule: viewer\nINSERT INTO alerts SELECT account, COUNT(*) AS n FROM logins GROUP BY account, TUMBLE(`at`, INTERVAL '10' SECOND) HAVING COUNT(*) > 7"
	for _, text := range []string{html.UnescapeString(example), whole} {
		if code, body := studio("check", text); code != http.StatusOK || !strings.Contains(body, "The rule has no errors.") {
			t.Errorf("%s: %d %s", text, code, body)
		}
	}
	if code, body := studio("check", strings.Replace(whole, "logins", "login", 1)); code != http.StatusOK || !strings.Contains(body, "write logins or activity, or add a CREATE TABLE") {
		t.Errorf("%d %s", code, body)
	}
	if code, body := studio("save", whole); code != http.StatusSeeOther {
		t.Errorf("%d %s", code, body)
	}
}
