// Package deliver notifies endpoints: it works off the deliveries of a store, whichever that is, with retries, a rate and a breaker for each endpoint, digests, and the order of
// messages about one incident. The alerters of both modes use it.
//
// # A delivery
//
// A delivery is created in the transaction that stores the alert. The process to which the store assigns the delivery makes it:
//
//	look      read the delivery's row: the delivery may be settled or not yet due
//	check     a message that cannot be sent is given up and recorded, without passing the gate
//	gate      wait for the endpoint's rate, for the time it asked for, or until it works again
//	try       once
//	record    the outcome, and when the next try is due
//
// A crash between the last two steps repeats the try, under the same id.
package deliver
