package alert

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// rowOf is the closed record of a rule with a key, in a window that is not aligned to its size.
func rowOf(rule string, names []string, token, columns string) Record {
	r := closed()
	r.Rule, r.Threshold = rule, 0
	r.WindowEnd = r.WindowStart.Add(50 * time.Second)
	r.SetRow(names, token, []byte(columns))
	r.ID = ID(rule, token, r.WindowStart.UnixMilli(), 50_000)
	return r
}

func row() Record {
	r := rowOf("card-testing", []string{"ip", "product"}, `["10.0.0.1",null]`, `"ip":"10.0.0.1","product":null,"amount":"12.50","ok":true`)
	r.AtLeast, r.RuleRevision, r.Mode = true, 7, Shadow
	return r
}

func userRow() Record {
	return rowOf("scraper", []string{"user_id"}, `520088904`, `"user_id":520088904,"window_start":"2019-11-01T00:00:00.000","products":30`)
}

func TestRow(t *testing.T) {
	const rest = `"window_start":"2019-11-01T00:00:00Z","window_end":"2019-11-01T00:00:50Z","first_event_at":"2019-11-01T00:00:00.012Z",` +
		`"last_event_at":"2019-11-01T00:00:09.871Z","evidence":{"topic":"activity","partitions":{"0":{"first_offset":1234567,"last_offset":1234890},` +
		`"1":{"first_offset":998001,"last_offset":998300},"3":{"first_offset":2345678,"last_offset":2345999}}}}`
	for _, c := range []struct {
		name string
		r    Record
		want string // what is before the rest
	}{
		{"two keys", row(), `"rule":"card-testing","state":"closed","severity":"critical","rule_revision":7,"mode":"shadow","key":{"ip":"10.0.0.1","product":null},` +
			`"ip":"10.0.0.1","product":null,"amount":"12.50","ok":true,"at_least":true,"event_count":23,`},
		{"user", userRow(), `"rule":"scraper","state":"closed","severity":"critical","key":{"user_id":520088904},"user_id":520088904,"user":"520088904",` +
			`"products":30,"event_count":23,`},
		{"user as text", rowOf("burst", []string{"user_id"}, `"<a&b>"`, `"n":6`), `"rule":"burst","state":"closed","severity":"critical","key":{"user_id":"<a&b>"},` +
			`"user_id":"<a&b>","user":"<a&b>","n":6,"event_count":23,`},
		{"column with the user's name", rowOf("odd", []string{"user_id"}, `5`, `"user_id":9`), `"rule":"odd","state":"closed","severity":"critical","key":{"user_id":5},` +
			`"user":"5","user_id":9,"event_count":23,`},
		{"user that is none", rowOf("odd", []string{"user_id"}, `null`, `"user_id":null`), `"rule":"odd","state":"closed","severity":"critical","key":{"user_id":null},` +
			`"user_id":null,"event_count":23,`},
		{"no key, no column", rowOf("all", nil, `[]`, ``), `"rule":"all","state":"closed","severity":"critical","key":{},"event_count":23,`},
		{"one name for two keys", rowOf("odd", []string{"a", "a"}, `[1,2]`, `"a":1`), `"rule":"odd","state":"closed","severity":"critical","key":{"a":1,"a2":2},"a":1,"event_count":23,`},
		{"names of the original", rowOf("odd", []string{"ip"}, `"x"`, `"num_actions_per_watermark":"1.5"`), `"rule":"odd","state":"closed","severity":"critical","key":{"ip":"x"},` +
			`"num_actions_per_watermark":"1.5","event_count":23,`},
	} {
		got := string(encode(t, c.r))
		if want := `{"id":"` + c.r.ID + `",` + c.want + rest; got != want {
			t.Errorf("%s:\n%s", c.name, cmp.Diff(want, got))
		}
		back, err := Parse([]byte(got))
		if diff := cmp.Diff(c.r, back); err != nil || diff != "" {
			t.Errorf("%s: %v, %s", c.name, err, diff)
		}
	}
	if r := row(); r.KeyText() != `["10.0.0.1",null]` || r.IsUser() {
		t.Errorf("key %s, user %v", r.KeyText(), r.IsUser())
	}
}

// TestRowRefuses: each case is a record with a key that is right but for one member, which the error names.
func TestRowRefuses(t *testing.T) {
	text := func(from, to string) string { return replace(t, string(encode(t, row())), from, to) }
	of := func(rule string, names []string, token, columns string) string {
		return string(encode(t, rowOf(rule, names, token, columns)))
	}
	for _, c := range []struct{ name, in, want string }{
		{"no rule name", of("Scan", []string{"a"}, `1`, ``), "rule:"},
		{"empty rule name", of("", []string{"a"}, `1`, ``), "rule:"},
		{"long rule name", of(strings.Repeat("a", maxRule+1), []string{"a"}, `1`, ``), "rule:"},
		{"another key", text(`"key":{"ip":"10.0.0.1"`, `"key":{"ip":"10.0.0.2"`), "id:"},
		{"later key", text(`}}}}`, `}}},"key":{"ip":"10.0.0.2"}}`), `"key" appears twice`},
		{"key that is no object", text(`"key":{"ip":"10.0.0.1","product":null}`, `"key":5`), "key:"},
		{"object in a key", of("a", []string{"a"}, `{"b":1}`, ``), "key:"},
		{"escapes that need not be", of("a", []string{"a"}, `"\u0061"`, ``), "key:"},
		{"key without a name", of("a", []string{""}, `1`, ``), "key:"},
		{"long key", of("a", []string{"a"}, `"`+strings.Repeat("a", maxRow)+`"`, ``), "key:"},
		{"column twice", text(`"amount":`, `"ok":1,"amount":`), `"ok" appears twice`},
		{"reserved column", text(`"amount":`, `"RULE":1,"amount":`), "columns:"},
		{"reserved column with a long s", text(`"amount":`, `"ſtate":1,"amount":`), "columns:"},
		{"long columns", text(`"12.50"`, `"`+strings.Repeat("a", maxRow)+`"`), "columns:"},
		{"long name", text(`"amount"`, `"`+strings.Repeat("a", maxColumn+1)+`"`), "columns:"},
		{"threshold", text(`"amount"`, `"threshold"`), "columns:"},
		{"user", text(`"amount"`, `"user"`), "user:"},
		{"no count", text(`"event_count":23,`, ``), "event_count:"},
		{"negative revision", text(`"rule_revision":7`, `"rule_revision":-7`), "rule_revision:"},
		{"another mode", text(`"mode":"shadow"`, `"mode":"off"`), "mode:"},
		{"long window", text(`"window_end":"2019-11-01T00:00:50Z"`, `"window_end":"2019-11-09T00:00:50Z"`), "window_end:"},
		{"count that is none", text(`"event_count":23`, `"event_count":"x"`), "event_count:"},
	} {
		_, err := Parse([]byte(c.in))
		if err == nil || !strings.Contains(err.Error(), ": "+c.want) || len(err.Error()) > 600 {
			t.Errorf("%s: %v is not about %s", c.name, err, c.want)
		}
	}
}

// TestRowsRoundTrip: any row comes back as it was, and the same row has the same bytes.
func TestRowsRoundTrip(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	scalars := []string{`null`, `true`, `0`, `-0.0`, `1.50e+30`, `9007200134741019`, `""`, `"a\u0001\b\"\\"`, `"<&>"`, `"\u2028"`, "\"\u2028ä\"", `"NaN"`}
	names := []string{"user_id", "ip", "a b", "ä", `"`, "<", "EXPR$0", "Key2", "count", "\u2028"}
	pick := func(from []string) string { return from[rng.IntN(len(from))] }
	for range 2000 {
		var keys []string
		var token []string
		for range rng.IntN(4) {
			keys, token = append(keys, pick(names)), append(token, pick(scalars))
		}
		text := "[" + strings.Join(token, ",") + "]"
		if len(keys) == 1 {
			text = token[0]
		}
		var columns []string
		for _, i := range rng.Perm(len(names))[:rng.IntN(len(names))] {
			name, err := json.Marshal(names[i])
			if err != nil {
				t.Fatal(err)
			}
			columns = append(columns, fmt.Sprintf("%s:%s", name, pick(scalars)))
		}
		r := rowOf("a", keys, text, strings.Join(columns, ","))
		b := encode(t, r)
		back, err := Parse(b)
		if diff := cmp.Diff(r, back); err != nil || diff != "" {
			t.Fatalf("%s: %v, %s", b, err, diff)
		}
		if again := encode(t, back); string(again) != string(b) {
			t.Fatalf("%s becomes %s", b, again)
		}
	}
}

// TestKeyLabel: several columns have their names, and no value can be taken for another one.
func TestKeyLabel(t *testing.T) {
	for key, want := range map[string]string{
		`{"user_id":5}`:                     `5`,
		`{"ip":"10.0.0.1"}`:                 `10.0.0.1`,
		`{}`:                                `[]`,
		`{"user_id":5,"product_id":3}`:      `user_id=5 product_id=3`,
		`{"ip":"10.0.0.1","b":null}`:        `ip=10.0.0.1 b=null`,
		`{"a":"5","b":"null","c":true}`:     `a="5" b="null" c=true`,
		`{"a":"x b=1","b":"","c":"say \""}`: `a="x b=1" b="" c="say \""`,
		`{"a":"é<>","b":1.5}`:               `a=é<> b=1.5`,
	} {
		if got, err := KeyLabel(json.RawMessage(key)); err != nil || got != want {
			t.Errorf("%s: %q, %v, want %q", key, got, err, want)
		}
	}
	for _, key := range []string{``, `[1]`, `{"a"`} {
		if got, err := KeyLabel(json.RawMessage(key)); err == nil {
			t.Errorf("%s: %q", key, got)
		}
	}
}
