package vip

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// fifoPriority is below what a kernel's own threads use and above everything ordinary.
const fifoPriority = 20

// settle makes the process as punctual as it may be: no garbage collection while the heap is small, memory locked, all threads
// in real time. What is not permitted is left out; the answers say so. The calling goroutine keeps its thread.
func settle() (realTime, locked bool) {
	runtime.LockOSThread()
	runtime.GOMAXPROCS(2)
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(64 << 20) // the heap lives in 2 MB; this is for the leak that nobody has found yet
	locked = lockMemory() == nil
	realTime = true
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return false, locked
	}
	// All threads: the loop waits for the runtime's own now and then. Threads made later inherit.
	for _, t := range tasks {
		tid, _ := strconv.Atoi(t.Name())
		a := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: fifoPriority}
		if err := unix.SchedSetAttr(tid, &a, 0); err != nil {
			realTime = false
		}
	}
	return realTime, locked
}

// lockMemory keeps what was touched from being paged out, and the program itself in memory before it is needed: the page that a
// fail-over runs through must not come from a stalled disk. Not MCL_CURRENT alone, which fills Go's reserved 64 MB of heap (0.5 s
// and 100 MB, measured); not MCL_FUTURE, with which an allocation beyond the limit is fatal.
func lockMemory() error {
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_ONFAULT); err != nil {
		return fmt.Errorf("lock memory: %w", err)
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(maps)) {
		var from, to uintptr
		var perm string
		if n, _ := fmt.Sscanf(line, "%x-%x %s", &from, &to, &perm); n == 3 && perm == "r-xp" {
			unix.Syscall(unix.SYS_MLOCK, from, to-from, 0) // best effort: the kernel's own pages refuse
		}
	}
	return nil
}

// procState reads the state letter of a process again and again through one descriptor, without allocating.
type procState struct {
	fd  int
	buf [512]byte
}

func openProcState(pid int) *procState {
	fd, err := unix.Open("/proc/"+strconv.Itoa(pid)+"/stat", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		fd = -1
	}
	return &procState{fd: fd}
}

// state is the letter of /proc/PID/stat, 0 when the process is gone, and R when it can't be known.
func (p *procState) state() byte {
	if p.fd < 0 {
		return 'R'
	}
	n, err := unix.Pread(p.fd, p.buf[:], 0)
	if err == unix.ESRCH {
		return 0
	}
	// "pid (name) S ...": the name may hold anything, so the last parenthesis counts.
	for i := n - 1; i >= 0; i-- {
		if p.buf[i] == ')' && i+2 < n {
			return p.buf[i+2]
		}
	}
	return 'R'
}

func (p *procState) close() {
	if p.fd >= 0 {
		unix.Close(p.fd)
	}
}
