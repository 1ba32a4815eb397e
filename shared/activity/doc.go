// Package activity defines spate's event, one row of an e-commerce clickstream (with the columns of the Kaggle "REES46" shop data sets), and
// extracts the two fields that the pipeline uses.
//
// The pipeline counts events by user and event time and looks at nothing else, so it does not decode whole events.
// [Scanner] validates a JSON value as a whole, exactly as strictly as encoding/json does, and picks two members
// out of it in the same pass: the user, as a canonical JSON token that serves as Kafka key and identity, and
// the event time in epoch milliseconds. A value that is not an event gets a [Reason] instead, which goes with it to
// the dead-letter topic: bad input is data, too.
//
// Equal users have equal tokens, and different users have different ones. A JSON number keeps the token it
// was written as, so 7, 7.0 and "7" are three users. A JSON string is re-encoded if it could be written in
// more than one way, and refused if decoding would replace part of it (invalid UTF-8, lone surrogates),
// because that could merge two users.
//
// [Event] is the writing side, for the simulator and tests: the row as text and its JSON and CSV forms.
//
// Other packages are responsible for windows, watermarks and lateness (package window), the bound on times ahead
// of the broker's clock ([ReasonTimeAhead] is only named here; the router decides), reading files, and
// Kafka. This one imports only the standard library, does no I/O and reads no clock.
package activity
