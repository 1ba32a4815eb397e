package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"spate/shared/alert"
	"spate/shared/testskip"
)

// viewed runs what happens to a view that is no terminal, on a clock of its own, and returns what it printed.
func viewedBy(t *testing.T, asJSON bool, happens func(v *view)) string {
	var b bytes.Buffer
	synctest.Test(t, func(t *testing.T) {
		v := newView(&b, asJSON)
		happens(v)
		if err := v.close(); err != nil {
			t.Error(err)
		}
	})
	return b.String()
}

// many are alerts of as many users in a window.
func many(users, window int, state alert.State, count int64) (out []alert.Record) {
	for i := range users {
		r := record(fmt.Sprint(900_500_000+i), window, state)
		r.Count = count + int64(i%4)
		out = append(out, r)
	}
	return out
}

// TestFloodIsFewLines: a botnet that breaks the rule in one window, a little at a time, takes five lines at most, and is whole in the end.
func TestFloodIsFewLines(t *testing.T) {
	out := viewedBy(t, false, func(v *view) {
		for _, r := range many(40, 0, alert.Opened, 6) {
			v.alert(r)
			time.Sleep(50 * time.Millisecond) // as transactions come
		}
		time.Sleep(20*time.Second + viewEvery/2) // between two prints: what arrives during one is told half now and half at the next
		for i, r := range many(40, 0, alert.Closed, 6) {
			if i%2 == 0 {
				r.Severity = alert.Critical
			}
			v.alert(r)
		}
		time.Sleep(5 * time.Second)
	})
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) > 10 { // the head; the first ones and all of them at the end, 4 lines each; the others
		t.Errorf("%d lines:\n%s", len(lines), out)
	}
	says(t, lines[0], "SEVERITY       USER           WINDOW (UTC)                          EVENTS  ALERT")
	says(t, lines[len(lines)-1], "some critical  37 more users  2019-11-01 00:00:00 +10s", "6 to 9 each")
}

// TestViewOfAnyRule: alerts of rules are told by rule and key, and those of several rules in one window are counted as alerts.
func TestViewOfAnyRule(t *testing.T) {
	out := viewedBy(t, false, func(v *view) {
		for n := range 6 {
			r := record(fmt.Sprint(n), 0, alert.Closed)
			r.Rule, r.Threshold, r.Count = "scraper", 0, int64(20-n)
			r.SetRow([]string{"ip"}, fmt.Sprintf(`"10.0.0.%d"`, n), []byte(`"a":1`))
			r.ID = alert.ID(r.Rule, string(r.UserID), r.WindowStart.UnixMilli(), 10_000)
			v.alert(r)
		}
		time.Sleep(5 * time.Second)
	})
	says(t, out, "warning        scraper 10.0.0.0  2019-11-01 00:00:00 +10s", "3 more alerts")
}

// TestFewUsersHaveALineEach: the first alert is printed at once, the exact count when the window has ended.
func TestFewUsersHaveALineEach(t *testing.T) {
	var early string
	var b bytes.Buffer
	synctest.Test(t, func(t *testing.T) {
		v := newView(&b, false)
		v.alert(record("7", 0, alert.Opened))
		time.Sleep(2 * viewEvery)
		synctest.Wait()
		early = b.String()
		v.alert(record("7", 0, alert.Opened)) // told again after a crash
		time.Sleep(20 * time.Second)
		v.alert(record("7", 0, alert.Closed))
		v.alert(record("7", 0, alert.Opened)) // late
		if err := v.close(); err != nil {
			t.Error(err)
		}
	})
	says(t, early, "warning        7              2019-11-01 00:00:00 +10s           6 or more  "+record("7", 0, alert.Opened).ID)
	if late := strings.TrimPrefix(b.String(), early); strings.Count(late, "\n") != 1 || !strings.Contains(late, "  9  ") {
		t.Errorf("then it prints %q", late)
	}
}

// TestViewRemembersNoMoreThanItMay: a flood of a million users takes the room of ten thousand.
func TestViewRemembersNoMoreThanItMay(t *testing.T) {
	out := viewedBy(t, false, func(v *view) {
		for _, r := range many(3*maxViewed, 0, alert.Opened, 6) {
			v.alert(r)
		}
		if n := len(v.windows[0].alerts); n != maxViewed {
			t.Errorf("%d alerts are remembered", n)
		}
	})
	lines := strings.Split(strings.TrimSpace(out), "\n")
	says(t, lines[len(lines)-1], "29,997 more users")

}

// TestNobodyReads: a terminal that is paused, or a pipe that nobody reads, holds up neither alerts nor the end.
func TestNobodyReads(t *testing.T) {
	for _, asJSON := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			r, w := io.Pipe()
			v := newView(w, asJSON)
			for i := range 3 {
				for _, a := range many(2*maxViewed, i, alert.Opened, 6) {
					v.alert(a)
				}
				time.Sleep(10 * time.Second)
			}
			begun := time.Now()
			if err := v.close(); !errors.Is(err, errUnread) || time.Since(begun) > viewEnd {
				t.Errorf("json %v: it ended after %v with %v", asJSON, time.Since(begun), err)
			}
			r.Close()
			<-v.done
		})
	}
}

// TestAlertsCannotBePrinted: what is lost is an error in the end, unless the reader has left, as head does.
func TestAlertsCannotBePrinted(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		testskip.Missing(t, "there is no device that is always full: %v", err)
	}
	defer full.Close()
	r, left, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	defer left.Close()
	for _, asJSON := range []bool{false, true} {
		for to, want := range map[*os.File]error{full: syscall.ENOSPC, left: nil} {
			v := newView(to, asJSON)
			for _, a := range many(1000, 0, alert.Opened, 6) {
				v.alert(a)
			}
			if err := v.close(); !errors.Is(err, want) {
				t.Errorf("json %v, %s: %v, want %v", asJSON, to.Name(), err, want)
			}
		}
	}
}

func TestViewAsJSON(t *testing.T) {
	out := viewedBy(t, true, func(v *view) {
		for _, r := range many(40, 0, alert.Opened, 6) {
			v.alert(r)
		}
	})
	if n := len(objects(t, out)); n != 40 {
		t.Errorf("%d lines", n)
	}
}
