// Package gokaclient runs goka on franz-go, through goka's builder options, so that a processor loses no messages, as goka promises.
//
// goka's own transports (based on sarama) do not guarantee this. Each message marks its own offset when it is done, and the highest
// mark is committed, even past messages that are not done; by default, the producer is not idempotent and does not wait for all
// replicas; a broker restart stops the processor; and processing pauses for five seconds after every rebalance. See lovoo/goka's
// context.go (tryCommit) and IBM/sarama's offset_manager.go (MarkOffset).
//
// # What is different here
//
//	group.go         the consumer group: reads committed records
//	session.go       one generation of it: commits only what is done without a gap
//	claim.go         one partition of that
//	standing.go      stalled partitions, and batches that nobody can read
//	tracker.go       which offset that is
//	producer.go      idempotent, acknowledged by all replicas, retried forever
//	topicmanager.go  looks up topics; creating them is the job of kafka.Layout
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
// All polled records are handed to a claim, or dropped with their session, before the group may rebalance.
package gokaclient
