package browser

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"spate/shared/incident"
)

// view is a page of the console.
type view struct {
	name, path string
	code       int
}

// views are all of them, with what the parts before have left.
func (w *world) views(t *testing.T) []view {
	t.Helper()
	i := w.incidentOf(t, `"marked"`, "burst")
	return []view{
		{"now", "/", 200}, {"incidents", "/incidents", 200}, {"incident", "/incidents/" + i.ID, 200}, {"alerts", "/alerts", 200}, {"alert", "/alerts/" + i.AlertID, 200},
		{"key", "/keys?key=user_id%3Dmarked", 200}, {"rules", "/rules", 200}, {"edit", "/rules/edit", 200}, {"studio", "/studio", 200}, {"deliveries", "/deliveries", 200}, {"health", "/health", 200},
		{"error", "/nowhere", 404}, {"login", "/login", 200},
	}
}

// finding is what axe has found.
type finding struct {
	ID, Impact, Help string
	Nodes            []string
}

// serious runs rules of axe on the page as it is; all if none is named.
func (p *tab) serious(what string, rules ...string) {
	p.t.Helper()
	var found []finding
	p.do("axe", map[string]any{"rules": rules}, &found)
	for _, f := range found {
		if f.Impact == "serious" || f.Impact == "critical" {
			p.t.Errorf("%s: axe: %s (%s): %s\n%s", what, f.ID, f.Impact, f.Help, strings.Join(f.Nodes, "\n"))
		}
	}
}

// fits: nothing makes the page wider than the window.
func (p *tab) fits(what string) {
	p.t.Helper()
	if got := is[[]int](p, "[document.scrollingElement.scrollWidth, innerWidth]"); got[0] > got[1] {
		p.t.Errorf("%s: the page is %d wide in a window of %d; what sticks out: %s", what, got[0], got[1], is[string](p, `[...document.querySelectorAll('main *, header *')]
			.filter((el) => el.getBoundingClientRect().right > innerWidth && !el.closest('.scroll, pre')).slice(0, 3).map((el) => el.outerHTML.slice(0, 200)).join('\n')`))
	}
}

// testViews: each view can be read by everybody, in each appearance.
func (w *world) testViews(t *testing.T) {
	p := open(t, w.console)
	p.allow("status of 404")
	for _, v := range w.views(t) {
		if v.name == "login" {
			continue // this console has no token
		}
		p.look(false, wide, high)
		if code := p.visit(v.path); code != v.code {
			t.Errorf("%s: status %d", v.path, code)
		}
		p.inEachLook(v.name)
	}
}

func (p *tab) inEachLook(name string) {
	p.t.Helper()
	for _, look := range []struct {
		name        string
		dark        bool
		width, high int
	}{{"light", false, wide, high}, {"dark", true, wide, high}, {"phone", false, phoneWide, phoneHigh}} {
		p.look(look.dark, look.width, look.high)
		switch look.name {
		case "light":
			p.serious(name + ", " + look.name)
		case "dark": // the same page but for its colors
			p.serious(name+", "+look.name, "color-contrast")
		}
		p.fits(name + ", " + look.name)
		p.shot(name + "-" + look.name)
	}
}

// focus gives the focus to what a selector finds, once it is there: a page has its address before it has its content.
func (p *tab) focus(selector string) {
	p.t.Helper()
	found := fmt.Sprintf("document.querySelector(%q)", selector)
	p.until(selector+" is there", found+" !== null")
	is[any](p, found+".focus()")
}

// stops is what the keyboard has to reach: all that can have the focus and can be seen, in the order of the document. A group of radio buttons is one of them.
const stops = `(() => {
	const groups = new Set();
	return [...document.querySelectorAll('a[href], button, input:not([type=hidden]), select, textarea, summary, [tabindex="0"]')].filter((el) => {
		if (el.disabled || !el.checkVisibility({ visibilityProperty: true })) return false;
		const fold = el.closest('details:not([open])');
		if (fold && !(el.tagName === 'SUMMARY' && el.parentElement === fold)) return false;
		if (el.type !== 'radio') return true;
		const group = [...document.getElementsByName(el.name)].filter((x) => x.form === el.form);
		const first = group.find((x) => x.checked) || group[0];
		return el === first;
	});
})()`

// stop tells where the focus is.
const stop = `(() => {
	const el = document.activeElement;
	if (!el || el === document.body || el === document.documentElement) return null;
	const box = el.getBoundingClientRect(), style = getComputedStyle(el), all = ` + stops + `;
	// The middle of what of it is in the window, below the header that stays at the top.
	const head = document.querySelector('header'), top = head && el.closest('main') && getComputedStyle(head).position === 'sticky' ? head.getBoundingClientRect().bottom : 0;
	const left = Math.max(box.left, 0), right = Math.min(box.right, innerWidth), high = Math.max(box.top, top), low = Math.min(box.bottom, innerHeight);
	const at = document.elementFromPoint((left + right) / 2, (high + low) / 2);
	return {
		n: all.indexOf(el), of: all.length, what: el.outerHTML.slice(0, 120),
		ring: el.matches(':focus-visible') && style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 1,
		seen: right > left && low > high && !!at && (el.contains(at) || at.contains(el)),
	};
})()`

// testKeyboard: Tab goes to everything that can be used, in the order in which it is read, and one sees where it is; Enter opens it.
func (w *world) testKeyboard(t *testing.T) {
	p := open(t, w.console)
	p.allow("status of 404")
	for _, v := range w.views(t) {
		if v.name == "login" {
			continue
		}
		// A page that changes in between is walked again.
		var problems []string
		for range 3 {
			p.visit(v.path)
			if problems = p.walk(v.name); problems == nil {
				break
			}
		}
		for _, text := range problems {
			t.Error(text)
		}
	}
	p.visit("/")
	for _, want := range []string{"Skip to the content", "spate", "Now", "Incidents"} {
		p.press("Tab")
		if got := is[string](p, "document.activeElement.textContent.trim()"); got != want {
			t.Fatalf("the focus is on %q, want %q", got, want)
		}
	}
	p.press("Enter")
	p.until("Enter opens the link", "location.pathname === '/incidents'")
	i := w.incidentOf(t, `"marked"`, "burst")
	p.focus(fmt.Sprintf("a[href='/incidents/%s']", i.ID))
	p.press("Enter")
	p.sees(".answer h2", "Flagged")
	p.focus("table.events summary")
	p.press("Enter")
	p.until("Enter unfolds an event", "document.querySelector('table.events details').open")
	p.press("/")
	p.do("type", map[string]any{"text": "user_id=marked"}, nil)
	p.press("Enter")
	p.until("the search goes to the key", "location.pathname === '/keys'")
	p.sees("h1", "user_id=marked")
	// The link at the very top leads past the navigation.
	p.visit("/deliveries")
	p.press("Tab")
	p.press("Enter")
	p.press("Tab")
	if !is[bool](p, "document.querySelector('main').contains(document.activeElement)") {
		t.Error("behind the link to the content, the focus is not in it")
	}
}

// walk presses Tab until the focus has left the page and returns what is wrong with its way.
func (p *tab) walk(name string) (problems []string) {
	p.t.Helper()
	var way []struct {
		N, Of      int
		What       string
		Ring, Seen bool
	}
	p.do("walk", map[string]any{"script": stop, "most": 400}, &way)
	if len(way) == 0 {
		return []string{name + ": Tab reaches nothing"}
	}
	for n, s := range way {
		if n > 0 && s.N == 0 && way[n-1].N == way[n-1].Of-1 { // around
			way = way[:n]
			break
		}
		if s.N != n {
			return []string{fmt.Sprintf("%s: stop %d of Tab is number %d in the document: %s", name, n, s.N, s.What)}
		}
		if !s.Ring {
			problems = append(problems, fmt.Sprintf("%s: the focus cannot be seen on %s", name, s.What))
		}
		if !s.Seen {
			problems = append(problems, fmt.Sprintf("%s: it has the focus and cannot be seen, or something covers it: %s", name, s.What))
		}
	}
	if last := way[len(way)-1]; last.N != last.Of-1 {
		problems = append(problems, fmt.Sprintf("%s: Tab reaches %d of %d; the last is %s", name, last.N+1, last.Of, last.What))
	}
	p.t.Logf("%s: Tab reaches %d", name, len(way))
	return problems
}

// hostile are users that want to be more than text. want is how the page has to write them.
var hostile = []struct{ user, want string }{
	{`"<script>globalThis.pwned=1;alert(1)</script>"`, "<script>globalThis.pwned=1;alert(1)</script>"},
	{`"<img src=x onerror=globalThis.pwned=2>"`, "<img src=x onerror=globalThis.pwned=2>"},
	{`"javascript:globalThis.pwned=3"`, "javascript:globalThis.pwned=3"},
	{`"'\"><svg onload=globalThis.pwned=4>"`, `'"><svg onload=globalThis.pwned=4>`},
	{`"</td></tr></table></main><h1>Now</h1>"`, "</td></tr></table></main><h1>Now</h1>"},
	{`"{{.Token}} ${pwned} %s %n"`, "{{.Token}} ${pwned} %s %n"},
	{`"\u202egnp.exe\u0000\u001b[31m\u0007\u2028\u200b"`, `\u202egnp.exe\x00\x1b[31m\a\u2028\u200b`},
	{`"` + strings.Repeat("W", 254) + `"`, strings.Repeat("W", 120) + "…"}, // no user is longer
	{`9007199254740993`, "9007199254740993"},
	{`18446744073709551615`, "18446744073709551615"},
	{`-9007199254740993`, "-9007199254740993"},
	{`"9007199254740995"`, "9007199254740995"},
}

// testHostile: whatever stands in an event is text, in its own cell.
func (w *world) testHostile(t *testing.T) {
	fields := map[string]string{
		"<script>globalThis.pwned=5</script>": `"<script>globalThis.pwned=6</script>"`,
		"link":                                `"javascript:globalThis.pwned=7"`,
		"amount":                              `18446744073709551615`,
		"event_type":                          `"<img src=x onerror=globalThis.pwned=8>"`,
		"long":                                `"` + strings.Repeat("x", 10_000) + `"`,
		"turned":                              `"\u202e\u0007\u001b]0;title\u0007"`,
		strings.Repeat("n", 2000):             `[[[{"<b>":"</pre></details><script>globalThis.pwned=9</script>"}]]]`,
	}
	for _, h := range hostile {
		w.burst(t, h.user, 7, fields)
	}
	var found []incident.Incident
	for _, h := range hostile {
		found = append(found, w.incidentOf(t, h.user, "burst"))
	}
	p := open(t, w.console)
	// One way in from people, too.
	p.visit("/incidents/" + found[0].ID)
	p.do("check", map[string]any{"selector": "input[name=mark][value=unsure]"}, nil)
	p.fill("form[action$='/mark'] input[name=note]", "<script>globalThis.pwned=10</script>")
	p.fill("form[action$='/mark'] input[name=by]", "</dd></dl><img src=x onerror=globalThis.pwned=11>")
	p.click("form[action$='/mark'] button")
	p.sees("dl.numbers", "<script>globalThis.pwned=10</script>")

	p.visit("/incidents")
	shown := is[[]string](p, "[...document.querySelectorAll('a.key bdi')].map((el) => el.textContent)")
	for _, h := range hostile {
		if !slices.Contains(shown, h.want) {
			t.Errorf("no key is shown as %q, but: %.1500q", h.want, shown)
		}
	}
	pages := []string{"/", "/incidents", "/alerts", "/rules", "/deliveries"}
	keys := is[[]string](p, "[...document.querySelectorAll('a.key')].map((el) => el.getAttribute('href'))")
	for _, href := range keys {
		if u, err := url.Parse(href); err != nil || u.Scheme != "" || u.Host != "" || u.Path != "/keys" {
			t.Errorf("a key leads to %.200s", href)
		}
	}
	for _, n := range []int{0, 3, 4, 6, 7} { // the whole page of each takes its time
		pages = append(pages, "/incidents/"+found[n].ID)
	}
	pages = append(pages, "/alerts/"+found[1].AlertID, "/keys?"+url.Values{"key": {"user_id=" + hostile[1].want}}.Encode())
	for _, path := range pages {
		p.look(false, wide, high)
		p.visit(path)
		p.harmless(path)
		p.look(false, phoneWide, phoneHigh)
		p.fits(fmt.Sprintf("%.80s on a phone", path))
	}
	for n, h := range hostile {
		if strings.HasPrefix(h.user, `"`) || strings.HasPrefix(h.user, "-") {
			continue
		}
		p.visit("/incidents/" + found[n].ID)
		if got := p.text("h1"); !strings.Contains(got, h.want) {
			t.Errorf("the page of %s is headed %q", h.user, got)
		}
		if got := is[string](p, "document.querySelector('table.events pre').textContent"); !strings.Contains(got, `"user_id": `+h.user) || !strings.Contains(got, "18446744073709551615") {
			t.Errorf("the event of %s is shown as %.600s", h.user, got)
		}
		p.click("a.key")
		p.sees("h1", "user_id="+h.want)
		p.sees("table td", h.want) // its incidents, found under the exact number
	}
}

// harmless: nothing of an event has become more than text.
func (p *tab) harmless(path string) {
	p.t.Helper()
	got := is[struct {
		Pwned   any
		Scripts int
		Odd     []string
		Rows    []string
		Heads   int
	}](p, `({
		pwned: globalThis.pwned ?? null,
		scripts: document.scripts.length,
		odd: [...document.querySelectorAll('*')].filter((el) => [...el.attributes].some((a) => a.name.startsWith('on') || /^\s*javascript:/i.test(a.value) && a.name !== 'value') || ['IMG', 'IFRAME', 'OBJECT', 'EMBED', 'B'].includes(el.tagName)).map((el) => el.outerHTML.slice(0, 200)),
		rows: [...document.querySelectorAll('table')].flatMap((table) => [...table.tBodies[0].rows].filter((tr) => tr.cells.length !== table.tHead.rows[0].cells.length).map((tr) => tr.outerHTML.slice(0, 200))),
		heads: document.querySelectorAll('main h1').length,
	})`)
	if got.Pwned != nil || got.Scripts != 1 || len(got.Odd) > 0 || len(got.Rows) > 0 || got.Heads != 1 {
		p.t.Errorf("%.80s: text of an event is more than text: %+v", path, got)
	}
	p.fits(fmt.Sprintf("%.80s", path))
}
