package alert

import (
	"errors"
	"fmt"
	"slices"
)

// CheckTransitions tells what is wrong with a choice of states to write.
func CheckTransitions(states []State) error {
	if len(states) == 0 {
		return errors.New("transitions: none given; use opened,closed or closed")
	}
	var errs []error
	if !slices.Contains(states, Closed) {
		errs = append(errs, errors.New("transitions: closed is missing, without which no alert has its exact count; use opened,closed or closed"))
	}
	for _, s := range states {
		if s.Rank() == 0 {
			errs = append(errs, fmt.Errorf("transitions: %q is neither opened nor closed", s))
		}
	}
	return errors.Join(errs...)
}
