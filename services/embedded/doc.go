// Package embedded runs the whole pipeline in one process, including a Kafka broker, for laptops, demonstrations, replays and tests. The
// services are the same as elsewhere and connect to the broker over its port, as any other client can.
//
//	broker       the broker and its directory, a package of its own
//	stack.go     broker, services and database as one thing with a start and an end
//	up.go        the stack for interactive use: runs until it is stopped
//	replay.go    the stack for a file: as fast as possible, to the end
//	demo.go      the stack on seeded traffic, compared with the truth and with the reference
package embedded
