package kafka

import (
	"context"
	"log/slog"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Logger passes what the client says on to log. What it calls info is one line a request; that is debug here.
func Logger(log *slog.Logger) kgo.Logger { return clientLogger{log} }

type clientLogger struct{ log *slog.Logger }

func (l clientLogger) Level() kgo.LogLevel {
	if l.log.Enabled(context.Background(), slog.LevelDebug) {
		return kgo.LogLevelInfo
	}
	return kgo.LogLevelWarn
}

func (l clientLogger) Log(level kgo.LogLevel, msg string, keyvals ...any) {
	switch level {
	case kgo.LogLevelError:
		l.log.Warn("kafka client: "+msg, keyvals...) // it tries again; what it cannot repair comes back as an error
	case kgo.LogLevelWarn:
		l.log.Info("kafka client: "+msg, keyvals...)
	default:
		l.log.Debug("kafka client: "+msg, keyvals...)
	}
}
