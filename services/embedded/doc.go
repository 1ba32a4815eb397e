// Package embedded runs the whole pipeline in one process, with a Kafka broker inside: for a laptop, a demonstration, a replay of the
// past and for tests. The services are the same as anywhere else and talk to the broker over its port, as any other client can.
//
//	broker       the broker and its directory, a package of its own
//	stack.go     broker, services and database as one thing with a start and an end
//	up.go        the stack for a person: runs until it is told to stop
//	replay.go    the stack for a file: as fast as it can, to the end
//	demo.go      the stack on seeded traffic, compared with the truth and with the reference
package embedded
