// Package notebook extracts rules from the files in which Flink SQL is kept: Zeppelin notebooks, as in Managed Flink's Studio, and scripts. The
// result is a rules file: only what rules need, and a name for every rule.
package notebook

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"spate/shared/rule/syntax"
)

// Is reports whether a file is a notebook, which is a JSON object.
func Is(file []byte) bool {
	return bytes.HasPrefix(bytes.TrimLeft(bytes.TrimPrefix(file, []byte("\ufeff")), " \t\r\n"), []byte("{"))
}

// interpreter is the first word of a paragraph, with its properties: %flink.ssql(type=update).
var interpreter = regexp.MustCompile(`^\s*%([A-Za-z0-9_.-]+)(\([^)]*\))?`)

// SQL is the SQL of a notebook's paragraphs. skipped says which paragraphs are not part of it, and why.
func SQL(file []byte) (sql string, skipped []string, err error) {
	var note struct {
		Paragraphs []struct {
			Text   string `json:"text"`
			Config struct {
				Enabled *bool `json:"enabled"`
			} `json:"config"`
		} `json:"paragraphs"`
	}
	if err := json.Unmarshal(bytes.TrimPrefix(file, []byte("\ufeff")), &note); err != nil {
		var s *json.SyntaxError
		if errors.As(err, &s) {
			return "", nil, fmt.Errorf("line %d: invalid JSON: %w", 1+bytes.Count(file[:min(int(s.Offset), len(file))], []byte("\n")), err)
		}
		return "", nil, fmt.Errorf("it is not a Zeppelin notebook: %w", err)
	}
	if note.Paragraphs == nil {
		return "", nil, errors.New("it is not a Zeppelin notebook: it has no paragraphs")
	}
	var b strings.Builder
	for i, p := range note.Paragraphs {
		if strings.TrimSpace(p.Text) == "" {
			continue
		}
		skip := func(why string) { skipped = append(skipped, fmt.Sprintf("paragraph %d: %s", i+1, why)) }
		head := interpreter.FindStringSubmatch(p.Text)
		switch {
		case head == nil:
			skip("it does not begin with %flink.ssql")
		case head[1] != "flink.ssql" && head[1] != "ssql":
			skip("%" + head[1] + " is not streaming SQL")
		case p.Config.Enabled != nil && !*p.Config.Enabled:
			skip("it is disabled")
		default:
			text := strings.TrimSpace(p.Text[len(head[0]):])
			b.WriteString(text)
			if !strings.HasSuffix(text, ";") {
				b.WriteString("\n;") // behind a comment, too
			}
			b.WriteString("\n\n")
		}
	}
	return b.String(), skipped, nil
}

// Rules makes a rules file of a script: rules without a name get one, and what is neither a rule nor a table is left out. skipped says what.
func Rules(script, name string) (rules string, skipped []string) {
	script = withoutSets(script)
	var kept []syntax.Part
	names := map[string]bool{}
	unnamed := 0
	for _, p := range syntax.Split(script) {
		switch {
		case p.Is("INSERT"):
			if n := ruleName(p); n != "" {
				names[n] = true
			} else {
				unnamed++
			}
		case !p.Is("CREATE") && !p.Is("DROP") && !p.Is("SET"):
			skipped = append(skipped, excerpt(script[p.Pos():p.End()])+" is neither a rule nor a table")
			continue
		}
		kept = append(kept, p)
	}
	var b strings.Builder
	for _, p := range kept {
		if b.Len() > 0 {
			b.WriteByte('\n')
		}
		if comments := strings.TrimSpace(script[p.From:p.Pos()]); comments != "" {
			b.WriteString(comments + "\n")
		}
		if p.Is("INSERT") && ruleName(p) == "" {
			b.WriteString("-- rule: " + free(name, names, unnamed > 1) + "\n")
		}
		b.WriteString(script[p.Pos():p.End()] + ";\n")
	}
	return b.String(), skipped
}

// excerpt is the beginning of a statement, on one line.
func excerpt(statement string) string {
	const most = 50
	words := strings.Join(strings.Fields(statement[:min(len(statement), 4*most)]), " ")
	if len(words) > most {
		words = strings.ToValidUTF8(words[:most], "") + "…"
	}
	return words
}

// withoutSets blanks what makes one job of several statements: EXECUTE STATEMENT SET BEGIN …; END; and the older BEGIN STATEMENT SET;
func withoutSets(script string) string {
	text := []byte(script)
	blank := func(from, to syntax.Pos) {
		for i := from; i < to; i++ {
			if text[i] != '\n' {
				text[i] = ' '
			}
		}
	}
	for _, p := range syntax.Split(script) {
		switch {
		case p.Is("EXECUTE", "STATEMENT", "SET", "BEGIN"):
			blank(p.Pos(), p.Tokens[3].End)
		case p.Is("BEGIN", "STATEMENT", "SET"), p.Is("END") && len(p.Tokens) == 2:
			blank(p.Pos(), min(p.End()+1, syntax.Pos(len(text))))
		}
	}
	return string(text)
}

// free returns a name that no rule has yet: name itself, or name with a number behind it.
func free(name string, taken map[string]bool, numbered bool) string {
	next := name
	for n := 1; numbered || taken[next]; n++ {
		suffix := "-" + strconv.Itoa(n)
		next = name[:min(len(name), 63-len(suffix))] + suffix
		numbered = false
	}
	taken[next] = true
	return next
}

// ruleName is the name that a directive gives a rule, or empty.
func ruleName(p syntax.Part) string {
	for _, d := range p.Directives {
		if d.Name == "rule" && d.Value != "" {
			return d.Value
		}
	}
	return ""
}
