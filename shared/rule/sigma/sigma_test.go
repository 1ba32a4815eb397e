package sigma

import (
	"fmt"
	"strings"
	"testing"

	"spate/shared/rule"
	"spate/shared/rule/syntax"
)

// file is a base rule and a correlation.
func file(detection, correlation string) string {
	indent := func(text string) string {
		return "  " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n  ") + "\n"
	}
	return "title: Base\nname: base\ndetection:\n" + indent(detection) + "---\ntitle: Found it\ncorrelation:\n" + indent(correlation)
}

const counts = "type: event_count\nrules: [base]\ngroup-by: [user_session]\ntimespan: 1m\ncondition: {gte: 10}"

func convert(t *testing.T, source string, o Options) (string, *rule.Set) {
	t.Helper()
	if o.TimeColumn == "" {
		o.TimeColumn = "txn_timestamp"
	}
	rules, errs := Convert(source, o)
	if len(errs) > 0 {
		t.Fatalf("%s\n%s", errs[0].Format("s.yml", source), source)
	}
	set, errs := rule.Compile(rules, rule.Options{Tables: []*rule.Table{rule.Activity()}})
	if len(errs) > 0 {
		t.Fatal(errs[0].Format("s.sql", rules))
	}
	return rules, set
}

// TestDetections: what a selection says, as SQL.
func TestDetections(t *testing.T) {
	for _, test := range []struct{ detection, want string }{
		{"s: {event_type: Cart}\ncondition: s", "LOWER(event_type) = 'cart'"},
		{"s: {event_type|cased: Cart}\ncondition: s", "event_type = 'Cart'"},
		{"s: {event_type: [cart, 'It''s']}\ncondition: s", "LOWER(event_type) IN ('cart', 'it''s')"},
		{"s: {event_type: [cart, 'v*']}\ncondition: s", "(LOWER(event_type) = 'cart' OR LOWER(event_type) LIKE 'v%')"},
		{"s: {product_id: 5, price|gte: 2.5}\ncondition: s", "product_id = 5 AND price >= 2.5"},
		{"s: {product_id: [5, 0x10]}\ncondition: s", "product_id IN (5, 16)"},
		{"s: {product_id|startswith: '5'}\ncondition: s", "LOWER(CAST(product_id AS STRING)) LIKE '5%'"},
		{"s: {brand: null}\ncondition: s", "brand IS NULL"},
		{"s: {brand: [null, x]}\ncondition: s", "(brand IS NULL OR LOWER(brand) = 'x')"},
		{"s: {brand: ''}\ncondition: s", "LOWER(brand) = ''"},
		{"s: {brand|exists: true, category_code|exists: no}\ncondition: s", "brand IS NOT NULL AND category_code IS NULL"},
		{`s: {brand|contains|all: [a, 'b\*', 'c\\*', 'd\e', '5%_!']}` + "\ncondition: s",
			`LOWER(brand) LIKE '%a%' AND LOWER(brand) LIKE '%b*%' AND LOWER(brand) LIKE '%c\%%' AND LOWER(brand) LIKE '%d\e%' AND LOWER(brand) LIKE '%5!%!_!!%' ESCAPE '!'`},
		{"s: {brand|startswith: 'a?b', category_code|endswith: z}\ncondition: s", "LOWER(brand) LIKE 'a_b%' AND LOWER(category_code) LIKE '%z'"},
		{"s: {brand|re: '^A.*z$', category_code|re|i: x}\ncondition: s", "REGEXP(brand, '^A.*z$') AND REGEXP(category_code, '(?i)x')"},
		{"s: {brand|cidr: 192.168.0.0/16}\ncondition: s", "brand LIKE '192.168.%'"},
		{"s: {brand|cidr: 192.168.7.9/32}\ncondition: s", "brand = '192.168.7.9'"},
		{"s: {brand|cidr: 172.16.0.0/15}\ncondition: s", "(brand LIKE '172.16.%' OR brand LIKE '172.17.%')"},
		{"s: {brand|cidr: 10.0.0.8/31}\ncondition: s", "(brand = '10.0.0.8' OR brand = '10.0.0.9')"},
		{"s: [{brand: a}, {brand: b, price|lt: 3}]\ncondition: s", "(LOWER(brand) = 'a' OR (LOWER(brand) = 'b' AND price < 3))"},
		{"s: {brand: a}\nf: {price: 1}\ncondition: s and not f", "LOWER(brand) = 'a' AND (price = 1) IS NOT TRUE"},
		{"s1: {brand: a}\ns2: {brand: b}\nf: {price: 1}\n_x: {price: 2}\ncondition: 1 of s* and f", "(LOWER(brand) = 'a' OR LOWER(brand) = 'b') AND price = 1"},
		{"s1: {brand: a}\ns2: {brand: b}\n_x: {price: 2}\ncondition: all of them", "LOWER(brand) = 'a' AND LOWER(brand) = 'b'"},
		{"s1: {brand: a}\ns2: {brand: b}\nf: {price: 2}\ncondition: s1 or s2 and (f OR s1)", "(LOWER(brand) = 'a' OR (LOWER(brand) = 'b' AND (price = 2 OR LOWER(brand) = 'a')))"},
		{"s1: {brand: a}\ns2: {brand: b}\ncondition: [s1, s2]", "(LOWER(brand) = 'a' OR LOWER(brand) = 'b')"},
		{"keywords: [One, 'two*']\ncondition: keywords", "(LOWER(message) LIKE '%one%' OR LOWER(message) LIKE '%two%%')"},
		{"keywords: {'|all': [one, two]}\ncondition: keywords", "LOWER(message) LIKE '%one%' AND LOWER(message) LIKE '%two%'"},
		{"keywords: '${jndi:\\x'\ncondition: keywords", `LOWER(message) LIKE U&'%\0024{jndi:\\x%'`},
		{"s: {a.b.c: x, a.d: 7, Count|gt: 5}\ncondition: s", "LOWER(a.b.c) = 'x' AND a.d = 7 AND `Count` > 5"},
		{"s: {port: 22, host: x}\nt: {port: ssh}\ncondition: s or t", "((port = '22' AND LOWER(host) = 'x') OR LOWER(port) = 'ssh')"},
		{"s: {size|gt: 5, host: x}\nt: {size: big}\ncondition: s or t", "((TRY_CAST(size AS DOUBLE) > 5 AND LOWER(host) = 'x') OR LOWER(size) = 'big')"},
	} {
		rules, _ := convert(t, file(test.detection, counts), Options{})
		if !strings.Contains(rules, "\nWHERE "+test.want+" AND user_session IS NOT NULL\n") {
			t.Errorf("%s\nwant %s\ngot  %s", test.detection, test.want, rules)
		}
	}
}

// TestCorrelations: what a correlation says, as SQL.
func TestCorrelations(t *testing.T) {
	const base = "s: {event_type: cart}\ncondition: s"
	for _, test := range []struct {
		correlation string
		tumble      bool
		want        []string
	}{
		{counts, false, []string{"-- From Sigma: Found it\n-- rule: found-it\n-- summary: {user_session}, {events} events in 1 min: Found it\nINSERT INTO alerts\nSELECT user_session, COUNT(*) AS events\nFROM activity\n",
			"GROUP BY HOP(txn_timestamp, INTERVAL '10' SECOND, INTERVAL '1' MINUTE), user_session\nHAVING COUNT(*) >= 10;\n"}},
		{counts, true, []string{"GROUP BY TUMBLE(txn_timestamp, INTERVAL '1' MINUTE), user_session\n"}},
		{"type: event_count\nrules: base\ntimespan: 1h\ncondition: {gt: 5, lte: 9}", false, []string{"SELECT COUNT(*) AS events\n", "WHERE LOWER(event_type) = 'cart'\n",
			"GROUP BY HOP(txn_timestamp, INTERVAL '10' MINUTE, INTERVAL '1' HOUR)\n", "HAVING COUNT(*) > 5 AND COUNT(*) <= 9;"}},
		{"type: value_count\nrules: [base]\ngroup-by: [user_id, brand]\ntimespan: 100s\ncondition: {field: product_id, eq: 5}", false, []string{
			"COUNT(DISTINCT product_id) AS distinct_values", "INTERVAL '20' SECOND, INTERVAL '100' SECOND(3)), user_id, brand\n"}},
		{"type: value_sum\nrules: [base]\ngroup-by: [user_id]\ntimespan: 7s\ncondition: {field: price, gte: 99.5}", false, []string{"SUM(price) AS total", "TUMBLE(txn_timestamp, INTERVAL '7' SECOND)", ">= 99.5;"}},
		{"type: value_avg\nrules: [base]\ngroup-by: [user, a.id]\ntimespan: 5s\ncondition: {field: a.size, lt: 3}", false, []string{
			"a ROW<id STRING, size DOUBLE>", "SELECT `user` AS user_value, a.id AS a_id, AVG(a.size) AS average", "HOP(txn_timestamp, INTERVAL '1' SECOND, INTERVAL '5' SECOND)"}},
	} {
		rules, _ := convert(t, file(base, test.correlation), Options{Tumble: test.tumble})
		for _, want := range test.want {
			if !strings.Contains(rules, want) {
				t.Errorf("no %q in\n%s", want, rules)
			}
		}
	}
}

// TestSelects: events that Sigma's rule selects are counted, and no others; a field that an event does not have is not a reason to drop it.
func TestSelects(t *testing.T) {
	_, set := convert(t, file("s: {brand|contains: Evil}\nf1: {category_code: known*}\nf2: {price|lt: 1}\ncondition: s and not 1 of f*", counts), Options{})
	p := set.Plan().Feeds[0].Program()
	for event, want := range map[string]bool{
		"brand=very evil": true, "brand=EVIL,price=5": true, "brand=evil,price=0.5": false, "brand=evil,category_code=Known.x": false,
		"brand=evil,category_code=unknown": true, "brand=good": false, "": false,
	} {
		row := make([]rule.Value, len(set.Inputs))
		for i, in := range set.Inputs {
			for pair := range strings.SplitSeq("user_session=s,"+event, ",") {
				if name, value, _ := strings.Cut(pair, "="); name == in.Name() {
					row[i], _ = rule.Parse(in.Type, []byte(value))
				}
			}
		}
		if got := p.Takes(row); got != want {
			t.Errorf("%s: %v, want %v", event, got, want)
		}
	}
}

// TestRefused: what cannot be expressed in SQL is refused by name, at its place.
func TestRefused(t *testing.T) {
	const base = "s: {event_type: cart}\ncondition: s"
	for _, test := range []struct{ source, want string }{
		{file(base, strings.Replace(counts, "event_count", "temporal", 1)), "s.yml:9:9: a correlation of type temporal cannot be expressed in SQL"},
		{file(base, strings.Replace(counts, "event_count", "temporal_ordered", 1)), "s.yml:9:9: a correlation of type temporal_ordered cannot"},
		{file(base, strings.Replace(counts, "event_count", "value_percentile", 1)), "s.yml:9:9: a correlation of type value_percentile cannot"},
		{file("s: {event_type|base64offset|contains: x}\ncondition: s", counts), "s.yml:4:7: the modifier base64offset cannot be expressed in SQL"},
		{file("s: {event_type|windash: x}\ncondition: s", counts), "the modifier windash cannot"},
		{file("s: {event_type|fieldref: x}\ncondition: s", counts), "the modifier fieldref cannot"},
		{file("s: {event_type|contains|re: x}\ncondition: s", counts), "the modifiers contains and re are mutually exclusive"},
		{file("s: {brand|cidr: '::1/64'}\ncondition: s", counts), `s.yml:4:19: cidr: "::1/64" is not an IPv4 network`},
		{file("s: {price|gt: x}\ncondition: s", counts), `"x" is not a number`},
		{file("s: {brand|exists: maybe}\ncondition: s", counts), `exists: "maybe" is neither true nor false`},
		{file("s: {brand: {a: b}}\ncondition: s", counts), "a value is expected here"},
		{file("s: {brand: &a x, event_type: *a}\ncondition: s", counts), "YAML aliases are not supported"},
		{file("s: {a: x, a.b: y}\ncondition: s", counts), "cannot both be fields"},
		{file("s: {txn_timestamp: x}\ncondition: s", counts), "s.yml:4:7: txn_timestamp cannot be both a field and the time"},
		{file("s: {}\ncondition: s", counts), "this selection is empty"},
		{file("s: {brand: []}\ncondition: s", counts), "brand has no values"},
		{file("s: {brand: x}", counts), "the detection has no condition"},
		{file("s: {brand: x}\ncondition: s | count() by brand > 5", counts), "the old aggregation syntax is not supported"},
		{file("s: {brand: x}\ntimeframe: 5m\ncondition: s", counts), "the old aggregation syntax is not supported"},
		{file("s: {brand: x}\ncondition: s near t", counts), "unexpected near in the condition"},
		{file("s: {brand: x}\ncondition: t", counts), "the detection has no selection t"},
		{file("s: {brand: x}\ncondition: 2 of s*", counts), `"2 of" cannot be expressed in SQL`},
		{file("s: {brand: x}\ncondition: 1 of x*", counts), "no selection matches x*"},
		{file("s: {brand: x}\ncondition: (s and", counts), "the condition ends too early"},
		{file("s: {brand: x}\ncondition: (s", counts), "the condition lacks a closing parenthesis"},
		{file(base, strings.Replace(counts, "[base]", "[other]", 1)), "s.yml:10:11: the file has no rule other"},
		{file(base, strings.Replace(counts, "[base]", "[Found it]", 1)), "a correlation of correlations, such as Found it, cannot be expressed in SQL"},
		{file(base, strings.Replace(counts, "1m", "2h", 1)), "between 1 s and 1 h long, but this timespan is 2h"},
		{file(base, strings.Replace(counts, "1m", "soon", 1)), `"soon" is not a timespan`},
		{file(base, strings.Replace(counts, "gte: 10", "gte: ten", 1)), `"ten" is not a number`},
		{file(base, strings.Replace(counts, "gte: 10", "field: brand", 1)), "the condition has no comparison"},
		{file(base, strings.Replace(counts, "gte: 10", "field: brand, gte: 1", 1)), "event_count counts events, so it takes no field"},
		{file(base, strings.Replace(counts, "event_count", "value_count", 1)), "value_count needs a field"},
		{file(base, counts+"\naliases: {x: {base: y}}"), "aliases cannot be expressed in SQL"},
		{file(base, counts+"\ngenerate: true"), "generate: the alerts of the base rules themselves cannot"},
		{file(base, counts+"\nnear: x"), "near is not a known part of a correlation"},
		{"title: Base\nname: base\ndetection:\n  s: {brand: x}\n  condition: s\n", "s.yml:1:1: the file has no correlation"},
		{file(base, counts) + "---\ntitle: Lonely\ndetection:\n  s: {brand: x}\n  condition: s\n", "s.yml:15:1: no correlation uses this rule"},
		{"a: [", "s.yml:1:1: this is not valid YAML"},
		{"- a", "a Sigma rule must be a mapping"},
		{"a: b", "it has neither detection nor correlation"},
		{"", "the file has no correlation"},
	} {
		rules, errs := Convert(test.source, Options{Name: "s", TimeColumn: "txn_timestamp"})
		var all strings.Builder
		for _, e := range errs {
			all.WriteString(e.Format("s.yml", test.source) + "\n")
		}
		if rules != "" || !strings.Contains(all.String(), test.want) {
			t.Errorf("want %s\ngot  %s\nof\n%s", test.want, all.String(), test.source)
		}
	}
}

// TestHostile: a file that was written to do harm is refused, at a cost that its size bounds.
func TestHostile(t *testing.T) {
	repeat := func(s string) string { return strings.Repeat(s, (syntax.MaxScript-2000)/len(s)) }
	number := func(n int, format string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, format, i)
		}
		return b.String()
	}
	for name, test := range map[string]struct{ source, want string }{
		"deep flow":        {"a: " + repeat("["), "this is not valid YAML"},
		"deep maps":        {"detection: " + repeat("{a: "), "this is not valid YAML"},
		"aliases":          {"a: &a [x]\nb: &b [*a, *a]\ndetection:\n  s: *b\n  condition: s\n", "the file has no correlation"},
		"parentheses":      {file("s: {brand: x}\ncondition: '"+repeat("(")+"'", counts), "nested more than 50 levels deep"},
		"not":              {file("s: {brand: x}\ncondition: "+repeat("not ")+"s", counts), "nested more than 50 levels deep"},
		"references":       {file("s: {brand: ["+number(20_000, "x%d,")+"]}\ncondition: "+strings.Repeat("s and ", 1000)+"s", counts), "more than 1048576 bytes of SQL"},
		"of them":          {file(number(5000, "s%d: {brand: x}\n")+"condition: "+strings.Repeat("1 of them and ", 1000)+"s1", counts), "more than 1048576 bytes of SQL"},
		"rules":            {file("s: {brand: ["+number(20_000, "x%d,")+"]}\ncondition: s", strings.Replace(counts, "[base]", "["+strings.Repeat("base,", 1000)+"]", 1)), "more than 1048576 bytes of SQL"},
		"fields":           {file("s: {"+number(50_000, "a%d: x,")+"}\ncondition: s", counts), "more than 1000 fields"},
		"networks":         {file("s: {brand|cidr: ["+repeat("10.0.0.0/1,")+"]}\ncondition: s", counts), "more than 1048576 bytes of SQL"},
		"unknown rules":    {file("s: {brand: x}\ncondition: s", strings.Replace(counts, "[base]", "["+repeat("x,")+"]", 1)), "the file has no rule x"},
		"documents":        {repeat("---\na: b\n"), "it has neither detection nor correlation"},
		"too long":         {strings.Repeat(" ", syntax.MaxScript+1), "the maximum is 1048576"},
		"control":          {file("s: {brand: \"\\x00\x1b\"}\ncondition: s", counts), "this is not valid YAML"},
		"a directive":      {file("s: {brand: x}\ncondition: s", counts) + "level: \"high\\n-- mode: off\"\n", ""},
		"a summary's hole": {strings.Replace(file("s: {brand: x}\ncondition: s", counts), "Found it", "'{x} and ; -- rule: y'", 1), ""},
	} {
		t.Run(name, func(t *testing.T) {
			if test.want == "" {
				if _, set := convert(t, test.source, Options{}); len(set.Rules) != 1 || set.Rules[0].Mode != rule.Live {
					t.Errorf("%d rules, %s", len(set.Rules), set.Rules[0].Mode)
				}
				return
			}
			rules, errs := Convert(test.source, Options{Name: "s", TimeColumn: "t"})
			var all strings.Builder
			for _, e := range errs {
				all.WriteString(e.Format("s.yml", test.source) + "\n")
			}
			if rules != "" || !strings.Contains(all.String(), test.want) {
				t.Errorf("want %s, got %.500s", test.want, all.String())
			}
		})
	}
}
