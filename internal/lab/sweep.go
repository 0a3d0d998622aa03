package lab

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// The environment variables by which this program knows what it was started again for.
const (
	envSweep   = "SKEIN_LAB_SWEEP"
	envEntered = "SKEIN_LAB_ENTERED"
)

// sweeper is a helper process that kills what is left in the lab's namespaces when the lab has ended, in whatever way: it
// sees the end of a pipe, which the kernel closes after a panic or a SIGKILL too. Programs that were started by programs (a
// daemon that outlives its parent on purpose) are found that way and no other.
type sweeper struct {
	cmd  *exec.Cmd
	pipe io.WriteCloser
}

func startSweeper() (*sweeper, error) {
	if !entered {
		return nil, errors.New("lab.Enter was not called first thing in main (in a test: TestMain)")
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{os.Args[0], "lab-sweeper"}
	cmd.Env = append(os.Environ(), envSweep+"=1")
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // no signal from the terminal reaches it
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start the lab's sweeper: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the lab's sweeper: %w", err)
	}
	return &sweeper{cmd, pipe}, nil
}

// add names one more namespace to sweep.
func (s *sweeper) add(inode uint64) error {
	if _, err := fmt.Fprintln(s.pipe, inode); err != nil {
		return fmt.Errorf("tell the lab's sweeper: %w", err)
	}
	return nil
}

// stop lets it sweep and waits for its end.
func (s *sweeper) stop() error {
	s.pipe.Close()
	if err := s.cmd.Wait(); err != nil {
		return fmt.Errorf("the lab's sweeper: %w", err)
	}
	return nil
}

// sweep is the helper's whole life.
func sweep(names io.Reader) error {
	var inodes []uint64
	for lines := bufio.NewScanner(names); lines.Scan(); {
		n, err := strconv.ParseUint(strings.TrimSpace(lines.Text()), 10, 64)
		if err != nil {
			return fmt.Errorf("read a namespace's number: %w", err)
		}
		inodes = append(inodes, n)
	}
	if len(inodes) == 0 {
		return nil
	}
	return killAllIn(inodes)
}
