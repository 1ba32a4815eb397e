package browser

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"spate/shared/incident"
	"spate/shared/kafka"
	"spate/tests/harness"
)

// TestConsole looks at the console of one pipeline, part by part: each finds what those before it have left.
func TestConsole(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	theBrowser(t) // before anything is started
	w := start(t)
	for _, part := range []struct {
		name string
		test func(*world, *testing.T)
	}{
		{"an alert appears without a reload", (*world).testLive},
		{"three clicks to why", (*world).testWhy},
		{"resend what failed", (*world).testResend},
		{"mark and silence", (*world).testMark},
		{"studio", (*world).testStudio},
		{"every view in light, dark and on a phone", (*world).testViews},
		{"the keyboard reaches everything", (*world).testKeyboard},
		{"first paint", (*world).testPaint},
		{"hostile text", (*world).testHostile},
		{"shadow", (*world).testShadow}, // in force some time after it was saved
		{"the rules are changed", (*world).testChange},
		{"many open pages", (*world).testStreams},
		{"who may see it", (*world).testToken},
		{"without the database", (*world).testNoDatabase},
		{"without the broker", (*world).testNoBroker}, // the last: it ends the pipeline
	} {
		t.Run(part.name, func(t *testing.T) { part.test(w, t) })
	}
}

// testLive: an alert is on the first page, which nobody reloads, within a second after it was stored.
func (w *world) testLive(t *testing.T) {
	p := open(t, w.console)
	p.visit("/")
	p.sees("h1", "Now")
	is[bool](p, `(() => {
		globalThis.loaded = true; // a reload would forget it
		globalThis.seen = {};
		const look = () => document.querySelectorAll('a.key').forEach((el) => { seen[el.textContent] ??= Date.now(); });
		new MutationObserver(look).observe(document.querySelector('#live'), { childList: true, subtree: true });
		return true;
	})()`)
	stored := w.recordTimes(t)
	// The machine may be busy with something else, so what counts is the best of a few.
	best := time.Hour
	for n := range 5 {
		user := fmt.Sprintf(`"live-%d"`, n)
		w.burst(t, user, 7, nil)
		i := w.incidentOf(t, user, "burst")
		name := strings.Trim(user, `"`)
		p.until("the alert of "+name+" is shown", fmt.Sprintf("!!seen[%s]", quoted(name)))
		shown := time.UnixMilli(is[int64](p, fmt.Sprintf("seen[%s]", quoted(name))))
		record := stored(user)
		t.Logf("%s: shown %v after its record, and %v after the incident was opened", name, shown.Sub(record), shown.Sub(i.OpenedAt))
		best = min(best, shown.Sub(record))
		if best < time.Second && n >= 2 {
			break
		}
	}
	if best > time.Second {
		t.Errorf("an alert is shown %v after its record, at best; it must be 1 s", best)
	}
	if !is[bool](p, "globalThis.loaded === true") {
		t.Error("the page was loaded again")
	}
}

// recordTimes returns a function that waits for the first record of a user's in the topic of alerts and returns when the broker got it.
func (w *world) recordTimes(t *testing.T) func(user string) time.Time {
	cl := harness.Connect(t, w.brokers, kgo.ConsumeTopics(kafka.NamesFor(kafka.DefaultTopic).Alerts), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	times := map[string]time.Time{}
	return func(user string) time.Time {
		harness.Eventually(t, 20*time.Second, "the record of "+user, func() bool {
			if _, ok := times[user]; ok {
				return true
			}
			fetches := cl.PollRecords(t.Context(), 100)
			fetches.EachRecord(func(r *kgo.Record) {
				var a struct {
					UserID json.RawMessage `json:"user_id"`
				}
				if json.Unmarshal(r.Value, &a) == nil {
					if _, ok := times[string(a.UserID)]; !ok {
						times[string(a.UserID)] = r.Timestamp
					}
				}
			})
			_, ok := times[user]
			return ok
		})
		return times[user]
	}
}

// testWhy: from the first page to why an account was flagged.
func (w *world) testWhy(t *testing.T) {
	w.burst(t, `"why-me"`, 9, nil)
	i := w.incidentOf(t, `"why-me"`, "burst")
	p := open(t, w.console)
	p.visit("/")
	p.sees("a.key", "why-me")
	clicks := 0
	p.click(fmt.Sprintf("a[href='/incidents/%s']", i.ID))
	clicks++
	p.sees(".answer h2", "Flagged")
	p.sees(".conditions td code", "COUNT(*)")
	p.sees(".answer", "with the same result") // by itself, if the window was open
	if got := p.text(".conditions tbody tr.yes td strong"); got != "9" {
		t.Errorf("the condition is shown with %q, want 9", got)
	}
	if n := is[int](p, "document.querySelectorAll('table.events tbody tr').length"); n != 9 {
		t.Errorf("%d events are listed, want 9", n)
	}
	if clicks > 3 {
		t.Errorf("%d clicks", clicks)
	}
	p.click("table.events tbody tr:first-child summary")
	p.sees("table.events tbody tr:first-child pre", `"why-me"`)
}

// testResend: a message that its endpoint refused gets there from the page, under the same webhook-id.
func (w *world) testResend(t *testing.T) {
	w.told.turn(true)
	defer w.told.turn(false)
	w.burst(t, `"refused"`, 7, nil)
	i := w.incidentOf(t, `"refused"`, "burst")
	p := open(t, w.console)
	p.visit("/incidents/" + i.ID)
	p.sees("[data-part=foot] td", "disabled") // an endpoint that answers 410 is told nothing more
	p.sees("[data-part=foot] td", "410")
	id := is[string](p, "document.querySelector('form[action=\"/deliveries/resend\"] input[name=webhook_id]').value")
	if got := w.told.answers(id); !slices.Equal(got, []int{http.StatusGone}) {
		t.Fatalf("the receiver answered %v to %s", got, id)
	}
	w.told.turn(false)
	p.visit("/deliveries")
	p.sees("td", "disabled")
	if !is[bool](p, "document.querySelector('form[action=\"/endpoints/webhook/test\"] button').disabled") {
		t.Error("a test can be sent to an endpoint that is disabled")
	}
	p.click("form[action='/endpoints/webhook'] button")
	p.sees(".note", "enabled")
	p.click("form[action='/endpoints/webhook/test'] button")
	p.sees(".note", "The test message has been stored,")
	p.until("the test is delivered", `[...document.querySelectorAll('tr')].some((r) => r.textContent.includes('endpoint.test') && r.textContent.includes('delivered'))`) // by itself
	p.visit("/incidents/" + i.ID)
	p.click("form[action='/deliveries/resend'] button")
	p.sees(".note", "due now")
	if got := p.url(); !strings.HasPrefix(got, "/incidents/"+i.ID) {
		t.Errorf("the page is %s now", got)
	}
	p.sees("[data-part=foot] .state", "delivered") // by itself
	if got := w.told.answers(id); !slices.Equal(got, []int{http.StatusGone, http.StatusNoContent}) {
		t.Errorf("the receiver answered %v to %s", got, id)
	}
}

// testMark: an incident is marked and silenced from its page, and the command line agrees.
func (w *world) testMark(t *testing.T) {
	w.burst(t, `"marked"`, 7, nil)
	i := w.incidentOf(t, `"marked"`, "burst")
	p := open(t, w.console)
	p.visit("/incidents/" + i.ID)
	p.do("check", map[string]any{"selector": "input[name=mark][value=attack]"}, nil)
	p.fill("form[action$='/mark'] input[name=note]", "stolen cards")
	p.fill("form[action$='/mark'] input[name=by]", "Ada")
	p.click("form[action$='/mark'] button")
	p.sees(".note", "The mark has been saved")
	p.sees("dl.numbers", "attack by Ada: stolen cards")
	p.fill("form[action$='/silence'] input[name=why]", "being looked at")
	p.fill("form[action$='/silence'] input[name=by]", "Ada")
	p.click("form[action$='/silence'] button")
	p.sees(".note", "The silence is active")
	p.visit("/deliveries")
	p.sees("table", "being looked at")
	p.visit("/incidents/" + i.ID)
	p.sees("[data-part=head] .trouble", "Silenced by Ada")
	p.sees("[data-part=head] .trouble", "being looked at")
	p.visit("/incidents?mark=attack")
	p.sees("td[data-label=Mark]", "attack")
	marked := slices.DeleteFunc(lines[incident.Incident](t, w.spate(t, "incidents", "ls", "--json")), func(x incident.Incident) bool { return x.ID != i.ID })
	if len(marked) != 1 || marked[0].Marked == nil || marked[0].Mark != incident.Attack || marked[0].Note != "stolen cards" || marked[0].By != "Ada" {
		t.Errorf("spate incidents ls: %+v", marked)
	}
	silences := lines[incident.Silence](t, w.spate(t, "silence", "ls", "--json"))
	if len(silences) != 1 || silences[0].Author != "Ada" || silences[0].Rule != "burst" || silences[0].Key["user_id"] != "marked" {
		t.Errorf("spate silence ls: %+v", silences)
	}
}

const (
	mistaken = "SELECT user_id, COUNT(*) AS events\nFROM activity\nGROUP BY user_id, TUMBLE(txn_timestamp, INTERVAL '2' SECOND)\nHAVING COUNT(*) > fivee"
	mended   = "SELECT user_id, COUNT(*) AS events\nFROM activity\nGROUP BY user_id, TUMBLE(txn_timestamp, INTERVAL '2' SECOND)\nHAVING COUNT(*) > 3"
)

// testStudio: a rule is written, and saved in shadow mode.
func (w *world) testStudio(t *testing.T) {
	p := open(t, w.console)
	t.Run("an error is shown as one types", func(t *testing.T) {
		p.visit("/studio")
		is[bool](p, "globalThis.loaded = true")
		p.fill("#statement", "")
		p.click("#statement")
		p.do("type", map[string]any{"text": mistaken}, nil)
		p.sees("#faults", "unknown column fivee") // an answer about what was typed before may be shown first
		shown := is[string](p, "document.getElementById('faults').textContent")
		if err := caretAt(shown, "fivee"); err != nil {
			t.Errorf("%v:\n%s", err, shown)
		}
		p.shot("studio-error-light")
		p.fill("#statement", mended)
		p.until("the error is gone", "document.getElementById('faults').textContent === ''")
		if !is[bool](p, "globalThis.loaded === true") {
			t.Error("the page was loaded again")
		}
	})
	t.Run("saved as shadow", func(t *testing.T) {
		p.fill("#studio input[name=name]", "from_the_studio")
		p.click("#studio button[value=save]")
		p.until("the rules are shown", "location.pathname === '/rules'")
		p.sees(".note", "shadow mode")
		p.until("the rule is listed with its mode", `[...document.querySelectorAll('tbody tr')].some((tr) => tr.innerText.includes('from_the_studio') && tr.querySelector('.badge').textContent === 'shadow')`)
		p.until("the other one goes on", `[...document.querySelectorAll('tbody tr')].some((tr) => tr.innerText.includes('burst') && tr.querySelector('.badge').textContent === 'live')`)
	})
	t.Run("runs on history", func(t *testing.T) {
		p.visit("/studio")
		is[bool](p, "globalThis.loaded = true")
		for _, tt := range []struct{ statement, head, row, says string }{
			{mended, "events", "why-me", "evaluated by the engine"},
			{"SELECT user_id, COUNT(*) AS times FROM activity WHERE user_id = 'marked' GROUP BY user_id", "times", "marked", "1 row"},
			{"SELECT COUNT(*) AS n FROM alerts", "n", "", "1 row"},
		} {
			p.fill("#statement", tt.statement)
			p.click("#run")
			p.sees("#result", tt.says)
			p.sees("#result th", tt.head)
			p.sees("#result td", tt.row)
			if tt.statement == mended {
				p.sees("#result .sweep", "(this rule)")
				p.inEachLook("studio-result")
			}
		}
		p.fill("#statement", "SELECT nothing FROM nowhere")
		p.click("#run")
		p.sees("#result [role=alert]", "nowhere")
		if !is[bool](p, "globalThis.loaded === true") {
			t.Error("the page was loaded again")
		}
	})
	t.Run("runs live", func(t *testing.T) {
		p.fill("#statement", mended)
		p.click("#run-live")
		p.sees("#result", "The rule is running.")
		harness.Eventually(t, time.Minute, "a window closes", func() bool { // on a busy machine, a burst may come too late for its own
			w.burst(t, `"live <b>"`, 6, nil)
			return harness.Within(2*time.Second, func() bool {
				return is[bool](p, "document.querySelector('#result tbody').textContent.includes('live <b>')")
			})
		})
		p.sees("#run-live", "Stop")
		p.click("#run-live")
		p.sees("#result", "Stopped.")
		p.sees("#result tbody", "live <b>")
		p.sees("#run-live", "Run live")
	})
}

// testChange: the rules are changed with a mistake, then as they were reviewed, and back.
func (w *world) testChange(t *testing.T) {
	p := open(t, w.console)
	p.visit("/rules")
	p.click("main a[href='/rules/edit']")
	p.sees("h1", "Change the rules")
	text := is[string](p, "document.getElementById('text').value")
	was := "HAVING COUNT(*) > 3"
	if !strings.Contains(text, was) {
		t.Fatalf("the rules are not there: %s", text)
	}
	p.fill("#text", strings.Replace(text, was, "HAVING COUNT(*) > nothing", 1))
	p.sees("#faults", "nothing")
	p.click("button[value=review]")
	p.sees("main [role=alert]", "The rules have errors.")
	p.fill("#text", strings.Replace(text, was, "HAVING COUNT(*) > 4", 1))
	p.fill("input[name=message]", "not so many")
	p.click("button[value=review]")
	p.sees("main h2", "1 changed, 1 unchanged")
	p.sees(".diff .added", "+HAVING COUNT(*) > 4")
	p.inEachLook("rules-review")
	p.click("button[value=apply]")
	p.until("the rules are shown", "location.pathname === '/rules'")
	p.sees(".note", "The rules have been applied.")
	p.sees("details.fold summary", "not so many")
	// Back, without a word being typed.
	p.click("main details.fold:has(a[href='/rules/edit?revision=1']) summary")
	p.click("a[href='/rules/edit?revision=1']")
	p.until("the old text is there", "document.getElementById('text').value.includes('COUNT(*) > 3')")
	p.click("button[value=review]")
	p.sees(".diff .added", "+"+was)
	p.click("button[value=apply]")
	p.sees("details.fold summary", "back to revision 1")
}

// testShadow: the rule that was saved in the studio finds incidents, and tells nobody.
func (w *world) testShadow(t *testing.T) {
	p := open(t, w.console)
	// It is in force for windows that begin a few seconds from now.
	p.visit("/incidents?rule=from_the_studio")
	tries := 0
	harness.Eventually(t, 40*time.Second, "the rule finds something", func() bool {
		tries++
		w.burst(t, fmt.Sprintf(`"shadowed-%d"`, tries), 5, nil)
		return harness.Within(time.Second, func() bool {
			return slices.ContainsFunc(w.incidents(t), func(i incident.Incident) bool { return i.Rule == "from_the_studio" && i.Mode == "shadow" })
		})
	})
	p.sees("#live tr", "shadowed") // by itself
	p.sees("#live tbody tr .badge.shadow", "shadow")
	if slices.ContainsFunc(w.incidents(t), func(i incident.Incident) bool { return i.Rule == "burst" && bytes.Contains(i.Key, []byte("shadowed")) }) {
		t.Error("five events are an incident of the rule in force, too")
	}
}

// caretAt returns why the caret of a message is not below a word of the line above it.
func caretAt(shown, word string) error {
	list := strings.Split(shown, "\n")
	for n, line := range list {
		if at := strings.Index(line, "^"); at >= 0 && n > 0 {
			if from := strings.Index(list[n-1], word); at < from || from < 0 || at >= from+len(word) {
				return fmt.Errorf("the caret is at %d and %s at %d", at, word, from)
			}
			return nil
		}
	}
	return fmt.Errorf("no caret")
}

// testPaint: the first content is there within a second.
func (w *world) testPaint(t *testing.T) {
	p := open(t, w.console)
	best := time.Hour
	for range 3 {
		p.visit("/")
		p.until("it is painted", "performance.getEntriesByName('first-contentful-paint').length === 1")
		took := time.Duration(is[float64](p, "performance.getEntriesByName('first-contentful-paint')[0].startTime") * float64(time.Millisecond))
		t.Logf("first contentful paint after %v", took.Round(time.Millisecond))
		best = min(best, took)
	}
	if best >= time.Second {
		t.Errorf("the first content is painted after %v, at best; it must be less than 1 s", best)
	}
}
