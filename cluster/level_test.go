package cluster

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/skeinlb/skein/state"
)

// snapshotOf is all of a machine's state, as bytes.
func snapshotOf(t *testing.T, m *state.Machine) []byte {
	t.Helper()
	s, err := m.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Release()
	var b bytes.Buffer
	if err := s.Persist(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// A node's version does not know a command that is in the log, by whatever mistake. It applies neither that one nor what follows,
// leaves raft, and keeps all that it has; the others go on. With a version that knows the command it goes on where it stopped, be it from
// the log or from a snapshot that it could not read.
func TestANodeThatMeetsACommandOfANewerVersionStopsAndGoesOnWithThatVersion(t *testing.T) {
	w := newWorld(t)
	a := w.found("a") // at the level of this version
	b := w.node("b")
	level := 1
	b.change = func(o *Options) {
		b.machine = state.NewAt(level)
		o.Machine, o.Views = b.machine, b.machine.Views()
	}
	if _, err := Join(soon(t), b.newcomer(), a.addr, w.token(a)); err != nil {
		t.Fatal(err)
	}
	b.start()
	stopped := func() {
		t.Helper()
		err := wait(t, "b stops", b.Outdated(), func(err error) bool { return err != nil })
		if !errors.Is(err, state.ErrTooNew) || !strings.Contains(err.Error(), "log entry") && !strings.Contains(err.Error(), "snapshot") {
			t.Errorf("b stops with %v", err)
		}
		if got := b.AppliedIndex(); got != 0 || b.machine.Views().Get().Founded() {
			t.Errorf("b has applied up to %d", got)
		}
		if _, _, err := b.Propose(soon(t), state.Encode(state.Tick{ElapsedMs: 1})); !errors.Is(err, state.ErrTooNew) {
			t.Errorf("b proposes: %v, want ErrTooNew", err)
		}
	}
	stopped()
	a.tick(1000)
	b.stop()
	b.start() // the log that it has by now says the same
	stopped()
	if err := a.Snapshot(); err != nil {
		t.Fatal(err)
	}
	a.tick(1000)
	b.stop()
	level = state.Level
	b.start()
	b.applied(a.tick(1000))
	if !bytes.Equal(snapshotOf(t, a.machine), snapshotOf(t, b.machine)) {
		t.Error("the states differ")
	}
	if err := b.Snapshot(); err != nil {
		t.Fatal(err)
	}
	b.stop()
	level = 1
	b.start() // downgraded: its own snapshot is too new
	stopped()
	b.stop()
	level = state.Level
	b.start()
	b.applied(a.tick(1000))
	if !bytes.Equal(snapshotOf(t, a.machine), snapshotOf(t, b.machine)) {
		t.Error("the states differ")
	}
}

// In a cluster that is still at an older level nothing newer gets into the log, wherever it is proposed; what is as old as the
// cluster does.
func TestNothingAboveTheClustersLevelIsProposed(t *testing.T) {
	w := newWorld(t)
	a := w.node("a")
	first := a.newcomer()
	first.Level = 1
	if _, err := Found(first); err != nil {
		t.Fatal(err)
	}
	a.change = func(o *Options) { o.Behind = func(int) string { return "b runs 0.1.0" } }
	a.start()
	wait(t, "cluster is founded", a.machine.Views(), func(v *state.View) bool { return v.Founded() })
	b := w.join("b", a)
	b.applied(b.tick(1000))
	me, _ := a.machine.Views().Get().Node("a")
	last := a.Stats().Last
	for _, c := range []struct {
		name string
		on   *node
		cmd  []byte
		want error
	}{
		{"a new field, on the leader", a, state.Encode(state.PutNode{Node: me, Level: 2}), state.ErrTooEarly},
		{"a new field, on a follower", b, state.Encode(state.PutNode{Node: me, Level: 2}), state.ErrTooEarly},
		{"a kind of the future", a, []byte{61, '{', '}'}, state.ErrTooNew},
	} {
		if _, _, err := c.on.Propose(soon(t), c.cmd); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		} else if c.on == a && c.want == state.ErrTooEarly && !strings.HasSuffix(err.Error(), "level 1: b runs 0.1.0") {
			t.Errorf("%s: %v, which does not say who is behind", c.name, err)
		}
	}
	if _, err := b.ask(soon(t), framePropose, []byte{61, '{', '}'}); !errors.Is(err, state.ErrTooNew) {
		t.Errorf("a newer follower's proposal, to a leader that does not know it: %v, want ErrTooNew", err)
	}
	link := b.links.link
	if _, err := b.ask(soon(t), 99, nil); !errors.Is(err, ErrUnknownQuestion) || !strings.Contains(err.Error(), "asked of a") {
		t.Errorf("a question that only a newer version can answer: %v, want ErrUnknownQuestion", err)
	}
	if !link.alive() {
		t.Error("the connection was ended, and all that was under way on it")
	}
	if got := a.Stats().Last; got != last {
		t.Errorf("the log has grown from %d to %d", last, got)
	}
	if err := b.propose(soon(t), state.Raise{To: 2, Members: []string{"a", "b"}}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := a.Propose(soon(t), state.Encode(state.PutNode{Node: me, Level: 2})); err != nil {
		t.Errorf("once it is raised: %v", err)
	}
	old := w.node("c").newcomer()
	old.Level = 1
	if _, err := Join(soon(t), old, a.addr, w.token(a)); !errors.Is(err, ErrJoinRefused) || !strings.Contains(err.Error(), "level 2") {
		t.Errorf("a newcomer of an older version: %v, want a refusal", err)
	}
}
