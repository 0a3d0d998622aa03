package main

import (
	"context"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// stalls sleeps a millisecond at a time on a thread of its own and returns by how much it was woken too late at worst: what the
// machine alone, busy with whatever else, adds to any figure.
func stalls(ctx context.Context) (worst time.Duration) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ts := unix.NsecToTimespec(int64(time.Millisecond))
	for ctx.Err() == nil {
		start := time.Now()
		_ = unix.Nanosleep(&ts, nil)
		worst = max(worst, time.Since(start)-time.Millisecond)
	}
	return worst
}

// quiet waits until the machine lets a thread sleep on time, at most for a while: others may be at work on it.
func quiet(ctx context.Context) {
	for until := time.Now().Add(quietWait); time.Now().Before(until) && ctx.Err() == nil; {
		look, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		late := stalls(look)
		cancel()
		if late < quietBelow {
			return
		}
	}
}

const (
	quietWait  = 20 * time.Second
	quietBelow = 3 * time.Millisecond
)

// cpuTime is what this process has used of the processors.
func cpuTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
