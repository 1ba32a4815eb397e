package web

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"net/url"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"spate/shared/alert"
	"spate/shared/terminal"
)

func grouped(n int64) string { return terminal.Grouped(n) }

func count(n int64, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return grouped(n) + " " + more
}

// span writes a duration for people: 40 s, 12 min, 3 h 20 min, 2 d 4 h.
func span(d time.Duration) string {
	d = d.Round(time.Second)
	switch {
	case d < 0:
		return "0 s"
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return strings.TrimSuffix(fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60), " 0 min")
	}
	return strings.TrimSuffix(fmt.Sprintf("%d d %d h", int(d.Hours())/24, int(d.Hours())%24), " 0 h")
}

// at writes a time, with its date unless it is today's.
func at(t time.Time) string {
	t = t.UTC()
	if t.IsZero() {
		return ""
	}
	if now := time.Now().UTC(); t.Year() == now.Year() && t.YearDay() == now.YearDay() {
		return t.Format("15:04:05")
	}
	return t.Format(clock)
}

// ago writes how long ago a time is.
func ago(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return span(time.Since(t)) + " ago"
}

// visible returns a text with those characters written out that cannot be seen, or that would turn what follows around.
func visible(text string) string { return terminal.Lines(text) }

// maxCell bounds what a cell of a table shows, in characters; the rest is in the events themselves.
const maxCell = 120

// cell returns a text for a cell.
func cell(text string) string {
	if utf8.RuneCountInString(text) > maxCell {
		text = string([]rune(text)[:maxCell]) + "…"
	}
	return terminal.Text(text)
}

// keyLabel is a key for people: the value, or column=value of each column.
func keyLabel(key json.RawMessage) string {
	label, err := alert.KeyLabel(key)
	if err != nil {
		return cell(string(key))
	}
	return cell(label)
}

// keyOf returns the values of a key by column, as a person writes them.
func keyOf(object json.RawMessage) (Key, []string) {
	names, err := alert.KeyNames(object)
	if err != nil {
		return nil, nil
	}
	var values map[string]json.RawMessage
	if json.Unmarshal(object, &values) != nil {
		return nil, nil
	}
	key := make(Key, len(names))
	for _, name := range names {
		if string(values[name]) == "null" {
			key[name] = nil
			continue
		}
		text := plain(values[name])
		key[name] = &text
	}
	return key, names
}

// plain is a JSON value as a person writes it: a string without its quotes.
func plain(v json.RawMessage) string {
	var text string
	if len(v) > 1 && v[0] == '"' && json.Unmarshal(v, &text) == nil {
		return text
	}
	return string(v)
}

// keyURL is where a key's page is.
func keyURL(object json.RawMessage, rule string) template.URL {
	key, names := keyOf(object)
	q := url.Values{}
	for _, name := range names {
		if v := key[name]; v == nil {
			q.Add("null", name)
		} else {
			q.Add("key", name+"="+*v)
		}
	}
	if rule != "" {
		q.Set("rule", rule)
	}
	return template.URL("/keys?" + q.Encode())
}

// parseKey reads the values of key columns: column=value, or a value of the column that none is named of.
func parseKey(values, nulls []string, column string) (Key, error) {
	key := make(Key)
	var wrong error
	for _, text := range values {
		if strings.TrimSpace(text) == "" {
			continue
		}
		name, value, ok := strings.Cut(text, "=")
		if !ok {
			name, value = column, text
		}
		if name = strings.TrimSpace(name); name == "" || len(text) > 4096 {
			wrong = fmt.Errorf("key: %.80q is not column=value; use, for example, user_id=42", text)
		} else if key[name] != nil {
			wrong = fmt.Errorf("key: %.80q has two values, %.80q and %.80q", name, *key[name], value)
		}
		key[name] = &value
	}
	for _, name := range nulls {
		key[name] = nil
	}
	if len(key) == 0 && wrong == nil {
		wrong = errors.New("key: give a user, or column=value, as in product_id=7")
	}
	return key, wrong
}

func escapeQuery(text string) string { return url.QueryEscape(text) }

// indented writes JSON over several lines; what is none stays as it is.
func indented(v json.RawMessage) string {
	var b bytes.Buffer
	if json.Indent(&b, v, "", "  ") != nil {
		return visible(string(v))
	}
	return visible(b.String())
}

// sentence is message with a capital letter at its beginning.
func sentence(err error) string { return capital(err.Error()) }

// capital is a text for people with a capital letter at its beginning.
func capital(text string) string {
	first, n := utf8.DecodeRuneInString(text)
	return visible(string(unicode.ToUpper(first)) + text[n:])
}

// message is an error for people: what was to be done, and why it was not.
func message(err error) string { return visible(err.Error()) }

// cellOf writes a value of a result, as much of it as a page shows.
func cellOf(x any) string {
	switch v := x.(type) {
	case nil:
		return "NULL"
	case []byte:
		return strings.Clone(string(v[:min(len(v), utf8.UTFMax*maxCell)]))
	case string:
		return strings.Clone(v[:min(len(v), utf8.UTFMax*maxCell)]) // the rest is not kept
	}
	return fmt.Sprint(x)
}
