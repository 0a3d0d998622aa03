package lab

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// A frozen thread is stopped, the program's other threads are not, and it goes on when it is thawed.
func TestFreezeStopsOneThread(t *testing.T) {
	w, _ := world(t, "h")
	p := &Process{Pid: w.sweeper.cmd.Process.Pid} // a program with several threads, which is there already
	tid := 0
	for deadline := time.Now().Add(10 * time.Second); tid == 0; time.Sleep(time.Millisecond) { // its runtime starts them
		threads, err := p.Threads()
		must(t, err)
		for other := range threads {
			if other != p.Pid {
				tid = other
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("threads %v, want more than the main one", threads)
		}
	}
	thaw, err := Freeze(tid)
	must(t, err)
	if s := stateOf(t, p.Pid, tid); s != "t" {
		t.Errorf("a frozen thread is in state %q, want t", s)
	}
	if s := stateOf(t, p.Pid, p.Pid); s == "t" {
		t.Error("the main thread is frozen, too")
	}
	if _, err := Freeze(tid); err == nil {
		t.Error("a frozen thread could be frozen again")
	}
	must(t, thaw())
	if s := stateOf(t, p.Pid, tid); s == "t" {
		t.Error("a thawed thread is still frozen")
	}
	if _, err := Freeze(p.Pid); !errors.Is(err, ErrMainThread) {
		t.Errorf("freezing the main thread says %v, want %v", err, ErrMainThread)
	}
}

// stateOf is the letter that the kernel gives a thread.
func stateOf(t *testing.T, pid, tid int) string {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/stat", pid, tid))
	must(t, err)
	_, rest, _ := strings.Cut(string(stat), ") ")
	return rest[:1]
}
