package lab

import (
	"context"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestClientSeesAnOutageWhenItsServerIsCutOff(t *testing.T) {
	w, h := world(t, "client", "web")
	web, err := h[1].ServeHTTP("s1", 80)
	must(t, err)
	load := &Load{Target: web.Addr, Every: 10 * time.Millisecond, Deadline: 60 * time.Millisecond}
	keep := &Load{Target: web.Addr, Every: 10 * time.Millisecond, Deadline: 60 * time.Millisecond, KeepAlive: true}
	for _, l := range []*Load{load, keep} {
		background(t, func(ctx context.Context) error { return l.Run(ctx, h[0]) })
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	start := time.Now()
	for _, l := range []*Load{load, keep} {
		// The machine may be busy: a missed deadline or two must not make this a test of its speed.
		if o, err := l.Record.Settled(ctx, start, 0); err != nil {
			t.Fatalf("before the cut: %+v, %v", o, err)
		}
	}
	at := time.Now()
	must(t, w.Cut(h[1]))
	within(t, "the clients see that the server is gone", func() bool {
		return load.Record.Outage(at).Failed > 5 && keep.Record.Outage(at).Failed > 1
	})
	must(t, w.Heal())
	for _, l := range []*Load{load, keep} {
		o, err := l.Record.Settled(ctx, at, 0)
		if err != nil || !o.Over() || o.Length() < 10*time.Millisecond || o.Errors["timeout"] == 0 {
			t.Errorf("keep-alive %v: outage of %v, %+v, %v; want time-outs, then its end", l.KeepAlive, o.Length(), o, err)
		}
	}
	if s := load.Record.Summary(start); s.From["s1"] == 0 || s.PerSec < 1 || s.P50 == 0 || s.Requests < s.Failed {
		t.Errorf("summary %+v", s)
	}
}

func TestStreamNotesWhenItStallsAndWhenItIsCut(t *testing.T) {
	w, h := world(t, "client", "db")
	addr, err := h[1].ServeEcho(5432)
	must(t, err)
	s := &Stream{Target: addr}
	background(t, func(ctx context.Context) error { return s.Run(ctx, h[0]) })
	within(t, "numbers come back", func() bool { return s.Report().Echoed > 5 })
	must(t, w.Cut(h[1]))
	within(t, "the stream stalls", func() bool { return s.Report().Longest > 300*time.Millisecond })
	if r := s.Report(); r.Lost(200*time.Millisecond) != "silent" || r.Lost(time.Minute) != "" {
		t.Errorf("while it stalls it is lost to a client with little patience alone: %+v", r)
	}
	must(t, w.Heal())
	n := s.Report().Echoed
	within(t, "it goes on after the heal", func() bool { return s.Report().Echoed > n+5 })
	if r := s.Report(); !r.Cut.IsZero() || r.Lost(time.Second) != "" {
		t.Fatalf("a stall was taken for a cut: %+v", r)
	}
	h[1].mu.Lock()
	closers := h[1].closers
	h[1].mu.Unlock()
	for _, c := range closers {
		c.Close() // the server dies
	}
	within(t, "the stream is cut", func() bool { return !s.Report().Cut.IsZero() })
	if r := s.Report(); r.Why != "closed" && r.Why != "reset" || r.Lost(time.Minute) != r.Why {
		t.Errorf("it was cut by %q, want closed or reset", r.Why)
	}
}

// A short TCP session is good only when exactly what was sent came back and the other side ended after this one.
func TestEchoSessionNotesWhatGoesWrong(t *testing.T) {
	_, h := world(t, "client", "db")
	for i, tt := range []struct {
		name  string
		serve func(net.Conn)
		want  string
	}{
		{"echoes", func(c net.Conn) { io.Copy(c, c) }, ""},
		{"closes at once", func(net.Conn) {}, "closed|reset"},
		{"closes in the middle", func(c net.Conn) { io.CopyN(c, c, 5) }, "closed|reset"},
		{"says nothing", func(c net.Conn) { io.Copy(io.Discard, c) }, "timeout"},
		{"says something else", func(c net.Conn) { io.Copy(c, io.MultiReader(strings.NewReader("what"), c)) }, "nonsense"},
		{"says more", func(c net.Conn) { io.Copy(c, io.MultiReader(c, strings.NewReader("!"))) }, "nonsense"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, err := h[1].Listen("tcp", netip.AddrPortFrom(h[1].Addr, 7000+uint16(i)).String())
			must(t, err)
			background(t, func(ctx context.Context) error {
				defer context.AfterFunc(ctx, func() { l.Close() })()
				for {
					c, err := l.Accept()
					if err != nil {
						return nil // closed
					}
					tt.serve(c)
					c.Close()
				}
			})
			load := &Load{Target: netip.MustParseAddrPort(l.Addr().String()), Echo: true, Deadline: 10 * time.Second}
			if tt.want == "timeout" {
				load.Deadline = 50 * time.Millisecond
			}
			background(t, func(ctx context.Context) error { return load.Run(ctx, h[0]) })
			within(t, "a session is over", func() bool { return len(load.Record.Since(time.Time{})) > 0 })
			got := load.Record.Since(time.Time{})[0].Err
			if got != tt.want && (got == "" || !slices.Contains(strings.Split(tt.want, "|"), got)) {
				t.Errorf("the session ended with %q, want %q", got, tt.want)
			}
		})
	}
	if err := (&Load{Target: netip.AddrPortFrom(h[1].Addr, 7000), Echo: true, KeepAlive: true}).Run(t.Context(), h[0]); err == nil {
		t.Error("a load that is both kept alive and of echo sessions was begun")
	}
}
