// Package verifier is the independent reference: it says what the alerts of a log have to be, so that what the pipeline stored can be
// held against it. It is a plain reading of the rule, one map for the whole input and no watermark but a maximum, and shares no code
// with the engine: neither windows nor times nor JSON fields. A mistake would have to be made twice to stay unseen.
//
// What it takes from the rest of the program is the record that it compares (package alert) and the partition of a key (package
// kafka), which is Kafka's own.
//
// It keeps every (user, window) in memory, judges a partition's events in the order it is given them, and knows no idle partitions:
// an event that is late only because its partition was silent (reason "idle") is counted here, unless it is told (AddIdleJSON).
package verifier
