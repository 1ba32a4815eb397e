package notebook

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"spate/shared/rule"
)

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestWalkthrough: the notebook of the AWS walkthrough becomes its script, with a name for the rule.
func TestWalkthrough(t *testing.T) {
	file := read(t, "testdata/walkthrough.zpln")
	if !Is(file) {
		t.Error("it is not taken for a notebook")
	}
	sql, skipped, err := SQL(file)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"paragraph 1: %md is not streaming SQL", "paragraph 4: %flink.pyflink is not streaming SQL", "paragraph 5: it is disabled"}
	if diff := cmp.Diff(want, skipped); diff != "" {
		t.Error(diff)
	}
	rules, skipped := Rules(sql, "burst")
	if diff := cmp.Diff([]string{"select * from ecomm_user_activity_stream_1 is neither a rule nor a table"}, skipped); diff != "" {
		t.Error(diff)
	}
	script := string(read(t, "../testdata/walkthrough.sql"))
	if diff := cmp.Diff(strings.Replace(script, "insert into", "-- rule: burst\ninsert into", 1), rules); diff != "" {
		t.Errorf("(- want, + got):\n%s", diff)
	}
	set, errs := rule.Compile(rules, rule.Options{})
	if len(errs) > 0 || len(set.Rules) != 1 || set.Rules[0].Name != "burst" {
		t.Errorf("%d rules, %v", len(set.Rules), errs)
	}
}

func TestRules(t *testing.T) {
	for name, test := range map[string]struct{ script, want, skipped string }{
		"two":              {"INSERT INTO a SELECT 1; INSERT INTO b SELECT 2", "-- rule: x-1\nINSERT INTO a SELECT 1;\n\n-- rule: x-2\nINSERT INTO b SELECT 2;\n", ""},
		"named":            {"-- rule: x-1\n-- mode: off\ninsert into a select ';' -- ;\n;\n\n-- Why.\ninsert into b select 2;", "-- rule: x-1\n-- mode: off\ninsert into a select ';';\n\n-- Why.\n-- rule: x\ninsert into b select 2;\n", ""},
		"taken":            {"-- rule: x\nINSERT INTO a SELECT 1; INSERT INTO b SELECT 2; INSERT INTO c SELECT 3", "-- rule: x\nINSERT INTO a SELECT 1;\n\n-- rule: x-1\nINSERT INTO b SELECT 2;\n\n-- rule: x-2\nINSERT INTO c SELECT 3;\n", ""},
		"statement set":    {"EXECUTE STATEMENT SET BEGIN\n-- rule: y\nINSERT INTO a SELECT 1;\nEND;", "-- rule: y\nINSERT INTO a SELECT 1;\n", ""},
		"older":            {"BEGIN STATEMENT SET;\nINSERT INTO a SELECT 1;\nEND", "-- rule: x\nINSERT INTO a SELECT 1;\n", ""},
		"left out":         {"USE CATALOG c;\nADD JAR 'x.jar';\nSET 'parallelism.default' = '2';\nSHOW TABLES;", "SET 'parallelism.default' = '2';\n", "USE CATALOG c is neither a rule nor a table|ADD JAR 'x.jar' is neither|SHOW TABLES is neither"},
		"comment in front": {"/* c */ INSERT INTO a SELECT 1", "/* c */\n-- rule: x\nINSERT INTO a SELECT 1;\n", ""},
		"no end":           {"INSERT INTO a SELECT 'x", "-- rule: x\nINSERT INTO a SELECT;\n", ""},
		"nothing":          {" ;; -- only a comment", "", ""},
	} {
		rules, skipped := Rules(test.script, "x")
		if diff := cmp.Diff(test.want, rules); diff != "" {
			t.Errorf("%s (- want, + got):\n%s", name, diff)
		}
		for i, want := range strings.Split(test.skipped, "|") {
			if want != "" && (i >= len(skipped) || !strings.HasPrefix(skipped[i], want)) {
				t.Errorf("%s: skipped %q, want %q", name, skipped, test.skipped)
			}
		}
	}
}

func TestNoNotebook(t *testing.T) {
	for file, want := range map[string]string{
		"{\n\"paragraphs\": [\n{]": "line 3: invalid JSON", `{"a": 1}`: "it has no paragraphs", `{"paragraphs": 1}`: "not a Zeppelin notebook", `[]`: "not a Zeppelin notebook",
	} {
		if _, _, err := SQL([]byte(file)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", file, err, want)
		}
	}
	sql, skipped, err := SQL([]byte(`{"paragraphs": [{"text": "select 1"}, {"text": "%flink.ssql select 1 -- one"}]}`))
	if err != nil || sql != "select 1 -- one\n;\n\n" || len(skipped) != 1 {
		t.Errorf("%q, %q, %v", sql, skipped, err)
	}
}
