package worker

import (
	"context"

	"spate/shared/window"
)

// flush brings what was judged into the table and writes the alerts that open, and what was set aside.
func (s *session) flush(ctx context.Context) error {
	verdicts, err := s.apply(nil)
	if err != nil {
		return err
	}
	again := s.again()
	s.tally.Counted, s.tally.Repeated = s.tally.Counted-again, s.tally.Repeated+again
	s.counted.counted, s.counted.repeated = s.counted.counted-again, s.counted.repeated+again
	if err := s.queue(verdicts); err != nil {
		return err
	}
	if len(s.outbox) > 0 && s.st.Over > s.st.Closed { // before anybody can read these alerts
		s.st.Over = 0
		if err := s.store(ctx); err != nil {
			return err
		}
	}
	if err := s.emit(ctx); err != nil {
		return err
	}
	return s.writeAside(ctx)
}

// apply hands what was judged, or the watermark, to the engine, and notes the places before what comes next.
func (s *session) apply(watermarks []window.Watermark) ([]window.Verdict, error) {
	out, err := s.engine.apply(s.sources(), watermarks)
	if err == nil {
		s.snap()
	}
	return out, err
}

// decide closes all windows up to a watermark. It is called when everything that was judged is in the table and written.
func (s *session) decide(ctx context.Context, watermark int64) error {
	s.st.Pending, s.st.Over = watermark, 0 // there are events again
	if err := s.save(ctx); err != nil {    // before it has any effect
		return err
	}
	return s.close(ctx)
}

// close writes the alerts of the windows up to the pending watermark. It can be done again, with the same result.
func (s *session) close(ctx context.Context) error {
	watermarks := make([]window.Watermark, s.sources())
	for i := range watermarks {
		watermarks[i] = window.Watermark{Partition: int32(i), WatermarkMS: s.st.Pending} // it is that of all shards together
	}
	verdicts, err := s.apply(watermarks)
	if err != nil {
		return err
	}
	if err := s.queue(verdicts); err != nil {
		return err
	}
	if err := s.emit(ctx); err != nil {
		return err
	}
	s.st.Closed = s.st.Pending
	s.forget()
	return nil
}
