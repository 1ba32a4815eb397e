package rule

import (
	"fmt"
	"strings"
)

// Input is a column of the events that some rule reads: a path into the event, and the type of what is there.
type Input struct {
	Path []string
	Type Type
	// Time reports whether it is the event time.
	Time bool
}

func (i Input) key() string {
	return fmt.Sprintf("@%s:%d %v", strings.Join(i.Path, "\x00"), i.Type.Kind, i.Type.nullable())
}

// Name is the path with dots.
func (i Input) Name() string { return strings.Join(i.Path, ".") }

// inputs are the columns that rules read, each once.
type inputs struct {
	list  []Input
	byKey map[string]int
}

func newInputs(list []Input) *inputs {
	in := &inputs{}
	for _, i := range list {
		in.of(i)
	}
	return in
}

func (in *inputs) of(i Input) int {
	key := i.key()
	if at, ok := in.byKey[key]; ok {
		return at
	}
	if in.byKey == nil {
		in.byKey = map[string]int{}
	}
	in.byKey[key] = len(in.list)
	in.list = append(in.list, i)
	return len(in.list) - 1
}
