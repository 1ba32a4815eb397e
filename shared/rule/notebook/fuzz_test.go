package notebook

import "testing"

// FuzzRules: a rules file that was made of a script is taken as it is.
func FuzzRules(f *testing.F) {
	f.Add("EXECUTE STATEMENT SET BEGIN\n-- rule: x\nINSERT INTO a SELECT ';' /* ; */; insert into b select ${x}; END;")
	f.Add("DROP TABLE IF EXISTS a; CREATE TABLE a (b INT) WITH ('c' = 'd');\n-- Why.\nINSERT INTO c SELECT 1 -- done\n; SELECT 2")
	f.Add("-- rule: \nINSERT")
	f.Fuzz(func(t *testing.T, script string) {
		_, _, _ = SQL([]byte(script))
		once, _ := Rules(script, "x")
		twice, skipped := Rules(once, "x")
		if once != twice || len(skipped) > 0 {
			t.Errorf("once %q, twice %q, skipped %q", once, twice, skipped)
		}
	})
}
