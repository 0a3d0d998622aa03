package node

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/skeinlb/skein/engine"
	"github.com/skeinlb/skein/state"
)

// lingering is an engine whose connections never end by themselves.
type lingering struct{ Engine }

func (lingering) Sockets() ([]engine.Sockets, error) { return nil, nil }
func (lingering) Retire(ctx context.Context) error   { <-ctx.Done(); return ctx.Err() }
func (lingering) Drain(context.Context) error        { return nil }

// A former agent serves what it has for as long as it may, but not when the one that followed it has failed: systemd, which is told of the
// death of its children only, would start no other while it lasts.
func TestAFormerAgentEndsWithASuccessorThatFails(t *testing.T) {
	const drain, fails = 5 * time.Minute, 3 * time.Second
	for _, c := range []struct {
		name   string
		status error // of the successor, after fails; nil: it goes on
		want   time.Duration
	}{
		{"it serves", nil, drain},
		{"it was followed itself", errDone, drain},
		{"it was killed", errors.New("signal: killed"), fails},
	} {
		synctest.Test(t, func(t *testing.T) {
			ours, theirs, err := pair()
			if err != nil {
				t.Fatal(err)
			}
			defer theirs.Close()
			n := &Node{log: slog.New(slog.DiscardHandler), machine: state.New(), engine: lingering{}}
			h := &heir{conn: ours, drain: drain, ended: make(chan struct{})}
			if c.status != nil {
				time.AfterFunc(fails, func() {
					h.status = c.status
					close(h.ended)
				})
			}
			begin := time.Now()
			n.retire(t.Context(), h, 0)
			if took := time.Since(begin); took != c.want {
				t.Errorf("%s: the former agent ended after %v, want %v", c.name, took, c.want)
			}
		})
	}
}
