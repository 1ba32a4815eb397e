package ops

import (
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestSparse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		log := Sparse(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey || a.Key == slog.LevelKey {
				return slog.Attr{}
			}
			return a
		}})))
		for i := range 3 {
			log.Error("a", "n", i)
			log.With("x", 1).Error("b", "n", i)
		}
		time.Sleep(sparseEvery - time.Millisecond)
		log.Error("a", "n", 3)
		time.Sleep(time.Millisecond)
		log.Error("a", "n", 4)
		log.Error("a", "n", 5)
		time.Sleep(sparseEvery)
		log.Error("a", "n", 6)
		log.Error("b", "n", 7)
		time.Sleep(sparseEvery)
		log.Error("b", "n", 8)
		want := "msg=a n=0\nmsg=b x=1 n=0\nmsg=a n=4 suppressed=3\nmsg=a n=6 suppressed=1\nmsg=b n=7 suppressed=2\nmsg=b n=8\n"
		if got := out.String(); got != want {
			t.Errorf("got\n%swant\n%s", got, want)
		}
	})
}
