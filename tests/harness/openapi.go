package harness

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// OpenAPI describes an API.
type OpenAPI map[string]any

// ParseOpenAPI reads a description.
func ParseOpenAPI(text string) (OpenAPI, error) {
	var doc map[string]any // what is in it is of the type of this
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
		return nil, fmt.Errorf("parse OpenAPI: %w", err)
	}
	return doc, nil
}

// Faults returns how an answer with the status 200 differs from its description.
func (d OpenAPI) Faults(method, path, body string) []string {
	dec := json.NewDecoder(strings.NewReader(body))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return []string{fmt.Sprintf("%s: %v: %.300s", path, err, body)}
	}
	return conform(d, dig(map[string]any(d), "paths", path, strings.ToLower(method), "responses", "200", "content", "application/json", "schema"), v, path)
}

// dig goes down into maps.
func dig(v any, path ...string) any {
	for _, name := range path {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[name]
	}
	return v
}

// conform returns how a value differs from a schema. It knows the keywords that openapi.yaml uses.
func conform(doc OpenAPI, schema, v any, where string) (faults []string) {
	s, ok := schema.(map[string]any)
	if !ok {
		return []string{where + ": no schema"}
	}
	if ref, ok := s["$ref"].(string); ok {
		return conform(doc, dig(map[string]any(doc), strings.Split(strings.TrimPrefix(ref, "#/"), "/")...), v, where)
	}
	types := []string{}
	switch x := s["type"].(type) {
	case string:
		types = append(types, x)
	case []any:
		for _, y := range x {
			types = append(types, y.(string))
		}
	}
	kind := "null"
	switch x := v.(type) {
	case map[string]any:
		kind = "object"
		props, _ := s["properties"].(map[string]any)
		for _, name := range asList(s["required"]) {
			if _, ok := x[name]; !ok {
				faults = append(faults, where+": no "+name)
			}
		}
		for name, y := range x {
			switch {
			case props[name] != nil:
				faults = append(faults, conform(doc, props[name], y, where+"."+name)...)
			case s["additionalProperties"] == false:
				faults = append(faults, where+": has "+name+", which is not described")
			}
		}
	case []any:
		kind = "array"
		for i, y := range x {
			faults = append(faults, conform(doc, s["items"], y, fmt.Sprintf("%s[%d]", where, i))...)
		}
	case string:
		kind = "string"
		if e := asList(s["enum"]); e != nil && !slices.Contains(e, x) {
			faults = append(faults, fmt.Sprintf("%s: %q is not one of %v", where, x, e))
		}
	case bool:
		kind = "boolean"
	case json.Number:
		kind = "number"
		if !strings.ContainsAny(x.String(), ".eE") && slices.Contains(types, "integer") {
			kind = "integer"
		}
	}
	if !slices.Contains(types, kind) {
		faults = append(faults, fmt.Sprintf("%s: is a %s, not a %v", where, kind, types))
	}
	return faults
}

func asList(v any) (out []string) {
	list, _ := v.([]any)
	for _, x := range list {
		out = append(out, fmt.Sprint(x))
	}
	return out
}
