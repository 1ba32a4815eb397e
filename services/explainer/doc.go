// Package explainer answers why a key was flagged, or why it was not. It reads the events of the key back from the log, finds out what became of each, and has the
// rule evaluated over them by a reference that is not the engine.
//
//	log       where the window's events can be ──► the records that may be the key's ──► what became of each: counted, late, invalid, waiting
//	evaluate  the reference: which events pass WHERE, what HAVING compares, whether it holds
//	judge     the reason, one of a closed list
//
// # Where a window's events can be
//
// Event time is not the time at which the log appended a record: events arrive late, and a replay sends those of years ago. But the keyed log says, batch by batch, up
// to which offset each source partition is routed, and which watermark it had there. Watermarks only rise, so a binary search in the first partition of the keyed log
// finds two batches for the window [start, end):
//
//	keyed log   … watermarks + lateness < start │ … the window is open … │ min. watermark >= end - 1 …
//	                                            ▼                         ▼
//	events      partition 0: from offset 810 ────────────────────────────► to offset 2240
//	            partition 1: from offset 77 ─────────────────────────────► to offset 91
//
// No event that counts in the window lies outside of these ranges. What the keyed log does not keep any more is read from the beginning of the topic. An alert has the
// ranges in its evidence.
//
// # What became of an event
//
// An event is counted if it is neither in the topic of late events nor in the dead-letter topic, and the keyed log is past its offset. So nothing is judged anew: the answer
// says what the pipeline did.
package explainer
