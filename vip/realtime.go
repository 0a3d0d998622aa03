package vip

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe" // unsafe: a system call that the runtime is not told of takes addresses

	"golang.org/x/sys/unix"
)

// priority is below what a kernel's own threads use and above everything ordinary.
const priority = 20

// unrest is for how long a thread may run in real time without ever sleeping. Then the kernel kills the process: something is wrong with
// it, and everything else on its processor stands still. What it holds lapses by itself, and it is started anew.
const unrest = 2 * time.Second

// memoryMost is what the process may have before it collects its garbage: 7 MB of heap, of which 1 MB is in use.
const memoryMost = 16 << 20

// settle makes the process as punctual as it may be: no garbage collection while the heap is small, memory locked, all threads
// in real time. What is not permitted is left out; the answers say so. The calling goroutine keeps its thread.
func settle() (realTime, locked bool) {
	runtime.LockOSThread()
	// Go's runtime waits for its own threads by turns of a loop (the sweeper for who sweeps, a mark assist for who marks), and in real time
	// that waits for ever when the other thread has to have this very processor: measured with one processor and two threads that may
	// run Go, after the first collection. So there is never more than one for each processor.
	runtime.GOMAXPROCS(min(2, runtime.NumCPU()))
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(memoryMost)
	locked = lockMemory() == nil
	most := uint64(unrest.Microseconds())
	_ = unix.Setrlimit(unix.RLIMIT_RTTIME, &unix.Rlimit{Cur: most, Max: most}) // refused where it is lower already
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return false, locked
	}
	// All threads: the loop waits for the runtime's own now and then. Threads made later inherit. SCHED_RR, not SCHED_FIFO: to others they are
	// the same, and where threads of this process wait for one another, turns of 100 ms end what would not end.
	realTime = true
	for _, t := range tasks {
		tid, _ := strconv.Atoi(t.Name())
		a := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_RR, Priority: priority}
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

// waiting is how the loop waits. With a processor to spare the runtime does not hear of it: told of each wait, it takes the loop's place from it
// and gives it back some hundred times a second, and its monitor, woken by that, looks fifty times at intervals of 20 us before it calms down. That was
// half of what an idle guard cost (three nodes, profile fast: 5.0 to 6.9 % of a slow virtual processor and 1,800 to 2,400 switches of threads a
// second; without, 2.5 to 3.5 % and 600 to 700). The price: whoever stops the world does it by a signal, which ends the wait. Alone on one processor the
// runtime must hear of it, or nothing else of the process would run.
func waiting() func(fds []unix.PollFd, timeout *unix.Timespec) (int, error) {
	if runtime.GOMAXPROCS(0) > 1 {
		return pollRaw
	}
	return func(fds []unix.PollFd, timeout *unix.Timespec) (int, error) { return unix.Ppoll(fds, timeout, nil) }
}

func pollRaw(fds []unix.PollFd, timeout *unix.Timespec) (int, error) {
	n, _, e := syscall.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(unsafe.SliceData(fds))), uintptr(len(fds)), uintptr(unsafe.Pointer(timeout)), 0, 0, 0)
	if e != 0 {
		return 0, e
	}
	return int(n), nil
}

// breather says when a loop has to rest that is never idle, as in a flood of packets: others need this processor, and who never rests is
// killed, see settle. Whether the thread has slept is the kernel's word: a wait that took long may have been that of a thread which another one
// kept from its processor, and for the limit that is no sleep (seen: the guard was killed while the machine was busy).
type breather struct {
	every  int64
	sleeps func() int64 // how often this thread has slept

	at   int64 // when to ask next
	seen int64 // what it said then
}

const (
	restEvery = 200 * ms // a thread may go on for twice as long: it may have slept just after it was asked
	restFor   = 2 * ms
)

// due returns whether to rest now.
func (r *breather) due(now int64) bool {
	if now < r.at {
		return false
	}
	n := r.sleeps()
	if n == r.seen {
		return true
	}
	r.seen, r.at = n, now+r.every
	return false
}

// threadSleeps counts how often the calling thread has given up its processor by itself.
func threadSleeps() int64 {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_THREAD, &u) != nil {
		return 0
	}
	return u.Nvcsw
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
