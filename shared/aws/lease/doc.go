// Package lease elects one active process among several and stores its state, using only conditional writes to one DynamoDB item.
//
// # The item
//
//	pk         what the lease is for
//	epoch      grows with every change of the holder: the fencing token
//	owner      who holds it, for people
//	taken_by   the attempt that took it, for a process whose answer was lost
//	beat       grows while the holder is alive
//	saves      grows with every write of the state
//	state      the holder's state
//	released   the holder has shut down cleanly
//	lease_ms   its duration, for those who only look
//
// # Protocol
//
//	           ┌──── nothing moved for 0.8 of the duration, or released ────┐
//	standby ───┴─► UpdateItem epoch+1 IF epoch, beat, saves are as seen ────┴─► holder ──► beat every 0.2 ──► …
//	   ▲                                                                          │
//	   └──────────── a write refused: another epoch; or no beat for 0.6 ──────────┘
//
// Clocks are never compared: a standby measures with its own clock for how long the item has not changed. The holder stops before any standby
// can take over: it counts 0.6 of the duration from when it sent its last successful beat, the standby 0.8 from when it saw that beat. So
// a process that was stopped or cut off finds, when it resumes, that it may no longer act ([Held.Valid]). Even if it tries, its writes
// are refused, because each has the condition that the epoch is still its own.
//
// In units of the duration, with a holder that freezes after a beat:
//
//	holder    beat sent ──0.2──► beat sent ─────────── 0.6: no longer Valid ───────────────► wakes up: ErrLost
//	                                 │ frozen here
//	standby               sees the beat ──────────────── 0.8: nothing has moved ──► epoch+1
//	                                     the standby begins later and waits longer: the two never overlap
//
// A write that was given up because no answer came can still take effect later:
//
//	holder    save 7 ──?── (no answer) ── reads the item: saves = 6 ── save 7' IF saves = 6 ── saves = 7
//	late                                          save 7 arrives: IF saves = 6 is false: refused
//	or                save 7 was done: saves = 7, and the state is ours: it counts as done
//
// A write whose answer was lost may have been done, and one that was given up may still be done later. saves resolves both: a state is written only
// as the successor of the one before it, so a late write is refused, and if a refused state is in the item, it was written by us. taken_by does the
// same for taking the lease; owner cannot, because two processes may have the same name.
package lease
