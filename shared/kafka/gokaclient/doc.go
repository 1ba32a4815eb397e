// Package gokaclient puts goka on franz-go, through the builders that goka offers, so that goka's promise can be kept: a processor
// that loses nothing.
//
// goka's own transports (on sarama) do not keep it. Each message marks its own offset when it is done, and the highest mark is
// committed, past messages that are not done; the producer neither is idempotent nor waits for all replicas by default; a broker
// restart stops the processor; and after every rebalance nothing happens for five seconds. See lovoo/goka's context.go (tryCommit)
// and IBM/sarama's offset_manager.go (MarkOffset).
//
// # What is different here
//
//	group.go         the consumer group: reads committed records
//	session.go       one generation of it: commits only what is done without a gap
//	claim.go         one partition of that
//	standing.go      partitions that stand still, and what nobody can read
//	tracker.go       which offset that is
//	producer.go      idempotent, acknowledged by all replicas, retried for ever
//	topicmanager.go  looks topics up; making them is the job of kafka.Layout
//	consumer.go      reads nothing: tables are rebuilt from the input
//
// # Session
//
// goka's protocol is eager: a rebalance ends the session of all partitions.
//
//	assigned: fetch committed offsets -> Positions.Resume -> goka Setup
//	running:  poll -> claims -> goka -> marks; every commit interval Positions.Position -> commit -> Positions.Committed
//	revoked:  end the claims -> goka Cleanup (waits for acknowledgements) -> last commit -> Positions.Revoked
//
// Everything that was polled is handed to a claim, or dropped with its session, before the group may rebalance.
package gokaclient
