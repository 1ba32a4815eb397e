// Package activity is the event of spate: one row of an e-commerce clickstream (the columns of the Kaggle
// "REES46" shop data sets), and what the pipeline needs to know of it.
//
// The pipeline counts events per user and event time and looks at nothing else, so it does not decode events.
// [Scanner] validates a JSON value as a whole, exactly as strictly as encoding/json does, and picks two members
// out of it in the same pass: the user, as a canonical JSON token that serves as Kafka key and as identity, and
// the event time in epoch milliseconds. A value that is not an event gets a [Reason] instead, which travels with it to
// the dead letter topic: bad input is data too.
//
// Equal users have equal tokens and different users have different ones. A JSON number is the token it was written
// as, so 7, 7.0 and "7" are three users; a JSON string is re-encoded when it could have been written in more than
// one way, and refused when decoding it would replace something (invalid UTF-8, lone surrogates), because two
// users could become one that way.
//
// [Event] is the writing side, for the simulator and tests: the row as text and its JSON and CSV forms.
//
// The package leaves to others: windows, watermarks and lateness (package window), the bound on times ahead of the
// broker's clock ([ReasonTimeAhead] is only named here; the router decides it), reading files, and Kafka. It
// imports the standard library only, does no I/O and never asks what time it is.
package activity
