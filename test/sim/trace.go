package sim

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"
)

var showTrace = flag.Bool("sim.trace", false, "print the trace of simulations that pass, too")

// trace is what happened, a line for each event. The oldest lines go first.
type trace struct {
	start time.Time

	mu sync.Mutex
	// mu guards the following.
	lines []string
	cut   int
}

const traceMax = 3000

func (t *trace) add(who, what string) {
	if who != "" {
		who += ": "
	}
	line := fmt.Sprintf("%10.3fs %s%s", time.Since(t.start).Seconds(), who, what)
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.lines) == traceMax {
		t.lines = append(t.lines[:0], t.lines[traceMax/4:]...)
		t.cut += traceMax / 4
	}
	t.lines = append(t.lines, line)
}

func (t *trace) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := strings.Join(t.lines, "\n")
	if t.cut > 0 {
		s = fmt.Sprintf("(%d lines before)\n", t.cut) + s
	}
	return s
}

// handler takes what a node logs into the trace.
func (t *trace) handler(who string) slog.Handler { return traceHandler{t: t, who: who} }

type traceHandler struct {
	t    *trace
	who  string
	with string
}

func (h traceHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }
func (h traceHandler) WithGroup(string) slog.Handler                { return h }

func (h traceHandler) WithAttrs(as []slog.Attr) slog.Handler {
	for _, a := range as {
		if a.Key != "part" && a.Key != "node" {
			h.with += " " + a.String()
		}
	}
	return h
}

func (h traceHandler) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	if r.Level > slog.LevelInfo {
		b.WriteString(r.Level.String() + " ")
	}
	b.WriteString(r.Message + h.with)
	r.Attrs(func(a slog.Attr) bool { b.WriteString(" " + a.String()); return true })
	h.t.add(h.who, b.String())
	return nil
}
