package dynamodb

import (
	"maps"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// expression builds an update. All names are placeholders, for state, rule and others are reserved words.
type expression struct {
	names  map[string]string // placeholder to attribute
	values attributes        // by placeholder
	sets   []string
	drops  []string
}

func newExpression() *expression {
	return &expression{names: make(map[string]string), values: make(attributes)}
}

func (e *expression) name(attribute string) string  { return "#" + attribute }
func (e *expression) value(attribute string) string { return ":" + attribute }

func (e *expression) add(attribute string, v types.AttributeValue, to string) {
	e.names[e.name(attribute)], e.values[e.value(attribute)] = attribute, v
	e.sets = append(e.sets, e.name(attribute)+" = "+to)
}

// set gives an attribute a value.
func (e *expression) set(attribute string, v types.AttributeValue) {
	e.add(attribute, v, e.value(attribute))
}

// setOnce gives it a value if it has none.
func (e *expression) setOnce(attribute string, v types.AttributeValue) {
	e.add(attribute, v, "if_not_exists("+e.name(attribute)+", "+e.value(attribute)+")")
}

// remove takes an attribute away.
func (e *expression) remove(attribute string) {
	e.names[e.name(attribute)] = attribute
	e.drops = append(e.drops, e.name(attribute))
}

// update is the same text for the same attributes.
func (e *expression) update() string {
	out := "SET " + strings.Join(slices.Sorted(slices.Values(e.sets)), ", ")
	if len(e.drops) > 0 {
		out += " REMOVE " + strings.Join(slices.Sorted(slices.Values(e.drops)), ", ")
	}
	return out
}

func (e *expression) withName(placeholder, attribute string) map[string]string {
	names := maps.Clone(e.names)
	names[placeholder] = attribute
	return names
}
