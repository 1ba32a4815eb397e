package window

// Idleness decides what the owner of silent source partitions promises for them. One belongs to each process that owns source
// partitions; it is not safe for concurrent use.
//
// A promise is the minimum watermark of the partitions that are not silent, as if the silent one were left out of the minimum.
// When all are silent, it walks on with the wall clock from the highest watermark of all, but not beyond the end of the last
// window that has an event: that closes every window, and nothing is gained by going further.
type Idleness struct {
	Stream    Stream
	TimeoutMS int64

	allSince int64 // wall clock at which all partitions were first seen silent; 0: they are not
	base     int64 // the highest watermark at that moment
}

// Peer is one source partition as the owner of some of them sees it.
type Peer struct {
	Source
	// Known is false for a partition of which nothing was ever committed: its owner has to speak first.
	Known bool
}

// Promise returns the watermark that silent partitions may be promised at wall clock now (milliseconds), given all source
// partitions of the topic, own and others'. Own silent ones must have Idle set. NoTime means that nothing can be promised.
func (i *Idleness) Promise(now int64, all []Peer) int64 {
	low, high, newest, active := int64(EndOfTime), int64(NoTime), int64(NoTime), false
	for _, p := range all {
		if !p.Known {
			i.allSince = 0
			return NoTime
		}
		w := p.Watermark(i.Stream.LatenessMS)
		high, newest = max(high, w), max(newest, p.Newest)
		if !p.Idle {
			active = true
			low = min(low, w)
		}
	}
	if active || newest == NoTime {
		i.allSince = 0
		if active {
			return low
		}
		return NoTime
	}
	if i.allSince == 0 {
		i.allSince, i.base = now, high
	}
	last := max(i.Stream.LastEnd(newest)-1, newest) // it may be in no window, and the end of every one that has another event is before it
	return min(i.base+i.TimeoutMS+(now-i.allSince), max(last, i.base))
}
