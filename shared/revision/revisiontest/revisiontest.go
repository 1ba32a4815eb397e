// Package revisiontest is the conformance suite that every log of revisions must pass.
package revisiontest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"spate/shared/revision"
)

// Reader is what a topic and a table have in common.
type Reader interface {
	Append(ctx context.Context, r revision.Record) (revision.Entry, error)
	Look(ctx context.Context) (changed bool, err error)
	Revision() int64
	Newest() (revision.Entry, bool)
	Ignored() []revision.Ignored
}

// Source is one rule that looks for users with more than some number of events in ten seconds.
func Source(more int) revision.Source {
	return revision.Source{Name: "a", Text: fmt.Sprintf("INSERT INTO alerts SELECT user_id, COUNT(*) AS n FROM activity GROUP BY TUMBLE(txn_timestamp, INTERVAL '10' SECOND), user_id HAVING COUNT(*) > %d", more)}
}

// AtOnce applies rules with several readers at the same time: one of them is the next revision, the others are told and know it. What open returns
// has read what there is. AtOnce returns how many records a reader ignores afterwards.
func AtOnce[R Reader](t *testing.T, open func() R) (writers, ignored int) {
	t.Helper()
	readers := make([]R, 8)
	for i := range readers {
		readers[i] = open()
	}
	errs := make([]error, len(readers))
	var wg sync.WaitGroup
	for i, r := range readers {
		wg.Go(func() { _, errs[i] = r.Append(t.Context(), revision.Record{Source: Source(i + 1)}) })
	}
	wg.Wait()
	applied := -1
	for i, err := range errs {
		switch {
		case err == nil && applied < 0:
			applied = i
		case err == nil:
			t.Errorf("%d and %d were both applied", applied, i)
		case !errors.Is(err, revision.ErrOvertaken):
			t.Error(err)
		}
	}
	r := open()
	if e, _ := r.Newest(); applied < 0 || r.Revision() != 1 || !e.Same(Source(applied+1)) {
		t.Errorf("revision %d: %+v", r.Revision(), e.Source)
	}
	for _, r := range readers {
		if r.Revision() != 1 {
			t.Errorf("a writer has read revision %d, expected 1", r.Revision())
		}
	}
	return len(readers), len(r.Ignored())
}
