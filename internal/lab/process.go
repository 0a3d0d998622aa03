package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Process is a program that was started inside a host.
type Process struct {
	Host *Host
	Pid  int
	cmd  *exec.Cmd
	done chan struct{}
	err  error // valid once done is closed
}

// Command returns a command for Start: in a process group of its own, so that a ^C at the terminal is the lab's to handle,
// and killed when the lab dies.
func Command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	// A grandchild may outlive the program and keep its output open.
	cmd.WaitDelay = time.Second
	return cmd
}

// Start starts cmd inside the host.
func (h *Host) Start(cmd *exec.Cmd) (*Process, error) {
	if err := h.ns().do(cmd.Start); err != nil {
		return nil, fmt.Errorf("start %s on %s: %w", cmd.Path, h.Name, err)
	}
	p := &Process{Host: h, Pid: cmd.Process.Pid, cmd: cmd, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		if errors.Is(p.err, exec.ErrWaitDelay) {
			p.err = nil // the program itself ended well
		}
		close(p.done)
	}()
	return p, nil
}

// Output runs a short program inside the host and returns what it wrote to its standard output.
func (h *Host) Output(ctx context.Context, name string, args ...string) (string, error) {
	var out, errOut limitedBuffer
	cmd := Command(name, args...)
	cmd.Stdout, cmd.Stderr = &out, &errOut
	p, err := h.Start(cmd)
	if err != nil {
		return "", err
	}
	select {
	case <-p.Done():
	case <-ctx.Done():
		p.Kill()
		return out.String(), fmt.Errorf("%s on %s: %w", name, h.Name, context.Cause(ctx))
	}
	if err := p.Err(); err != nil {
		return out.String(), fmt.Errorf("%s on %s: %w: %s", name, h.Name, err, errOut.String())
	}
	return out.String(), nil
}

// Done is closed when the program has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err returns how it ended: nil after exit status 0. It waits until it has.
func (p *Process) Err() error {
	<-p.done
	return p.err
}

// Signal sends a signal to the program alone, not to what it started.
func (p *Process) Signal(sig os.Signal) error { return p.cmd.Process.Signal(sig) }

// Kill kills the program alone, as an out-of-memory killer would, and waits for its end.
func (p *Process) Kill() {
	p.cmd.Process.Kill()
	<-p.done
}

// Stop asks the program to end, and kills its whole group when it takes longer than patience.
func (p *Process) Stop(patience time.Duration) error {
	p.Signal(unix.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(patience):
		unix.Kill(-p.Pid, unix.SIGKILL)
		<-p.done
		return fmt.Errorf("process %d on %s did not end within %v of SIGTERM and was killed", p.Pid, p.Host.Name, patience)
	}
	return nil
}

// processesIn returns the processes whose network namespace is one of inodes; this process is never among them.
func processesIn(inodes []uint64) ([]int, error) {
	dir, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var want []string
	for _, n := range inodes {
		want = append(want, fmt.Sprintf("net:[%d]", n))
	}
	var pids []int
	for _, e := range dir {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		if ns, err := os.Readlink("/proc/" + e.Name() + "/ns/net"); err == nil && slices.Contains(want, ns) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

func signalAll(pids []int, sig unix.Signal) error {
	var errs []error
	for _, pid := range pids {
		if err := unix.Kill(pid, sig); err != nil && err != unix.ESRCH {
			errs = append(errs, fmt.Errorf("signal process %d: %w", pid, err))
		}
	}
	return errors.Join(errs...)
}

// killAllIn kills the processes inside the namespaces until a look finds none: a process may fork while it is looked at.
func killAllIn(inodes []uint64) error {
	deadline := time.Now().Add(10 * time.Second)
	for {
		pids, err := processesIn(inodes)
		if err != nil || len(pids) == 0 {
			return err
		}
		if err := signalAll(pids, unix.SIGKILL); err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("processes %v do not die", pids)
		}
		time.Sleep(time.Millisecond) // /proc has nothing to wait on
	}
}
