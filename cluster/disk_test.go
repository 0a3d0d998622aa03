package cluster

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/skeinlb/skein/state"
)

// The leader's disk fails a write. What it was asked to write is not acknowledged, it says so and leads no more; the others go on at
// once, and after a restart it is back with everything.
func TestFailedDiskEndsLeadershipAndNeverAcknowledges(t *testing.T) {
	w := newWorld(t)
	a, b, c := w.three()
	lead := leaderOf(t, a, b, c)
	var rest []*node
	for _, n := range []*node{a, b, c} {
		if n != lead {
			rest = append(rest, n)
		}
	}
	eio := errors.New("fdatasync: input/output error")
	lead.store.commit = func(func(*bolt.Tx) error) error { return eio }
	if _, _, err := lead.Propose(soon(t), state.Encode(state.Tick{ElapsedMs: 7})); !errors.Is(err, ErrDisk) {
		t.Errorf("propose: %v, want %v", err, ErrDisk)
	}
	wait(t, "the disk's state is published", lead.Disk(), func(err error) bool { return errors.Is(err, eio) })
	leaderOf(t, rest...)
	wait(t, "it does not lead", lead.Leadership(), func(l Leadership) bool { return !l.Self })
	if _, _, err := lead.Propose(soon(t), state.Encode(state.Tick{ElapsedMs: 7})); !errors.Is(err, ErrDisk) {
		t.Errorf("propose again: %v, want %v", err, ErrDisk)
	}
	if err := lead.Elect(); !errors.Is(err, ErrDisk) {
		t.Errorf("elect: %v, want %v", err, ErrDisk)
	}
	rest[0].tick(1000)
	lead.kill()
	lead.start()
	lead.applied(lead.tick(1))
}

// The leader's disk hangs. Raft would lead on, since heartbeats need no disk; another node is asked to.
func TestHangingDiskGivesLeadershipAway(t *testing.T) {
	w := newWorld(t)
	a, b, c := w.three()
	lead := leaderOf(t, a, b, c)
	release := make(chan struct{})
	works := lead.store.commit
	lead.store.commit = func(f func(*bolt.Tx) error) error { <-release; return works(f) }
	asked := make(chan error, 1)
	go func() {
		_, _, err := lead.Propose(context.Background(), state.Encode(state.Tick{ElapsedMs: 1}))
		asked <- err
	}()
	var rest []*node
	for _, n := range []*node{a, b, c} {
		if n != lead {
			rest = append(rest, n)
		}
	}
	rest[0].applied(leaderOf(t, rest...).tick(1))
	close(release)
	if err := <-asked; err != nil && !errors.Is(err, ErrUnknownOutcome) {
		t.Errorf("the proposal that hung: %v", err)
	}
	lead.applied(rest[0].tick(1))
	if err := lead.Disk().Get(); err != nil {
		t.Errorf("a disk that was slow counts as failed: %v", err)
	}
}

// What was written since the last snapshot makes the next one due, however few entries it was.
func TestSnapshotsGoByBytes(t *testing.T) {
	w := newWorld(t)
	a := w.found("a")
	index := a.tick(1)
	a.store.written.Store(snapshotBytes)
	for ctx := soon(t); a.Stats().SnapshotIndex < index; {
		if ctx.Err() != nil {
			t.Fatalf("no snapshot: %+v", a.Stats())
		}
		time.Sleep(5 * time.Millisecond)
	}
	a.stop()
	a.start()
	if wait(t, "state from the snapshot", a.machine.Views(), func(v *state.View) bool { return v.Founded() }); a.machine.LogTime() != 1 {
		t.Errorf("log time %d, want 1", a.machine.LogTime())
	}
}

// Damaged files are refused with what to do about it.
func TestDamageIsRefusedWithTheWayOut(t *testing.T) {
	w := newWorld(t)
	a := w.found("a")
	for range 20 {
		a.tick(1)
	}
	if err := a.raft.Snapshot().Error(); err != nil {
		t.Fatal(err)
	}
	a.stop()
	snaps, _ := filepath.Glob(filepath.Join(a.dir, snapDir, "*", "state.bin"))
	if len(snaps) != 1 {
		t.Fatalf("snapshots: %v", snaps)
	}
	db := filepath.Join(a.dir, fileStore)
	for _, tc := range []struct {
		name, file string
		damage     func([]byte) []byte
	}{
		{"database cut off", db, func(b []byte) []byte { return b[:len(b)/3] }},
		{"database overwritten", db, func(b []byte) []byte { return []byte(strings.Repeat("no database ", 4000)) }},
		{"snapshot cut off", snaps[0], func(b []byte) []byte { return b[:len(b)-1] }},
		{"snapshot changed", snaps[0], func(b []byte) []byte { b[len(b)/2] ^= 1; return b }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			whole, err := os.ReadFile(tc.file)
			if err != nil {
				t.Fatal(err)
			}
			defer os.WriteFile(tc.file, whole, 0o600)
			os.WriteFile(tc.file, tc.damage(slices.Clone(whole)), 0o600)
			_, err = Open(a.options())
			for _, want := range []string{strings.TrimSuffix(tc.file, "/state.bin"), "skein node remove a", "skein cluster join", "mv " + a.dir} {
				if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), want) {
					t.Fatalf("got %v, want %v that says %q", err, ErrCorrupt, want)
				}
			}
		})
	}
	a.start()
	a.tick(1)
	if _, err := Open(a.options()); !errors.Is(err, errBusy) {
		t.Errorf("open what another agent has open: %v", err)
	}
}

// A slow write is remembered when faster ones follow, a newer one takes its place, and one that still waits comes before both.
func TestTheNewestSlowWriteIsKnown(t *testing.T) {
	var l latency
	at := func(s int) time.Time { return time.Unix(1_700_000_000+int64(s), 0) }
	for i, c := range []struct {
		took, waits time.Duration
		want        SlowWrite
	}{
		{slowWrite - 1, 0, SlowWrite{}},
		{slowWrite, 0, SlowWrite{slowWrite, at(1)}},
		{time.Millisecond, slowWrite - 1, SlowWrite{slowWrite, at(1)}},
		{time.Millisecond, 5 * time.Second, SlowWrite{5 * time.Second, at(3)}},
		{2 * slowWrite, 0, SlowWrite{2 * slowWrite, at(4)}},
	} {
		l.add(c.took, at(i))
		if got := l.newestSlow(c.waits, at(i)); got != c.want {
			t.Errorf("after write %d: %+v, want %+v", i, got, c.want)
		}
	}
}
