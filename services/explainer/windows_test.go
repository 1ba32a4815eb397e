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
	if got, want := typesOf(f, all), []TypeCount{{"", 2}, {"cart", 2}, {"view", 1}}; !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
	delete(all, 1)
	if got, want := typesOf(f, all), []TypeCount{{"", 2}, {"cart", 1}, {"view", 1}}; !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
	for i := range 20 {
		all = add(fmt.Sprintf(`{"event_type":"t%02d"}`, i))
	}
	if got := typesOf(f, all); len(got) != maxTypes || got[maxTypes-1] != (TypeCount{OtherTypes, 12}) {
		t.Errorf("%+v", got)
	}
}
