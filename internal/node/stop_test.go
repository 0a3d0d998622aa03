package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skeinlb/skein/api"
	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/state"
	"github.com/skeinlb/skein/vip"
)

// yieldingGuard could serve a successor.
type yieldingGuard struct{ stillGuard }

func (*yieldingGuard) Yield(time.Duration) {}

// hears is a log that says when it has a line of this text.
type hears struct {
	slog.Handler
	text string
	then func()
}

func (h hears) Enabled(context.Context, slog.Level) bool { return true }
func (h hears) Handle(_ context.Context, r slog.Record) error {
	if r.Message == h.text {
		h.then()
	}
	return nil
}

// A node that stops is followed by nobody: whether it had begun to stop when the upgrade was asked for, or does while the new process gets
// ready. The operator was told of a process that takes over, and it never did.
func TestANodeThatStopsIsNotFollowed(t *testing.T) {
	for _, early := range []bool{true, false} {
		dir := t.TempDir()
		program, started := filepath.Join(dir, "skein"), filepath.Join(dir, "pid")
		text := fmt.Sprintf("#!/bin/bash\necho $$ >%s\nprintf '{\"ready\":{\"version\":\"v9\",\"guard\":%d,\"level\":99}}' >&3\nexec sleep 60\n", started, vip.Protocol)
		if err := os.WriteFile(program, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
		n := &Node{conf: &config.Node{Name: "lb1"}, machine: state.New(), guard: &yieldingGuard{}, program: program, heirs: make(chan *heir), ending: make(chan struct{})}
		n.log = slog.New(hears{text: "the new agent is ready", then: sync.OnceFunc(func() { close(n.ending) })})
		if early {
			n.log.Info("the new agent is ready")
		}
		next, err := n.Upgrade(t.Context(), time.Minute)
		if !errors.Is(err, errEnding) {
			t.Errorf("early %v: %+v, %v; want that it is refused", early, next, err)
		}
		if n.upgrading.Load() {
			t.Errorf("early %v: an upgrade is still under way", early)
		}
		switch b, err := os.ReadFile(started); {
		case early && !os.IsNotExist(err):
			t.Errorf("a process was started: %s, %v", b, err)
		case !early:
			pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
			if err != nil || unix.Kill(pid, 0) != unix.ESRCH {
				t.Errorf("the process that was ready is still there: %q, %v", b, err)
			}
		}
	}
	var said *api.Error
	if !errors.As(upgradeError(errEnding, "lb1"), &said) || !strings.Contains(said.Message, "nothing has changed: this node is stopping") || said.Hint == "" {
		t.Errorf("the operator reads %+v", said)
	}
}

// A process that is about to take over and shall stop does so after it has taken over: before that it has nothing to give away, and whom it
// follows has no log by which it could. It does not wait for ever.
func TestAProcessThatTakesOverStopsAfterThat(t *testing.T) {
	const never = -1
	for _, c := range []struct {
		name                       string
		signal, followed, passedOn time.Duration
		want                       time.Duration
	}{
		{"a signal later", 9 * time.Second, time.Second, never, 9 * time.Second},
		{"a signal meanwhile", time.Second, 3 * time.Second, never, 3 * time.Second},
		{"a signal, and it does not get there", time.Second, never, never, time.Second + servingWithin},
		{"the former agent had the signal", never, time.Second, 2 * time.Second, 2 * time.Second},
		{"both had it", time.Second, 3 * time.Second, 3 * time.Second, 3 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			n := &Node{}
			ctx, signal := context.WithCancel(t.Context())
			defer signal()
			life, end := context.WithCancel(t.Context())
			defer end()
			at := func(after time.Duration, f func()) {
				if after != never {
					time.AfterFunc(after, f)
				}
			}
			at(c.signal, signal)
			at(c.followed, func() { n.former.Update(func(f former) former { f.followed = true; return f }) })
			at(c.passedOn, func() { n.former.Update(func(f former) former { f.stop = true; return f }) })
			begin := time.Now()
			n.untilStop(ctx, life)
			if took := time.Since(begin); took != c.want {
				t.Errorf("%s: it stops after %v, want %v", c.name, took, c.want)
			}
		})
	}
}

// The former agent passes the stop on, and ends after the one that carries it out, of which its own end is the sign; or when that one hangs.
func TestAFormerAgentOutlivesTheStopThatItPassesOn(t *testing.T) {
	const drain = 30 * time.Second
	for _, c := range []struct {
		name       string
		ends, want time.Duration
	}{{"it stops", 3 * time.Second, 3 * time.Second}, {"it hangs", time.Hour, drain + stopWithin}} {
		synctest.Test(t, func(t *testing.T) {
			ours, theirs, err := pair()
			if err != nil {
				t.Fatal(err)
			}
			defer ours.Close()
			conn, err := connOf(theirs)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			n := &Node{log: slog.New(slog.DiscardHandler)}
			h := &heir{conn: ours, ended: make(chan struct{})}
			ending := time.AfterFunc(c.ends, func() { close(h.ended) })
			defer ending.Stop()
			begin := time.Now()
			stopped := n.stopHeir(h, drain)
			var m toHeir
			if _, err := hear(conn, &m); err != nil || !m.Stop {
				t.Errorf("%s: it hears %+v, %v", c.name, m, err)
			}
			stopped()
			if took := time.Since(begin); took != c.want {
				t.Errorf("%s: over after %v, want %v", c.name, took, c.want)
			}
		})
	}
}

// What the former agent still serves goes by addresses that are parked for as long as the one that has followed it lives: that one waits for it,
// within its time to drain.
func TestAStopWaitsForWhatTheFormerAgentServes(t *testing.T) {
	for _, c := range []struct{ ends, want time.Duration }{{3 * time.Second, 3 * time.Second}, {time.Hour, 30 * time.Second}} {
		synctest.Test(t, func(t *testing.T) {
			n := &Node{inherited: &Inheritance{}}
			ending := time.AfterFunc(c.ends, func() { n.former.Update(func(f former) former { f.ended = true; return f }) })
			defer ending.Stop()
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			begin := time.Now()
			n.awaitFormer(ctx)
			if took := time.Since(begin); took != c.want {
				t.Errorf("it ends after %v: waited %v, want %v", c.ends, took, c.want)
			}
		})
	}
}

// lastingEngine has a connection that is never idle.
type lastingEngine struct{ lingering }

func (lastingEngine) Drain(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }

// A former agent that is asked to stop lets idle connections be for a moment, and the rest for its time to drain from then on.
func TestAFormerAgentStopsAsAnyOther(t *testing.T) {
	const asked, drain = time.Minute, 30 * time.Second
	for _, c := range []struct {
		name   string
		engine interface {
			Engine
			socketed
		}
		want time.Duration
	}{{"idle connections", lingering{}, asked + politeMost}, {"one that lasts", lastingEngine{}, asked + drain}} {
		synctest.Test(t, func(t *testing.T) {
			ours, theirs, err := pair()
			if err != nil {
				t.Fatal(err)
			}
			defer theirs.Close()
			n := &Node{log: slog.New(slog.DiscardHandler), machine: state.New(), engine: c.engine}
			ctx, signal := context.WithTimeout(t.Context(), asked)
			defer signal()
			begin := time.Now()
			n.retire(ctx, &heir{conn: ours, drain: time.Hour, ended: make(chan struct{})}, drain)
			if took := time.Since(begin); took != c.want {
				t.Errorf("%s: it ended after %v, want %v", c.name, took, c.want)
			}
		})
	}
}
