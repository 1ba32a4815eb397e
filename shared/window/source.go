package window

// Fate is what becomes of an event.
type Fate uint8

const (
	// Counted events are in the windows of every rule that takes them.
	Counted Fate = iota
	// LateWatermark events came after their own source partition's event time had passed, by the lateness, the end of their last window of some rule.
	LateWatermark
	// LateIdle events came after their silent source partition had been promised past that end.
	LateIdle
)

// Late reports whether the event missed all its windows of some rule.
func (f Fate) Late() bool { return f != Counted }

// String is the value of the "reason" header of a late event.
func (f Fate) String() string {
	switch f {
	case Counted:
		return "counted"
	case LateWatermark:
		return "watermark"
	default:
		return "idle"
	}
}

// Source is what the owner of a source partition knows of it. It must be stored with the offset up to which it holds, and
// restored with it.
type Source struct {
	// MaxTS is the highest event time so far, where none counts for more than the time at which its record was appended; NoTime before
	// the first event. So a clock that is ahead makes nobody else's events late.
	MaxTS int64
	// Newest is the highest event time so far, whatever the append time: the last window that has an event is that of Newest.
	Newest int64
	// Floor is the watermark promised while the partition was silent; NoTime if none ever was.
	Floor int64
	// Idle reports that the partition is silent and its watermark is the promise.
	Idle bool
}

// NewSource returns the state of a partition of which nothing was read.
func NewSource() Source { return Source{MaxTS: NoTime, Newest: NoTime, Floor: NoTime} }

// Watermark is the time up to which no window can get another event of this partition.
func (s Source) Watermark(lateness int64) int64 {
	if s.MaxTS == NoTime {
		return s.Floor
	}
	return max(s.MaxTS-lateness, s.Floor)
}

// Unbounded is the append time of an event whose clock is trusted, whatever it says.
const Unbounded = EndOfTime

// Judgement is what the fate of an event depends on: the watermarks of its source partition before it.
type Judgement struct {
	own, floor int64 // by event time, and by promise
}

// Judge takes an event at ts, the next of this partition in offset order, and returns what it is judged by. appended is when the log took the
// event's record: the event is counted at its own time, but raises the watermark no further than to appended minus the lateness.
func (s *Source) Judge(latenessMS, ts, appended int64) Judgement {
	j := Judgement{own: NoTime, floor: s.Floor}
	if s.MaxTS != NoTime {
		j.own = s.MaxTS - latenessMS
	}
	s.MaxTS = max(s.MaxTS, min(ts, appended))
	s.Newest = max(s.Newest, ts)
	s.Idle = false
	return j
}

// watermark is the time up to which windows are closed for the event.
func (j Judgement) watermark() int64 { return max(j.own, j.floor) }

// late is the fate of an event whose last window has ended, and by how many milliseconds the watermark has passed the window's last instant.
func (j Judgement) late(end int64) (f Fate, byMS int64) {
	if j.own >= end-1 {
		return LateWatermark, j.own - (end - 1)
	}
	return LateIdle, j.floor - (end - 1)
}
