// Package lease lets one of several processes be the active one, and keeps its state, in one DynamoDB item with conditional writes alone.
//
// # The item
//
//	pk         what the lease is for
//	epoch      grows with every change of the holder: the fencing token
//	owner      who holds it, for people
//	taken_by   the attempt that took it: who does not hear whether it did finds it here
//	beat       grows while the holder lives
//	saves      grows with every state that is written
//	state      the holder's state
//	released   the holder has ended in good order
//
// # Protocol
//
//	           ┌──── nothing moved for 0.8 of the duration, or released ────┐
//	standby ───┴─► UpdateItem epoch+1 IF epoch, beat, saves are as seen ────┴─► holder ──► beat every 0.2 ──► …
//	   ▲                                                                          │
//	   └──────────── a write refused: another epoch; or no beat for 0.6 ──────────┘
//
// Nobody compares clocks: a standby measures by its own how long the item has not moved. The holder stops before any standby can take over:
// it counts 0.6 of the duration from the moment at which it sent its last successful beat, the standby 0.8 from when it saw it. So a process
// that was stopped or cut off finds, when it goes on, that it may not act any more ([Held.Valid]), and even if it tries, that the item
// refuses it: every write has the condition that the epoch is still its own.
//
// A write whose answer was lost may have been done, and one that was given up may be done later. saves tells: a state is written only as
// the successor of the one before it, so a late one is refused, and one that is refused but stands there was ours. taken_by tells the same
// of the taking; owner cannot, for two processes may have been given one name.
package lease
