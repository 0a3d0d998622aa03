package vip

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// These tests run themselves again as a process on one processor, in real time as a guard is.
const realTimeChild = "SKEIN_REALTIME_TEST"

var garbage []byte

func onOneProcessor(t *testing.T) (error, string) {
	t.Helper()
	a := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_RR, Priority: 1}
	done := make(chan error)
	go func() { // the thread ends with its goroutine, which never unlocks it
		runtime.LockOSThread()
		done <- unix.SchedSetAttr(0, &a, 0)
	}()
	if err := <-done; err != nil {
		t.Skip("this process may not run in real time: ", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), realTimeChild+"=1", "GODEBUG=asyncpreemptoff=1") // what is preempted has slept
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	go func() {
		runtime.LockOSThread()
		var all, one unix.CPUSet
		err := unix.SchedGetaffinity(0, &all)
		for cpu := 0; err == nil && one.Count() == 0; cpu++ {
			if all.IsSet(cpu) {
				one.Set(cpu)
			}
		}
		if err == nil {
			err = unix.SchedSetaffinity(0, &one) // the child has it from this thread
		}
		if err == nil {
			err = cmd.Start()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	err := cmd.Wait()
	if ctx.Err() != nil {
		t.Fatalf("it did not end\n%s", out.String())
	}
	return err, out.String()
}

// A guard collects its garbage even where it has one processor and no other thread of its own can run beside it. It once did not: the
// collector and the loop waited for one another in real time, and the whole machine stood still.
func TestAGuardCollectsItsGarbageOnOneProcessor(t *testing.T) {
	if os.Getenv(realTimeChild) == "" {
		if err, out := onOneProcessor(t); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	if rt, _ := settle(); !rt {
		t.Fatal("not in real time")
	}
	keep := make([][]byte, 20_000)
	for i := range keep {
		keep[i] = make([]byte, 100)
	}
	var stats runtime.MemStats
	rest := unix.NsecToTimespec(ms)
	for n := 0; stats.NumGC < 10; n++ {
		_, _ = unix.Ppoll(nil, &rest, nil)
		for i := range 100 {
			garbage = make([]byte, 10_000)
			keep[(100*n+i)%len(keep)] = slices.Clone(garbage[:100])
		}
		runtime.ReadMemStats(&stats)
	}
}

// A guard with a loop that never ends is killed by the kernel after two seconds: it would keep its processor from everybody else.
func TestAGuardThatNeverRestsIsKilled(t *testing.T) {
	if os.Getenv(realTimeChild) == "" {
		err, _ := onOneProcessor(t)
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Errorf("it ended with %v, want it killed", err)
		}
		return
	}
	if rt, _ := settle(); !rt {
		t.Fatal("not in real time")
	}
	for n := 1; n != 0; n += 2 { // without a call, and without an end
	}
}
