package alert

import (
	"errors"
	"fmt"
	"slices"
)

// CheckTransitions returns an error if a choice of states to write is not valid.
func CheckTransitions(states []State) error {
	if len(states) == 0 {
		return errors.New("transitions: missing; use opened,closed; opened,raised,closed; or closed")
	}
	var errs []error
	if !slices.Contains(states, Closed) {
		errs = append(errs, errors.New("transitions: closed is missing, but only closed records have the exact count; use opened,closed; opened,raised,closed; or closed"))
	}
	for _, s := range states {
		if s.Rank() == 0 {
			errs = append(errs, fmt.Errorf("transitions: %q is not one of opened, raised, closed", s))
		}
	}
	return errors.Join(errs...)
}
