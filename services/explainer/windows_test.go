package explainer

import (
	"fmt"
	"reflect"
	"testing"
)

func TestTypesOf(t *testing.T) {
	f := &Facts{}
	add := func(text string) map[int]bool {
		f.Events = append(f.Events, Event{text: []byte(text)})
		all := map[int]bool{}
		for i := range f.Events {
			all[i] = true
		}
		return all
	}
	add(`{"event_type":"view","type":"x"}`)
	add(`{"type":"cart"}`)
	add(`{"event_type":7,"action":"cart"}`)
	add(`{"event_type":""}`)
	all := add(`not JSON`)
	if got, _ := typesOf(f, all); !reflect.DeepEqual(got, []TypeCount{{"", 2}, {"7", 1}, {"cart", 1}, {"view", 1}}) {
		t.Errorf("%+v", got)
	}
	delete(all, 1)
	if got, _ := typesOf(f, all); !reflect.DeepEqual(got, []TypeCount{{"", 2}, {"7", 1}, {"view", 1}}) {
		t.Errorf("%+v", got)
	}
	for i := range 20 {
		all = add(fmt.Sprintf(`{"event_type":"t%02d"}`, i))
	}
	if got, others := typesOf(f, all); len(got) != maxTypes || got[1].Type != "7" || others != 12 {
		t.Errorf("%+v, %d others", got, others)
	}
}
