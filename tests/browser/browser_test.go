package browser

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"spate/shared/testskip"
	"spate/tests/harness"
)

// The sizes that pages are looked at in.
const (
	wide, high           = 1280, 800
	phoneWide, phoneHigh = 390, 844
)

// browser is a Chromium, and the script that drives it. It ends with the process of the tests, however that ends: its input is closed then.
type browser struct {
	mu   sync.Mutex
	in   io.Writer
	out  *bufio.Reader
	n    int
	errs *strings.Builder
}

// shared is one for all tests: its start takes longer than most of them.
var shared = sync.OnceValues(startBrowser)

var errMissing = errors.New("missing")

func startBrowser() (*browser, error) {
	node, err := exec.LookPath("node")
	if err != nil {
		return nil, fmt.Errorf("%w: node is not installed", errMissing)
	}
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		return nil, fmt.Errorf("%w: chromium is not installed", errMissing)
	}
	if _, err := os.Stat(filepath.Join("node_modules", "playwright-core")); err != nil {
		return nil, fmt.Errorf("%w: playwright-core is not there; install it with: npm ci --prefix tests/browser", errMissing)
	}
	cmd := exec.Command(node, "drive.js", chromium)
	b := &browser{errs: &strings.Builder{}}
	cmd.Stderr = b.errs
	if b.in, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	b.out = bufio.NewReader(out)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	if _, err := b.answer(0); err != nil { // it is up
		return nil, err
	}
	return b, nil
}

// do has the script run a command.
func (b *browser) do(name string, tab int, args any) (json.RawMessage, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.n++
	line, err := json.Marshal(map[string]any{"n": b.n, "name": name, "tab": tab, "args": args})
	if err != nil {
		return nil, err
	}
	if _, err := b.in.Write(append(line, '\n')); err != nil {
		return nil, err
	}
	return b.answer(b.n)
}

func (b *browser) answer(n int) (json.RawMessage, error) {
	line, err := b.out.ReadBytes('\n')
	if err != nil {
		return nil, fmt.Errorf("the browser has ended: %w: %s", err, b.errs)
	}
	var answer struct {
		N     int
		Value json.RawMessage
		Error string
	}
	if err := json.Unmarshal(line, &answer); err != nil {
		return nil, fmt.Errorf("%w: %s", err, line)
	}
	if answer.N != n {
		return nil, fmt.Errorf("answer %d to command %d", answer.N, n)
	}
	if answer.Error != "" {
		return nil, errors.New(answer.Error)
	}
	return answer.Value, nil
}

// tab is a page that somebody looks at.
type tab struct {
	t       *testing.T
	b       *browser
	id      int
	origin  string
	allowed *regexp.Regexp // errors in the console of the browser that are meant
}

// theBrowser returns the browser, or ends the test where there is none.
func theBrowser(t *testing.T) *browser {
	t.Helper()
	b, err := shared()
	if errors.Is(err, errMissing) {
		testskip.Missing(t, "%v", err)
	} else if err != nil {
		t.Fatal(err)
	}
	return b
}

// open opens a tab on a console. At the end of the test it must have had no error, asked nobody else, and kept to its policy.
func open(t *testing.T, origin string) *tab {
	t.Helper()
	p := &tab{t: t, b: theBrowser(t), origin: origin}
	p.do("open", map[string]any{"origin": origin, "width": wide, "height": high}, &p.id)
	t.Cleanup(p.close)
	return p
}

func (p *tab) close() {
	var seen struct {
		Console, Errors, Elsewhere, Dialogs, Violations []string
		Requests                                        int
	}
	p.do("close", nil, &seen)
	if p.allowed != nil {
		seen.Console = slices.DeleteFunc(seen.Console, p.allowed.MatchString)
	}
	for what, list := range map[string][]string{
		"in the browser's console": seen.Console, "error in the page": seen.Errors, "request to elsewhere": seen.Elsewhere, "dialog": seen.Dialogs, "breach of the policy": seen.Violations,
	} {
		for _, text := range slices.Compact(list) {
			p.t.Errorf("%s: %s", what, text)
		}
	}
	if seen.Requests == 0 {
		p.t.Error("no request was seen, so nothing is known of them")
	}
	p.t.Logf("%d requests, all to the console", seen.Requests-len(seen.Elsewhere))
}

// do runs a command and reads its answer into the last argument, if that is not nil.
func (p *tab) do(name string, args any, into any) {
	p.t.Helper()
	value, err := p.b.do(name, p.id, args)
	if err != nil {
		p.t.Fatalf("%s %v: %v", name, args, err)
	}
	if into != nil {
		if err := json.Unmarshal(value, into); err != nil {
			p.t.Fatalf("%s: %v: %s", name, err, value)
		}
	}
}

// visit goes to a page and returns the status.
func (p *tab) visit(path string) (status int) {
	p.t.Helper()
	p.do("goto", map[string]any{"url": p.origin + path}, &status)
	return status
}

func (p *tab) click(selector string) {
	p.t.Helper()
	p.do("click", map[string]any{"selector": selector}, nil)
}

func (p *tab) fill(selector, text string) {
	p.t.Helper()
	p.do("fill", map[string]any{"selector": selector, "text": text}, nil)
}

func (p *tab) press(key string) {
	p.t.Helper()
	p.do("press", map[string]any{"key": key}, nil)
}

func (p *tab) look(dark bool, width, height int) {
	p.t.Helper()
	p.do("look", map[string]any{"dark": dark, "width": width, "height": height}, nil)
}

func (p *tab) url() (url string) {
	p.t.Helper()
	p.do("url", nil, &url)
	return strings.TrimPrefix(url, p.origin)
}

// is evaluates an expression in the page.
func is[T any](p *tab, script string) (value T) {
	p.t.Helper()
	p.do("evaluate", map[string]any{"script": script}, &value)
	return value
}

// text is all that a part of the page shows.
func (p *tab) text(selector string) string {
	p.t.Helper()
	return is[string](p, fmt.Sprintf("[...document.querySelectorAll(%s)].map((el) => el.innerText).join('\\n')", quoted(selector)))
}

// sees waits until a part of the page has a text.
func (p *tab) sees(selector, text string) {
	p.t.Helper()
	p.until(fmt.Sprintf("%s shows %q", selector, text), fmt.Sprintf("[...document.querySelectorAll(%s)].some((el) => el.innerText.includes(%s))", quoted(selector), quoted(text)))
}

// until waits until an expression holds in the page; one that throws, as while a page is being left, does not.
func (p *tab) until(what, script string) {
	p.t.Helper()
	if harness.Within(20*time.Second, func() bool {
		value, err := p.b.do("evaluate", p.id, map[string]any{"script": script})
		return err == nil && string(value) == "true"
	}) {
		return
	}
	p.t.Fatalf("not in time: %s; the page at %s shows:\n%s", what, p.url(), p.text("body"))
}

// shot keeps what the page looks like, where somebody collects it.
func (p *tab) shot(name string) {
	p.t.Helper()
	dir := os.Getenv("SPATE_TEST_ARTIFACTS")
	if dir == "" {
		return
	}
	dir, err := filepath.Abs(dir)
	if err == nil {
		err = os.MkdirAll(dir, 0o755)
	}
	if err != nil {
		p.t.Fatal(err)
	}
	p.do("shot", map[string]any{"path": filepath.Join(dir, name+".png")}, nil)
}

func quoted(text string) string {
	b, _ := json.Marshal(text) // it is text
	return string(b)
}
