package docs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// world is what a page's commands run in: the shell of `skein demo --shell`, on the client of three nodes, with a loopback of its
// own and an empty working directory. So a page may show a cluster as well as `skein run` on local ports.
type world struct {
	dir   string
	in    io.WriteCloser
	lines chan string // what the shell and its commands print; closed at the end
	jobs  int         // commands in the background so far
	end   func()      // takes it down; may be called again
}

// Bounds of a page.
const (
	pageTime = 90 * time.Second // to build a world and run a page in it; some 10 s on a quiet machine
	stepTime = 15 * time.Second // for one command
	fitTime  = 8 * time.Second  // for a question to get the answer that the page shows: nodes are missed after seconds
)

func newWorld(t *testing.T, binary string) *world {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), pageTime) // t's own ends before its clean-up
	cmd := exec.CommandContext(ctx, binary, "demo", "--shell")
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) } // it cleans up
	cmd.WaitDelay = 10 * time.Second
	w := &world{dir: t.TempDir(), lines: make(chan string, 4096)}
	cmd.Dir = w.dir
	cmd.Env = append(os.Environ(), "SHELL=/bin/sh", "NO_COLOR=1", "TZ=UTC")
	r, pw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = pw, pw // one file: the order of lines is that of a terminal
	if w.in, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pw.Close()
	go func() { // ends with the last writer of the pipe
		defer close(w.lines)
		defer r.Close()
		s := bufio.NewScanner(r)
		for s.Scan() {
			w.lines <- s.Text()
		}
	}()
	w.end = sync.OnceFunc(func() {
		w.in.Close() // the end of the shell's input is the end of the world
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		for range w.lines {
		}
		if err := <-ended; err != nil && !t.Failed() {
			t.Errorf("skein demo --shell: %v", err)
		}
		cancel()
	})
	t.Cleanup(w.end)
	if out, err := w.run("true"); err != nil {
		if strings.Contains(out, "namespace") && os.Getuid() != 0 {
			t.Skipf("this user may not build a network here: %s", out)
		}
		t.Fatalf("no world: %v\n%s", err, out)
	}
	return w
}

var ended = regexp.MustCompile(`^=== end (\d+) ===$`)

// run runs a command line in the shell and returns what it printed.
func (w *world) run(command string) (string, error) {
	// The command sees the status of the one before it, and so does the next.
	if _, err := fmt.Fprintf(w.in, "%s\nstatus=$?; printf '\\n=== end %%d ===\\n' $status; (exit $status)\n", command); err != nil {
		return w.rest(), err
	}
	var out strings.Builder
	timeout := time.After(stepTime + fitTime)
	for {
		select {
		case line, ok := <-w.lines:
			if !ok {
				return out.String(), fmt.Errorf("the shell has ended")
			}
			if ended.MatchString(line) {
				return out.String(), nil
			}
			out.WriteString(line + "\n")
		case <-timeout:
			return out.String(), fmt.Errorf("%q did not end within %v", command, stepTime+fitTime)
		}
	}
}

func (w *world) rest() string {
	var out strings.Builder
	for line := range w.lines {
		out.WriteString(line + "\n")
	}
	return out.String()
}

// question matches commands that change nothing, at least not a second time: they are asked again until the answer is the one shown, as a
// person would.
var question = regexp.MustCompile(`^(skein (status|plan|vip (list|explain)|node list|backend list|server (list|drain|enable|disable|weight)|show)|curl) `)

// step runs a step of a page.
func (w *world) step(s *step) error {
	want := masked(s.want, false)
	command, again := s.command, question.MatchString(s.command+" ") && !strings.Contains(s.command, ">")
	look := func() (string, error) { return w.run(command) }
	if job, ok := strings.CutSuffix(s.command, " &"); ok {
		// What it prints later is its own; wait until it has printed what is shown.
		w.jobs++
		log := filepath.Join(w.dir, "."+strconv.Itoa(w.jobs)+".log")
		if _, err := w.run(fmt.Sprintf("%s >%s 2>&1 &", job, log)); err != nil {
			return err
		}
		again = true
		look = func() (string, error) {
			b, err := os.ReadFile(log)
			if errors.Is(err, fs.ErrNotExist) {
				err = nil // the shell has not come to it yet
			}
			return string(b), err
		}
	}
	s.failed = false
	var err error
	for deadline := time.Now().Add(fitTime); ; {
		if s.got, err = look(); err != nil {
			return err
		}
		// To a question the page must show an answer: the first try may come too early for one.
		if fits(want, masked(s.got, false)) && !(again && want == "") {
			return nil
		}
		if !again || time.Now().After(deadline) {
			s.failed = true
			return nil
		}
		time.Sleep(50 * time.Millisecond) // between two questions: nothing tells when the answer changes
	}
}
