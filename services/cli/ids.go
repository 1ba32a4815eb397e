package cli

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"spate/shared/store"
	"spate/shared/terminal"
)

// minID is how many digits of an id a person has to write.
const minID = 4

// transition is what ends the id of a message about an alert or an incident.
var transition = regexp.MustCompile(`^(.*)_(opened|raised|closed|escalated_[0-9]{1,9}|resolved)$`)

// messageID splits what names a message about an alert or an incident: the id of that, or its beginning, and which message it is; empty is any.
func messageID(text string) (id, which string) {
	if m := transition.FindStringSubmatch(text); m != nil {
		return m[1], m[2]
	}
	return text, ""
}

// isID reports whether a text is the id of an alert or an incident, or its beginning.
func isID(text string) bool {
	return len(text) <= 32 && strings.Trim(text, "0123456789abcdef") == ""
}

// wholeID returns the id of the one alert whose id begins like this. Without one, the error wraps store.ErrNotFound.
func wholeID(ctx context.Context, st alertReader, text string) (string, error) {
	text = strings.ToLower(text)
	if len(text) == 32 {
		return text, nil
	}
	if !isID(text) {
		return "", fmt.Errorf("%w: %s", store.ErrNotFound, terminal.Text(text))
	}
	if len(text) < minID {
		return "", usage(fmt.Errorf("ID %s is too short: give at least its first %d digits", terminal.Text(text), minID))
	}
	const shown = 4
	found, err := store.Collect(st.Alerts(ctx, store.Filter{ID: text, Limit: shown + 1}))
	switch {
	case err != nil:
		return "", err
	case len(found) == 0:
		return "", fmt.Errorf("%w: %s", store.ErrNotFound, text)
	case len(found) == 1:
		return found[0].ID, nil
	}
	ids := make([]string, len(found))
	for i, a := range found {
		ids[i] = a.ID
	}
	return "", ambiguous("alert", text, ids, shown)
}

// isIncident reports whether a text is the ID of an incident or a unique prefix of one.
func isIncident(ctx context.Context, st any, text string) bool {
	in, ok := st.(incidentLister)
	if !ok {
		return false
	}
	_, err := wholeIncident(ctx, in, text)
	return err == nil
}

// isAlert reports whether a text is the ID of an alert or a unique prefix of one.
func isAlert(ctx context.Context, st alertReader, text string) bool {
	id, err := wholeID(ctx, st, text)
	if err == nil {
		_, err = st.Alert(ctx, id)
	}
	return err == nil
}

// ambiguous tells that several ids begin with a text; more than shown are not all shown.
func ambiguous(what, text string, ids []string, shown int) error {
	more := ""
	if len(ids) > shown {
		ids, more = ids[:shown], ", ..."
	}
	return fmt.Errorf("more than one %s ID begins with %s: %s%s; give more digits", what, text, strings.Join(ids, ", "), more)
}

// messages returns the filter of the messages that a text names: an id as webhooks have it, the id of an alert or an incident, of which a beginning
// that no other has is enough, or one with what became of it behind it, such as _opened.
func messages(ctx context.Context, st ledger, text, endpoint string) (store.DeliveryFilter, error) {
	id, which := messageID(text)
	if !isID(id) {
		return store.DeliveryFilter{WebhookID: text, Endpoint: endpoint}, nil // of a digest
	}
	f := store.DeliveryFilter{Endpoint: endpoint}
	i, ierr := wholeIncident(ctx, st, id)
	alertID, aerr := wholeID(ctx, st, id)
	if ierr == nil && aerr == nil && len(id) == 32 {
		if _, err := st.Alert(ctx, alertID); errors.Is(err, store.ErrNotFound) { // a whole id is not looked up
			aerr = err
		}
	}
	noIncident, noAlert := errors.Is(ierr, store.ErrNoIncident), errors.Is(aerr, store.ErrNotFound)
	switch {
	case ierr == nil && aerr == nil:
		return f, fmt.Errorf("an incident and an alert have IDs that begin with %s: incident %s, alert %s; give more digits", terminal.Text(id), i.ID, alertID)
	case ierr == nil && noAlert:
		f.Incident, id = i.ID, i.ID
	case aerr == nil && noIncident:
		f.AlertID, id = alertID, alertID
	case noIncident:
		return f, aerr
	default:
		return f, ierr
	}
	if which != "" {
		f = store.DeliveryFilter{WebhookID: id + "_" + which, Endpoint: endpoint}
	}
	return f, nil
}
