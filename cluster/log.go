package cluster

import (
	"context"
	"io"
	"log/slog"
	"strings"

	"github.com/hashicorp/go-hclog"
)

// raftLog lets raft log through l. Raft says Error for what heals by itself (a peer that is down, for every attempt), so its levels
// are taken down by one: what needs a human, skein's own packages say.
func raftLog(l *slog.Logger) hclog.Logger {
	h := hclog.NewInterceptLogger(&hclog.LoggerOptions{Name: "raft", Level: hclog.Debug, Output: io.Discard})
	h.RegisterSink(sink{l})
	return h
}

type sink struct{ log *slog.Logger }

func (s sink) Accept(_ string, level hclog.Level, msg string, args ...any) {
	var l slog.Level
	switch {
	case msg == "failed to get previous log": // a nudge that was sooner than the entry, or a log that is being brought up to date
		l = slog.LevelDebug
	case level >= hclog.Error:
		l = slog.LevelWarn
	case level == hclog.Warn:
		l = slog.LevelInfo
	default:
		l = slog.LevelDebug
	}
	if s.log.Enabled(context.Background(), l) {
		s.log.Log(context.Background(), l, "raft: "+msg, args...)
	}
}

// lineWriter is where memberlist's log.Logger writes: lines like "2026/01/02 15:04:05 [WARN] memberlist: text". All of it is
// of use only to whoever looks for a fault in gossip itself.
type lineWriter struct{ log *slog.Logger }

func (w lineWriter) Write(b []byte) (int, error) {
	line := strings.TrimSpace(string(b))
	if _, rest, ok := strings.Cut(line, "] memberlist: "); ok {
		line = rest
	}
	w.log.Debug("gossip: " + line)
	return len(b), nil
}
