package web

import (
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// TestKeyTexts: what a person searches for is one key, whose values may have commas.
func TestKeyTexts(t *testing.T) {
	for text, want := range map[string][]string{
		"42":                         {"42"},
		"ip=10.0.0.1, user_id=7":     {"ip=10.0.0.1", "user_id=7"},
		"Smith, John":                {"Smith, John"},
		"name=Smith, John,city=Rome": {"name=Smith, John", "city=Rome"},
		"city=Rome, name=a,,b":       {"city=Rome", "name=a,,b"},
	} {
		if got := keyTexts(text); !slices.Equal(got, want) {
			t.Errorf("%s: %q", text, got)
		}
	}
}

// TestKeyOfLink: the address of a key's page is about this key, whatever its value is.
func TestKeyOfLink(t *testing.T) {
	for _, value := range []string{"x", " x", "x ", "", " ", "a,b", "a=b", "x%y", `q"\`, "\u00a0", "9007199254740993"} {
		object, err := json.Marshal(map[string]string{"name": value})
		if err != nil {
			t.Fatal(err)
		}
		u, err := url.Parse(string(keyURL(object, "")))
		if err != nil {
			t.Fatal(err)
		}
		key, err := parseKey(u.Query()["key"], u.Query()["null"], "user_id")
		if v := key["name"]; err != nil || len(key) != 1 || v == nil || *v != value {
			t.Errorf("%q: %v, %v", value, key, err)
		}
	}
	if _, err := parseKey([]string{"1", "user_id=2"}, nil, "user_id"); err == nil || !strings.Contains(err.Error(), `"user_id" has two values, "1" and "2"`) {
		t.Errorf("two values: %v", err)
	}
}
