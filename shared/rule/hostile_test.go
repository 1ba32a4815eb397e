package rule_test

import (
	"fmt"
	"strings"
	"testing"

	"spate/shared/rule"
	"spate/shared/rule/syntax"
)

// TestHostile: a file that was written to do harm is refused, at a cost that its size bounds.
func TestHostile(t *testing.T) {
	const (
		head  = "INSERT INTO alerts SELECT user_id, COUNT(*) AS n FROM activity "
		group = " GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), user_id"
	)
	many := func(n int, f func(i int) string) string {
		var b strings.Builder
		for i := 0; i < n && b.Len() < syntax.MaxScript-2000; i++ {
			b.WriteString(f(i))
		}
		return b.String()
	}
	same := func(s string) string { return strings.Repeat(s, (syntax.MaxScript-2000)/len(s)) }
	const most = 1 << 30
	for name, test := range map[string]struct{ script, want string }{
		"parentheses":      {head + "WHERE " + same("(") + group, "nested more than 100 levels deep"},
		"NOT":              {head + "WHERE " + same("NOT ") + "TRUE" + group, "nested more than 100 levels deep"},
		"minus":            {head + "WHERE 1 > " + same("- ") + "1" + group, "nested more than 100 levels deep"},
		"CASE":             {head + "WHERE " + same("CASE WHEN ") + group, "nested more than 100 levels deep"},
		"calls":            {head + "WHERE " + same("ABS(") + group, "nested more than 100 levels deep"},
		"queries":          {"INSERT INTO a SELECT 1 FROM " + same("(SELECT 1 FROM "), "nested more than 100 levels deep"},
		"rows":             {"CREATE TABLE a (b " + same("ROW<c ") + ")", "nested more than 100 levels deep"},
		"AND in WHERE":     {head + "WHERE TRUE" + same(" AND user_id > 1") + group, "has more than 5000 operators"},
		"AND in HAVING":    {head + group + " HAVING TRUE" + same(" AND user_id > 1"), "has more than 5000 operators"},
		"OR of aggregates": {head + group + " HAVING TRUE" + same(" OR COUNT(*) > 1"), "has more than 5000 operators"},
		"sum":              {head + group + " HAVING 0" + same("+COUNT(*)") + " > 1", "has more than 5000 operators"},
		"text":             {head + "WHERE brand = ''" + same("||brand") + group, "has more than 5000 operators"},
		"BETWEEN":          {head + "WHERE 1" + same(" BETWEEN 1 AND 2") + group, "has more than 5000 operators"},
		"IS NULL":          {head + "WHERE 1" + same(" IS NULL") + group, "has more than 5000 operators"},
		"members":          {head + "WHERE a" + same(".a") + " = 1" + group, "unknown column"},
		"columns":          {"INSERT INTO alerts SELECT " + same("COUNT(*), ") + "1 FROM activity " + group, "at most 1000"},
		"keys":             {head + group + same(", LOWER(brand)"), "at most 1000"},
		"aggregates":       {head + group + " HAVING GREATEST(0" + many(most, func(i int) string { return fmt.Sprintf(", SUM(price + %d)", i) }) + ") > 1", "has more than 5000 operators"},
		"params":           {many(10_000, func(i int) string { return fmt.Sprintf("-- param: p%d = %d\n", i, i) }) + head + group, "at most 100 parameters"},
		"unknown params":   {head + "WHERE 1 IN (" + same("${p},") + "1)" + group, "unknown parameter"},
		"a long param":     {"-- param: p = '" + strings.Repeat("x", 1000) + "'\n-- rule: r\n" + head + "WHERE brand IN (" + same("'${p}${p}${p}${p}${p}${p}${p}${p}',") + "'')" + group, "parameters make the script longer"},
		"directives":       {same("-- summary: {x}\n") + head + group, "directive summary is given twice"},
		"rules":            {many(most, func(i int) string { return fmt.Sprintf("-- rule: r%d\n%s%s;\n", i, head, group) }), "at most 64 rules"},
		"tables":           {many(most, func(i int) string { return fmt.Sprintf("CREATE TABLE t%d (a INT);\n", i) }), "the file has no rule"},
		"table columns":    {"CREATE TABLE t (" + many(most, func(i int) string { return fmt.Sprintf("c%d INT,", i) }) + "z INT)", "at most 1000"},
		"regexp, nested":   {head + "WHERE REGEXP(brand, '" + strings.Repeat("(", 2000) + strings.Repeat(")", 2000) + "')" + group, "nest"},
		"regexp, repeats":  {head + "WHERE REGEXP(brand, '((a{1,1000}){1,1000}){1,1000}')" + group, "repeat"},
		"regexp, large":    {head + "WHERE " + many(60, func(int) string { return "REGEXP(brand, '(" + strings.Repeat("[a-z]{1,999}|", 1) + "b)') AND " }) + "FALSE" + group, "need more than 100000 instructions"},
		"SIMILAR":          {head + "WHERE brand SIMILAR TO '" + strings.Repeat("(a{1,1000}){1,1000}", 10) + "'" + group, "repeat"},
		"bad characters":   {same("?"), "is not part of Flink SQL"},
		"bang equals":      {head + "WHERE 1 " + same("!="), "!= is not part of Flink SQL"},
		"double quotes":    {same(`""`), "double quotes are not part of Flink SQL"},
		"statements":       {same("x;"), "unexpected x at the start of a statement"},
		"a number":         {head + "WHERE 1 > " + same("1") + group, "has more than 38 digits"},
		"exponents":        {head + "WHERE 1 > 1e" + same("9") + group, "is too large for a DOUBLE"},
		"intervals":        {head + "GROUP BY TUMBLE(txn_timestamp, INTERVAL '" + same("9") + "' SECOND)", "is not a number of SECONDS"},
		"an exponent":      {head + "GROUP BY TUMBLE(txn_timestamp, INTERVAL '1e999999999' SECOND)", "is not a number of SECONDS"},
		"a NUL":            {head + "WHERE brand = \x00" + group, "is not part of Flink SQL"},
		"open params":      {head + "WHERE 1 IN (" + same("${"), "${ must be followed by a name and }"},
		"too long":         {strings.Repeat(" ", syntax.MaxScript+1), "the maximum is 1048576"},
	} {
		t.Run(name, func(t *testing.T) {
			_, errs := rule.Compile(test.script, rule.Options{Name: "r", Tables: []*rule.Table{rule.Activity()}})
			var text strings.Builder
			for _, e := range errs {
				text.WriteString(e.Format("r.sql", test.script) + "\n")
			}
			out := text.String()
			if !strings.Contains(out, test.want) {
				t.Errorf("it is not refused with %q: %.1000s", test.want, out)
			}
			if len(out) > 2<<20 {
				t.Errorf("the errors have %d bytes", len(out))
			}
		})
	}
}
