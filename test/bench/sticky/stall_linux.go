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
