package vip

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
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

// The runtime does not hear of the loop's wait. Whoever stops the world, as a collection does, must not wait for the end of it.
func TestTheWorldStopsWhileTheLoopWaits(t *testing.T) {
	if os.Getenv(realTimeChild) == "" {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), realTimeChild+"=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	settle()
	end, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for range 20 {
			runtime.GC()
		}
		unix.Write(end, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	}()
	poll := waiting()
	fds := []unix.PollFd{{Fd: int32(end), Events: unix.POLLIN}}
	for fds[0].Revents == 0 {
		timeout := unix.NsecToTimespec(int64(time.Hour))
		if _, err := poll(fds, &timeout); err != nil && err != unix.EINTR {
			t.Fatal(err)
		}
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

// Whatever a loop does between its waits: while it never sleeps, it rests in time, and while it sleeps by itself, it never does.
func TestALoopThatIsNeverIdleRests(t *testing.T) {
	for _, c := range []struct {
		what       string
		work, wait int64 // a turn of the loop
		sleeps     bool  // in the wait
		rests      bool
	}{
		{"a flood", 30_000, 300, false, true},
		{"a flood of what takes long", 7 * ms, 300, false, true},
		{"waits in which others had the processor", 100_000, 5 * ms, false, true},
		{"a busy network", ms, 50_000, true, false},
		{"heartbeats", 100_000, 5 * ms, true, false},
	} {
		now, slept := int64(1e9), int64(7)
		b := breather{every: restEvery, sleeps: func() int64 { return slept }}
		last, longest, rests := now, int64(0), 0
		for now < 11e9 {
			now += c.wait
			if c.sleeps {
				slept++
			}
			if b.due(now) {
				longest = max(longest, now-last)
				rests++
				now += restFor
				slept++
				last = now
			}
			now += c.work
		}
		if !c.rests && rests > 0 {
			t.Errorf("%s: it rests %d times, though it sleeps", c.what, rests)
		}
		if c.rests && (rests < 20 || longest > 2*(restEvery+c.work+c.wait)) {
			t.Errorf("%s: it rests %d times in 10 s, and goes on for %d ms without", c.what, rests, longest/ms)
		}
	}
	b := breather{every: restEvery, sleeps: func() int64 { return 0 }}
	if !b.due(1e9) || !b.due(1e9+1) {
		t.Error("a rest that was interrupted at once counts as one")
	}
}

// The kernel's word for it: a thread that sleeps has slept, and one that only waits without end has not.
func TestThreadSleepsAreCounted(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before := threadSleeps()
	for n := before; n == before; n = threadSleeps() {
		timeout := unix.NsecToTimespec(ms)
		_, _ = unix.Ppoll(nil, &timeout, nil)
	}
}

// The guard's own loop in a flood that does not end, on one processor in real time: the kernel, which kills who does not sleep, leaves it alone.
// The flood is a descriptor that is always readable, so that no sender can be too slow. All times are a tenth of what they are, or less: Go's
// runtime, on one processor, makes such a thread sleep every 200 ms or so, which is nothing to rely on.
func TestAFloodDoesNotKillTheGuard(t *testing.T) {
	if os.Getenv(realTimeChild) == "" {
		if err, out := onOneProcessor(t); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	rt, _ := settle()
	if !rt {
		t.Fatal("not in real time")
	}
	const most = 150 * time.Millisecond
	limit := unix.Rlimit{Cur: uint64(most.Microseconds()), Max: uint64(most.Microseconds())}
	if err := unix.Setrlimit(unix.RLIMIT_RTTIME, &limit); err != nil {
		t.Fatal(err)
	}
	flood, err := unix.Eventfd(1, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	g := newGuard(GuardOptions{Linger: 900 * time.Millisecond})
	g.log = slog.New(slog.DiscardHandler)
	g.ctl, g.links, g.arp, g.keeper.fd = &controlServer{listen: -1}, &linkLayer{eventFd: -1}, &arpSocket{fd: -1}, -1
	g.wakeFd, g.rest.every = flood, restEvery/20
	g.m = newMachine(g.now(), 1, rt)
	g.orphan = g.m.start
	start := g.now()
	if err := g.loop(); err != nil { // until it has lingered, which it looks at once a second
		t.Fatal(err)
	}
	if d := time.Duration(g.now() - start); d < 2*most {
		t.Fatalf("it ended after %v, want a flood of %v at least", d, 2*most)
	}
}
