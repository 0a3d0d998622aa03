package cluster

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"
)

// What a calm writer writes is what it was given, in steps of a chunk at most; after each full one the pages are sent on their way
// and the writer rests.
func TestCalmWriterRestsAfterEveryChunk(t *testing.T) {
	var got bytes.Buffer
	flushed, rests := 0, 0
	w := &calmWriter{
		w: &got,
		flush: func() error {
			if flushed++; got.Len() != flushed*calmChunk {
				t.Errorf("flush %d after %d bytes, want %d", flushed, got.Len(), flushed*calmChunk)
			}
			return nil
		},
		rest: func(d time.Duration) {
			if rests++; d < 0 {
				t.Errorf("a rest of %v", d)
			}
		},
	}
	want := bytes.Repeat([]byte("0123456789abcde"), (3*calmChunk+calmChunk/2)/15)
	for rest := want; len(rest) > 0; {
		n, err := w.Write(rest[:min(len(rest), 300_007)])
		if err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Error("the bytes that arrived are not those that were written")
	}
	if flushed != 3 || rests != 3 {
		t.Errorf("%d flushes and %d rests, want 3 and 3", flushed, rests)
	}
}

// A node that stops has a snapshot finished without rests.
func TestASnapshotHurriesWhenTheNodeStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hurry := make(chan struct{})
		s := fsmSnapshot{hurry: hurry}
		start := time.Now()
		s.rest(time.Minute)
		if got := time.Since(start); got != time.Minute {
			t.Errorf("rested %v, want a minute", got)
		}
		time.AfterFunc(time.Second, func() { close(hurry) })
		start = time.Now()
		s.rest(time.Minute)
		s.rest(time.Minute)
		if got := time.Since(start); got != time.Second {
			t.Errorf("rested %v when the node stopped after a second", got)
		}
	})
}

// Raft never answers what is under way when it shuts down: the node first waits for the answers, lets nothing more in, and gives up
// after a while.
func TestNothingIsAskedOfRaftOnceTheNodeStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a asked
		for range 2 {
			if !a.begin() {
				t.Fatal("refused before it was closed")
			}
		}
		time.AfterFunc(10*time.Millisecond, a.end)
		time.AfterFunc(30*time.Millisecond, a.end)
		start := time.Now()
		if !a.close(time.Second) {
			t.Error("gave up although all was answered")
		}
		if got := time.Since(start); got != 30*time.Millisecond {
			t.Errorf("waited %v, the last answer came after 30 ms", got)
		}
		if a.begin() {
			t.Error("let in after it was closed")
		}

		var stuck asked
		stuck.begin()
		start = time.Now()
		if stuck.close(time.Second) {
			t.Error("says that all was answered")
		}
		if got := time.Since(start); got != time.Second {
			t.Errorf("waited %v for an answer that never came, want a second", got)
		}
		stuck.end()

		var idle asked
		if !idle.close(time.Second) {
			t.Error("waited for nothing")
		}
	})
}
