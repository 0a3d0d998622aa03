package lab

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestPowerOffKillsAllAndPowerOnStartsClean(t *testing.T) {
	w, h := world(t, "client", "lb1")
	// A daemon that leaves its parent, its process group and its session, as a guard does.
	must(t, start(t, h[1], "setsid sleep 600 & setsid sleep 600 & wait"))
	within(t, "three processes run on lb1", func() bool { pids, err := h[1].Processes(); return len(pids) >= 3 && err == nil })
	echo, err := h[1].ServeEcho(7)
	must(t, err, h[1].AddAddr(netip.MustParsePrefix("198.18.0.100/32")))
	if !reaches(h[0], echo) {
		t.Fatal("lb1 is not reachable before")
	}
	must(t, h[1].PowerOff())
	if pids, err := h[1].Processes(); len(pids) != 0 || err != nil {
		t.Errorf("after the power was cut %v still run, %v", pids, err)
	}
	if reaches(h[0], echo) {
		t.Error("lb1 still answers")
	}
	must(t, w.Heal())
	if reaches(h[0], echo) {
		t.Error("healing the wire switched lb1 on")
	}
	must(t, h[1].PowerOn())
	addrs, err := h[1].Addrs()
	must(t, err)
	if strings.Contains(fmt.Sprint(addrs), "198.18.0.100") {
		t.Errorf("an address survived the power cut: %v", addrs)
	}
	echo, err = h[1].ServeEcho(7)
	must(t, err)
	within(t, "lb1 is reachable again", func() bool { return reaches(h[0], echo) })
}

// start starts a shell script inside a host and leaves it to the host's end.
func start(t *testing.T, h *Host, script string) error {
	t.Helper()
	_, err := h.Start(Command("/bin/sh", "-c", script))
	return err
}

func TestProcessesAreStoppedSignalledAndAwaited(t *testing.T) {
	_, h := world(t, "a")
	var out bytes.Buffer
	cmd := Command("/bin/sh", "-c", `trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.01; done`)
	r, wr, err := os.Pipe()
	must(t, err)
	defer r.Close()
	cmd.Stdout = wr
	p, err := h[0].Start(cmd)
	must(t, err)
	wr.Close()
	lines := bufio.NewReader(io.TeeReader(r, &out))
	_, err = lines.ReadString('\n')
	must(t, err)
	must(t, p.Stop(10*time.Second))
	if err := p.Err(); err != nil {
		t.Errorf("it ended with %v, want status 0", err)
	}
	io.Copy(io.Discard, lines)
	if out.String() != "up\nbye\n" {
		t.Errorf("it wrote %q, want up and bye", out.String())
	}
	deaf, err := h[0].Start(Command("/bin/sh", "-c", `trap '' TERM; while :; do sleep 0.01; done`))
	must(t, err)
	within(t, "it ignores SIGTERM", func() bool {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", deaf.Pid))
		_, rest, _ := strings.Cut(string(b), "SigIgn:\t")
		word, _, _ := strings.Cut(rest, "\n")
		ignored, err := strconv.ParseUint(word, 16, 64) // others may be ignored too: a background job inherits SIGINT and SIGQUIT so
		return err == nil && ignored&(1<<(unix.SIGTERM-1)) != 0
	})
	if err := deaf.Stop(50 * time.Millisecond); err == nil {
		t.Error("Stop says nothing of having killed a process that ignores SIGTERM")
	}
	if _, err := h[0].Start(Command("/no/such/program")); err == nil {
		t.Error("a program that does not exist was started")
	}
	stopped, err := h[0].Start(Command("sleep", "600"))
	must(t, err)
	must(t, h[0].Signal(unix.SIGSTOP))
	within(t, "it is stopped", func() bool {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", stopped.Pid))
		return strings.Contains(string(b), ") T ")
	})
	stopped.Kill()
	if stopped.Err() == nil {
		t.Error("a killed process ended without an error")
	}
}
