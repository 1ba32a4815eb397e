// Package windowtest writes batches as a router does, for the tests of their readers.
package windowtest

import (
	"time"

	"spate/shared/rule"
	"spate/shared/window"
)

// Stream is that of the rule burst: more than threshold events of a user in a window of a size.
func Stream(size, lateness time.Duration, threshold int64) window.Stream {
	rules, err := rule.Burst(size, threshold, 2*threshold)
	if err != nil {
		panic(err)
	}
	return window.Stream{Plan: rules.Plan(), LatenessMS: lateness.Milliseconds()}
}

// Add counts an event of a user, a JSON token, that is not late.
func Add(c *window.Combiner, user []byte, ms int64, partition int32, offset int64) {
	source := window.NewSource()
	c.Add(&window.Event{MS: ms, Partition: partition, Offset: offset, Values: []rule.Value{rule.TokenValue(user)}}, source.Judge(0, ms, ms))
}
