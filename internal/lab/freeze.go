package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ErrMainThread is why a program's main thread cannot be frozen: whoever waits for the program's end would hear that it stopped.
var ErrMainThread = errors.New("it is the main thread")

// Threads returns the threads of the program by id, with the names that it gave them.
func (p *Process) Threads() (map[int]string, error) {
	dir := fmt.Sprintf("/proc/%d/task", p.Pid)
	list, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list the threads of process %d: %w", p.Pid, err)
	}
	named := map[int]string{}
	for _, e := range list {
		tid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if comm, err := os.ReadFile(filepath.Join(dir, e.Name(), "comm")); err == nil { // else it has just ended
			named[tid] = strings.TrimSpace(string(comm))
		}
	}
	return named, nil
}

// Freeze stops one thread of a program, as a lock that is never released or a system call that does not return would: the others run
// on. It lasts until thaw is called or this program ends. A debugger's system calls do it, so that no debugger can be attached meanwhile.
func Freeze(tid int) (thaw func() error, err error) {
	if tgid(tid) == tid {
		return nil, fmt.Errorf("freeze thread %d: %w", tid, ErrMainThread)
	}
	frozen, release, thawed := make(chan error), make(chan struct{}), make(chan error, 1)
	onOwnThread(func() { // the kernel lets go of a tracee when the thread that traces it ends
		err := seize(tid)
		frozen <- err
		if err != nil {
			return
		}
		<-release
		thawed <- unix.PtraceDetach(tid)
	})
	if err := <-frozen; err != nil {
		return nil, fmt.Errorf("freeze thread %d: %w", tid, err)
	}
	return func() error {
		close(release)
		if err := <-thawed; err != nil && err != unix.ESRCH { // it may have died meanwhile
			return fmt.Errorf("thaw thread %d: %w", tid, err)
		}
		return nil
	}, nil
}

// seize traces a thread and stops it.
func seize(tid int) error {
	if err := unix.PtraceSeize(tid); err != nil {
		return os.NewSyscallError("ptrace", err)
	}
	if err := unix.PtraceInterrupt(tid); err != nil {
		unix.PtraceDetach(tid)
		return os.NewSyscallError("ptrace", err)
	}
	for deadline := time.Now().Add(5 * time.Second); ; {
		var st unix.WaitStatus
		got, err := unix.Wait4(tid, &st, unix.WALL|unix.WNOHANG, nil)
		switch {
		case err != nil && err != unix.EINTR:
			return os.NewSyscallError("wait4", err)
		case got == tid && st.Stopped():
			return nil
		case got == tid:
			return fmt.Errorf("it has ended")
		case time.Now().After(deadline):
			return fmt.Errorf("it does not stop")
		}
		runtime.Gosched()
		time.Sleep(100 * time.Microsecond) // wait4 of one thread has nothing else to wait on
	}
}

// tgid is the program that a thread belongs to, 0: there is no such thread.
func tgid(tid int) int {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", tid))
	if err != nil {
		return 0
	}
	pid := 0
	if _, rest, ok := strings.Cut(string(status), "\nTgid:"); ok {
		fmt.Sscan(rest, &pid)
	}
	return pid
}
