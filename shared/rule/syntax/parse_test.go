package syntax_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"spate/shared/rule/syntax"
)

// TestErrors: each error has its place, says what is wrong, and what to write instead.
func TestErrors(t *testing.T) {
	const head = "INSERT INTO alerts SELECT COUNT(*) AS n FROM activity "
	const group = " GROUP BY TUMBLE(t, INTERVAL '10' SECOND)"
	for name, test := range map[string]struct{ script, want string }{
		"bang equal":          {head + "WHERE brand != 'x'" + group, "r.sql:1:67: != is not part of Flink SQL\n    |^ write <>"},
		"double equal":        {head + "WHERE brand == 'x'" + group, "== is not part of Flink SQL|^ write ="},
		"double quotes":       {head + `WHERE brand = "x"` + group, "double quotes are not part of Flink SQL|write 'x' for a string, `x` for a column"},
		"ilike":               {head + "WHERE brand ILIKE 'x%'" + group, "ILIKE is not part of Flink SQL|write LOWER(x) LIKE LOWER(pattern)"},
		"reserved alias":      {"INSERT INTO alerts SELECT COUNT(*) AS value FROM a" + group, "value is a reserved word of Flink SQL|write `value` in backticks"},
		"month":               {head + "GROUP BY TUMBLE(t, INTERVAL '1' MONTH)", "MONTH has no fixed length here|use SECOND, MINUTE, HOUR or DAY"},
		"too many digits":     {head + "GROUP BY TUMBLE(t, INTERVAL '100' SECOND)", "100 has more than 2 digits; write SECOND(3) or a larger unit|"},
		"bare select":         {"SELECT 1 FROM a", "a rule must be an INSERT statement|write INSERT INTO alerts SELECT"},
		"order by":            {head + group + " ORDER BY n", "unexpected ORDER after the query|leave ORDER BY out"},
		"join":                {head + "JOIN b ON 1 = 1" + group, "unexpected JOIN|add the data that it needs to the events"},
		"open string":         {head + "WHERE brand = 'x", "this string is not closed|write '' for a quote within it"},
		"open comment":        {head + "/* x", "this comment is not closed|close it with */"},
		"unknown statement":   {"DELETE FROM alerts", "unexpected DELETE at the start of a statement|INSERT INTO, CREATE TABLE"},
		"SET that matters":    {"SET 'table.local-time-zone' = 'Europe/Berlin'", "could change the result|leave it out"},
		"unknown parameter":   {head + group + " HAVING COUNT(*) > ${products}", "unknown parameter ${products}|-- param: products = 30"},
		"bad parameter":       {"-- rule: x\n-- param: p = many\n" + head + group, `r.sql:2:11: param p: "many" is neither a number nor a string|write a number`},
		"deep":                {head + "WHERE " + strings.Repeat("(", 200) + "1" + strings.Repeat(")", 200) + group, "nested more than 100 levels deep|"},
		"missing expression":  {head + "WHERE" + group, "expected an expression, found GROUP|a column of this name needs backticks"},
		"end":                 {head + "GROUP BY", "expected an expression, found the end of the file|"},
		"not a byte of UTF-8": {head + "\xff", "this byte is not UTF-8|save the file as UTF-8"},
		"too long":            {strings.Repeat(" ", syntax.MaxScript+1), "the maximum is 1048576|"},
	} {
		t.Run(name, func(t *testing.T) {
			_, errs := syntax.Parse(test.script, nil)
			if len(errs) == 0 {
				t.Fatal("no error")
			}
			out := errs[0].Format("r.sql", test.script)
			for want := range strings.SplitSeq(test.want, "|") {
				if !strings.Contains(out, want) {
					t.Errorf("it does not say %q:\n%s", want, out)
				}
			}
		})
	}
}

// TestAllErrors: an error in one statement does not hide those of the others.
func TestAllErrors(t *testing.T) {
	var script strings.Builder
	for range 100 {
		script.WriteString("INSERT INTO alerts SELECT COUNT(* FROM activity;\n")
	}
	_, errs := syntax.Parse(script.String(), nil)
	if len(errs) != 100 {
		t.Fatalf("%d errors, want 100", len(errs))
	}
	for i, e := range errs {
		if line, _ := syntax.LineColumn(script.String(), e.Pos); line != i+1 {
			t.Errorf("error %d is in line %d", i, line)
		}
	}
}

// TestFormat: the caret stands under the place, whatever is in front of it.
func TestFormat(t *testing.T) {
	for _, line := range []string{"WHERE\tbrand == 'x'", "/* 日本 */ WHERE brand == 'x'", strings.Repeat("x ", 200) + "brand == 'x'" + strings.Repeat(" y", 200)} {
		script := "-- a\n" + line + "\r\nb"
		at := strings.Index(script, "==")
		out := syntax.Error{Pos: syntax.Pos(at), Message: "m", Fix: "f"}.Format("f.sql", script)
		lines := strings.Split(out, "\n")
		if len(lines) != 3 {
			t.Fatalf("%d lines: %q", len(lines), out)
		}
		caret := []rune(lines[2])
		under := []rune(lines[1])
		i := strings.IndexRune(lines[2], '^')
		if n := len([]rune(lines[2][:i])); string(caret[n:n+3]) != "^ f" || string(under[n:n+2]) != "==" || len(under) > 110 {
			t.Errorf("the caret is not under ==:\n%s", out)
		}
	}
}

// TestDirectives: they are the comment lines directly in front of a statement that have the form of one.
func TestDirectives(t *testing.T) {
	script, errs := syntax.Parse(`-- A comment of the file.

-- A comment. Note: this is none, for its first letter.
--   rule: burst
-- param: least = 5
-- param: kind = 'it''s'
INSERT INTO alerts SELECT COUNT(*) AS n FROM a WHERE k = ${kind} OR k = 'x${least}y' HAVING COUNT(*) > ${least};
INSERT INTO alerts SELECT COUNT(*) AS n FROM a`, map[string]string{"burst.least": "7"})
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	in := script.Inserts[0]
	var got []string
	for _, d := range in.Directives {
		got = append(got, d.Name+"="+d.Value)
		if at := script.Source[d.Pos:]; !strings.HasPrefix(at, d.Name) || !strings.HasPrefix(script.Source[d.ValuePos:], d.Value) {
			t.Errorf("%s is at %.20q", d.Name, at)
		}
	}
	if s := strings.Join(got, "|"); s != "rule=burst|param=least = 5|param=kind = 'it''s'" {
		t.Errorf("directives: %s", s)
	}
	if want := "INSERT INTO alerts SELECT COUNT(*) AS n FROM a WHERE k = 'it''s' OR k = 'x7y' HAVING COUNT(*) > 7"; in.Text != want {
		t.Errorf("text: %s", in.Text)
	}
	if n := len(script.Inserts[1].Directives); n != 0 {
		t.Errorf("the second statement has %d directives", n)
	}
}

// FuzzParse: no script makes the parser fail otherwise than by errors with a place inside of it.
func FuzzParse(f *testing.F) {
	files, _ := filepath.Glob("../testdata/golden/sql/*.sql")
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(b))
	}
	f.Add("CREATE TABLE a (b ROW<c STRING, d ROW<e INT>>, t TIMESTAMP(3), WATERMARK FOR t AS t - INTERVAL '5' SECOND) WITH ('connector' = 'kafka')")
	f.Add("-- param: x = -5\nINSERT INTO a SELECT ${x}, '${x}' FROM b")
	f.Fuzz(func(t *testing.T, script string) {
		_, errs := syntax.Parse(script, nil)
		for _, e := range errs {
			if e.Pos < 0 || int(e.Pos) > len(script) {
				t.Errorf("an error is at %d of %d", e.Pos, len(script))
			}
			_ = e.Format("f", script)
		}
	})
}

// TestPrint: what is printed is read back as the same.
func TestPrint(t *testing.T) {
	for _, text := range []string{
		"COUNT(*) > 5", "COUNT(DISTINCT a.b) FILTER (WHERE c = 'it''s') / 2 - (1 - d)", "NOT (a OR b) AND c", "a = b IS NOT TRUE", "a NOT BETWEEN SYMMETRIC 1 AND 2 + 3",
		"x NOT IN (1, -2)", "a LIKE 'b!%' ESCAPE '!' OR a SIMILAR TO '[a-z]+'", "CASE a WHEN 1 THEN 'x' ELSE NULL END || 'y'", "CAST(a AS DECIMAL(10, 2)) * -b",
		"EXTRACT(HOUR FROM t) = 3", "POSITION('a' IN b) > TRIM(LEADING 'x' FROM c)", "t >= TIMESTAMP '2024-01-01 00:00:00' + INTERVAL '1:30' MINUTE TO SECOND",
		"`value` IS NOT DISTINCT FROM `a b`", "TRY_CAST(r AS ROW<a STRING, b INT NOT NULL>) IS NULL",
	} {
		e, errs := syntax.ParseExpr(text, 0)
		if len(errs) > 0 {
			t.Errorf("%s: %v", text, errs)
			continue
		}
		if got := syntax.Print(e); got != text {
			t.Errorf("got  %s\nwant %s", got, text)
		}
	}
}

// TestMisplacedDirectives: a directive that would be ignored is an error.
func TestMisplacedDirectives(t *testing.T) {
	const insert = "INSERT INTO alerts SELECT COUNT(*) AS n FROM activity"
	for _, script := range []string{
		"-- mode: shadow\n\n" + insert, "-- Mode: shadow\n" + insert, "-- mode : shadow\n" + insert, insert + "\n-- mode: shadow\n", insert + ";\n-- mode: shadow",
		"INSERT INTO alerts\n-- mode: shadow\nSELECT COUNT(*) AS n FROM activity",
	} {
		_, errs := syntax.Parse(script, nil)
		if len(errs) != 1 || !strings.Contains(errs[0].Message, "directive mode") {
			t.Errorf("%q: %v", script, errs)
		}
	}
	for _, script := range []string{"-- the mode: shadow\n\n" + insert, "-- mode:shadow\n\n" + insert} {
		if _, errs := syntax.Parse(script, nil); len(errs) > 0 {
			t.Errorf("%q: %v", script, errs)
		}
	}
}
