package ops

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
)

// calmFor is how long a line that was written keeps others of its cause back.
const calmFor = time.Second

// maxCauses bounds what is remembered.
const maxCauses = 4096

// Calm returns a handler that writes lines of one cause at most once a second, and adds how many it has left out ("repeated") to the next
// one: a fault that is met in a loop does not fill a disk. Lines of one level have one cause if their messages are the same and they are about
// the same thing ([things]).
func Calm(h slog.Handler, now func() time.Time) slog.Handler {
	return &calm{inner: h, shared: &calmed{now: now, causes: make(map[string]*cause)}}
}

type calm struct {
	inner  slog.Handler
	prefix string // what With has set
	shared *calmed
}

type calmed struct {
	now    func() time.Time
	mu     sync.Mutex
	causes map[string]*cause
}

type cause struct {
	until   time.Time
	skipped int
}

// Enabled implements slog.Handler.
func (c *calm) Enabled(ctx context.Context, l slog.Level) bool { return c.inner.Enabled(ctx, l) }

// Handle implements slog.Handler.
func (c *calm) Handle(ctx context.Context, r slog.Record) error {
	var key strings.Builder
	fmt.Fprintf(&key, "%s\x00%s\x00%s", c.prefix, r.Level, r.Message)
	r.Attrs(func(a slog.Attr) bool { appendKey(&key, a); return true })
	skipped, ok := c.shared.pass(key.String())
	if !ok {
		return nil
	}
	if skipped > 0 {
		r = r.Clone()
		r.AddAttrs(slog.Int("repeated", skipped))
	}
	return c.inner.Handle(ctx, r)
}

// things are the attributes that tell causes apart. Others, as ids, offsets and errors, have values without end.
var things = []string{"service", "topic", "partition", "endpoint", "reason", "stream", "shard_id"}

func appendKey(b *strings.Builder, a slog.Attr) {
	if slices.Contains(things, a.Key) {
		fmt.Fprintf(b, "\x00%s=%v", a.Key, a.Value.Resolve())
	}
}

// WithAttrs implements slog.Handler.
func (c *calm) WithAttrs(attrs []slog.Attr) slog.Handler {
	var key strings.Builder
	key.WriteString(c.prefix)
	for _, a := range attrs {
		appendKey(&key, a)
	}
	return &calm{inner: c.inner.WithAttrs(attrs), prefix: key.String(), shared: c.shared}
}

// WithGroup implements slog.Handler.
func (c *calm) WithGroup(name string) slog.Handler {
	return &calm{inner: c.inner.WithGroup(name), prefix: c.prefix + "\x00" + name, shared: c.shared}
}

func (c *calmed) pass(key string) (skipped int, ok bool) {
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if was := c.causes[key]; was != nil {
		if now.Before(was.until) {
			was.skipped++
			return 0, false
		}
		skipped = was.skipped
	}
	if len(c.causes) >= maxCauses {
		for k, was := range c.causes {
			if !now.Before(was.until) {
				delete(c.causes, k)
			}
		}
	}
	if len(c.causes) < maxCauses {
		c.causes[key] = &cause{until: now.Add(calmFor)}
	}
	return skipped, true
}
