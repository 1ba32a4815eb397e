package window

// Fate is what becomes of an event.
type Fate uint8

const (
	// Counted events are in exactly one window's count.
	Counted Fate = iota
	// LateWatermark events came after their own source partition's event time had passed their window's end by the lateness.
	LateWatermark
	// LateIdle events came after their silent source partition had been promised past their window's end.
	LateIdle
)

// Late reports whether the event missed its window.
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

// Judge decides the fate of an event at ts, the next of this partition in offset order, and returns the start of its window. appended is
// when the log took the event's record: the event is counted at its own time, but raises the watermark no further than to appended minus
// the lateness. For a late event, lateBy is how many milliseconds the watermark that made it late is past the last instant of its window.
func (s *Source) Judge(r Rule, ts, appended int64) (f Fate, start, lateBy int64) {
	start = Start(ts, r.SizeMS)
	last := start + r.SizeMS - 1
	switch {
	case s.MaxTS != NoTime && s.MaxTS-r.LatenessMS >= last:
		f, lateBy = LateWatermark, s.MaxTS-r.LatenessMS-last
	case s.Floor >= last:
		f, lateBy = LateIdle, s.Floor-last
	}
	s.MaxTS = max(s.MaxTS, min(ts, appended))
	s.Newest = max(s.Newest, ts)
	s.Idle = false
	return f, start, lateBy
}
