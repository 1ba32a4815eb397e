package cli

import (
	"context"
	"fmt"
	"strings"

	"spate/shared/alert"
	"spate/shared/store"
	"spate/shared/terminal"
)

// minID is how many digits of an id a person has to write.
const minID = 4

// messageID splits what names a message about an alert: the alert's id, or its beginning, and which message it is; empty is any.
func messageID(text string) (id string, state alert.State) {
	for _, s := range alert.States() {
		if id, ok := strings.CutSuffix(text, "_"+string(s)); ok {
			return id, s
		}
	}
	return text, ""
}

// isID reports whether a text is the id of an alert, or its beginning.
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
		return "", fmt.Errorf("id %s is too short: give at least its first %d digits", terminal.Text(text), minID)
	}
	const shown = 4
	found, err := gather(st.Alerts(ctx, store.Filter{ID: text, Limit: shown + 1}))
	switch {
	case err != nil:
		return "", err
	case len(found) == 0:
		return "", fmt.Errorf("%w: %s", store.ErrNotFound, text)
	case len(found) == 1:
		return found[0].ID, nil
	}
	ids := make([]string, 0, shown)
	for _, a := range found[:min(shown, len(found))] {
		ids = append(ids, a.ID)
	}
	more := ""
	if len(found) > shown {
		more = ", ..."
	}
	return "", fmt.Errorf("more than one alert id begins with %s: %s%s; give more digits", text, strings.Join(ids, ", "), more)
}

// messages returns the filter of the messages that a text names: an id as webhooks have it, the id of an alert, of which a beginning that no
// other has is enough, or one with _opened, _raised or _closed behind it.
func messages(ctx context.Context, st store.Store, text, endpoint string) (store.DeliveryFilter, error) {
	id, state := messageID(text)
	if !isID(id) {
		return store.DeliveryFilter{WebhookID: text, Endpoint: endpoint}, nil // of a digest
	}
	id, err := wholeID(ctx, st, id)
	if err != nil {
		return store.DeliveryFilter{}, err
	}
	if state == "" {
		return store.DeliveryFilter{AlertID: id, Endpoint: endpoint}, nil
	}
	return store.DeliveryFilter{WebhookID: id + "_" + string(state), Endpoint: endpoint}, nil
}
