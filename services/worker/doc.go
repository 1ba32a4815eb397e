// Package worker combines router and detector for Kinesis: it reads all shards of the stream of events, judges each event once, counts
// per user and window with the engine of shared/window, and writes the alerts to a second stream.
//
// # One worker
//
// Producers choose any partition key, events are counted per user, and Kinesis has neither transactions nor a way to hand over a
// partition. So one worker reads all shards, and the others stand by. The active worker holds a lease in DynamoDB (shared/aws/lease),
// and the item of that lease holds the whole state: about 250 bytes per shard, written twice for each close of windows, and every 5 s. It does not contain
// counts. They are recounted from the stream, from the oldest window that is still open: about 20 to 30 seconds of events.
//
// # The cut
//
// The worker's alerts must not depend on when it crashed. A count depends on which events were in time, and for a shard that fell
// silent or started late, that depends on when windows were closed, and so on the wall clock. So the decision is recorded before it
// has any effect:
//
//  1. The watermark passes the end of a window. The worker writes to its item: pending = that watermark, and for each shard the last
//     record that was read (the cut).
//  2. It writes the alerts of the windows that end at or before pending to stream 2.
//  3. closed = pending, and for each shard the position from which the windows that are still open must be read again (resume).
//
// After a crash, each shard is read from resume up to the cut and no further, the windows up to pending are closed, and only then does
// the worker continue. The events that are read again are judged as before: windows that are open now were open then, so whether one
// of their events was late depends only on its shard's event times, and the highest of these before resume is part of the state.
//
//	shard 0   e e e e e | e e . .            e: event, read; .: not read yet
//	shard 1   e e e     | e . . .
//	          ^         ^
//	          resume    cut                   both saved in the item
//
//	time      read ... save(pending, cut)   write alerts   save(closed, resume)   read on ...
//	crash     1                           2              3                      4
//
// After a crash at 1 or 4, the worker reads from resume and decides anew, because nothing was decided. After a crash at 2 or 3, it finds pending: it reads from resume
// to the cut, on which the decision was based, closes the same windows, and writes the same alerts.
//
// Alerts that are written again are the same as before, under the same id; readers of stream 2 keep each alert once.
//
// # What is over
//
// The alerter ends incidents by event time, so the state says up to where every alert is written: closed, and, with it, the sequence number of the last
// alert in each shard of stream 2 (shared/aws/horizon). While all shards are silent and no window is open, it also says how far event time has walked on with the wall
// clock (over). That is saved like everything else, so a successor goes on from there. Before the first alert of events that come after all, which may be older than
// that, it is taken back.
//
// # Rules
//
// The rules are in the same table (shared/revision/table), and the worker looks for new ones before it judges events that its last look does not cover
// (shared/revision, Follower). A revision changes nothing for windows that begin before its boundary, and the worker knows it before it judges an event at the
// boundary or later. So events that are read again after a crash are counted as before, even if a revision has been applied in between.
//
// # Shards that are split and merged
//
// A child is read from its beginning once its parents have been read to their ends. It takes over the event time of the parent
// that is furthest behind, whose continuation it is. A parent holds windows open until its children have taken over.
//
// # Silence
//
// A shard that has been read to its end (AtEnd: a call returned no record, and Kinesis reports it as 0 ms behind) and has had no event for the idle timeout
// does not hold windows open:
//
//	calls     [e e]  [e]   []    []    []    [e]
//	AtEnd       no    no   yes   yes   yes    no
//	                   |<-- idle timeout -->|
//	                 heard                silent until the next event
//
// When all shards are silent,
// the watermark advances with the wall clock (window.Idleness). An event that comes after its window was closed for that reason is late. Only a shard
// that was read a moment ago can be silent: one that is paused or cannot be read holds windows open, as do all shards while stream 2 accepts no records.
//
// Storing the alerts is left to services/alerter; for traffic beyond one process, see docs/aws.md.
package worker
