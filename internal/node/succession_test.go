package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/engine"
	"github.com/skeinlb/skein/healthcheck"
	"github.com/skeinlb/skein/state"
	"github.com/skeinlb/skein/vip"
)

// What an agent hands over arrives whole and in order at the process that follows it, whose descriptors are others of the same files.
func TestSocketsGoFromAgentToSuccessor(t *testing.T) {
	ours, theirs, err := pair()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := connOf(theirs)
	if err != nil {
		t.Fatal(err)
	}
	var all []engine.Sockets
	for i := range 90 { // more than fit a packet
		s := engine.Sockets{Addr: netip.AddrPortFrom(netip.MustParseAddr("192.0.2.10"), uint16(1000+i))}
		for range 2 {
			fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
			if err != nil {
				t.Fatal(err)
			}
			s.FDs = append(s.FDs, fd)
		}
		defer s.Close()
		all = append(all, s)
	}
	if n := len(packets(all)); n != 2 {
		t.Errorf("%d packets for 180 descriptors, want 2", n)
	}
	h := &heir{conn: ours, ended: make(chan struct{})}
	given := make(chan error, 1)
	go func() {
		given <- h.give(context.Background(), all, take{Loops: 2, Applied: 7, Down: []string{"api/a1"}})
	}()

	i := &Inheritance{conn: conn}
	if err := i.Take("v2"); err != nil {
		t.Fatal(err)
	}
	if len(i.sockets) != 90 || i.sockets[89].Addr != all[89].Addr || len(i.sockets[89].FDs) != 2 || i.take.Applied != 7 {
		t.Errorf("%d sockets, take %+v", len(i.sockets), i.take)
	}
	for _, s := range i.sockets {
		for _, fd := range s.FDs {
			if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
				t.Fatalf("descriptor %d: flags %x, %v: it would be inherited further", fd, flags, err)
			}
		}
		s.Close()
	}
	i.Refuse(os.ErrPermission)
	if err := <-given; err == nil {
		t.Error("a successor that refused was taken for one that serves")
	}
}

// The largest that a configuration and a failure make of a Take still arrives: more servers down than fit, each with the longest names, after
// a successor that failed with as much to say as it may, none of which is as short in JSON. The text of a failure was not cut: then neither the
// next process nor one more of this binary could follow, and the address was lost.
func TestTheLargestTakeFitsAPacket(t *testing.T) {
	long := strings.Repeat("n", 63)
	var down []string
	for i := range 5000 {
		down = append(down, fmt.Sprintf("%s/%s%04d", long, long[4:], i))
	}
	ours, theirs, err := pair()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	conn, err := connOf(theirs)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	all := take{Loops: 64, Applied: 1<<64 - 1, Down: fitting(down, downMax), Failed: &failedUpgrade{
		PID: 1 << 22, Version: long + long, Why: cut(errors.New(strings.Repeat("\x01", packetMax))), At: time.Now(),
	}}
	if err := say(ours, toHeir{Take: &all}); err != nil {
		t.Fatal(err)
	}
	i := &Inheritance{conn: conn}
	if err := i.Take("v2"); err != nil {
		t.Fatal(err)
	}
	if n := len(i.take.Down); n < 700 || i.take.Down[n-1] != down[n-1] || len(i.take.Failed.Why) != whyMax {
		t.Errorf("%d names, a reason of %d bytes", n, len(i.take.Failed.Why))
	}
}

func TestNamesThatFit(t *testing.T) {
	names := []string{"a/b", "a/c", "a/d"} // six bytes each, with quotes and a comma
	for room, want := range map[int]int{0: 0, 5: 0, 6: 1, 17: 2, 18: 3, 99: 3} {
		if got := fitting(names, room); len(got) != want {
			t.Errorf("%d bytes: %v, want %d names", room, got, want)
		}
	}
}

// A successor has a loop for each socket that it is handed, however many processors there are for it by now; so has the next one after it.
func TestASuccessorHasTheLoopsOfTheFormerAgent(t *testing.T) {
	for loops := 1; loops <= 5; loops += 2 {
		log := slog.New(slog.DiscardHandler)
		n := &Node{machine: state.New(), inherited: &Inheritance{take: take{Loops: loops}}, checker: healthcheck.New(log)}
		if err := n.openEdges(Options{Config: &config.Node{Name: "lb1", Role: config.Balancer}, Guard: &stillGuard{}, Log: log}); err != nil {
			t.Fatal(err)
		}
		if got := len(n.engine.Stats().Loops); got != loops || n.loops != loops {
			t.Errorf("after %d loops: %d in the engine, %d for the guard and whoever follows", loops, got, n.loops)
		}
		ended, end := context.WithCancel(t.Context())
		end()
		if err := n.engine.Run(ended); err != nil {
			t.Error(err)
		}
	}
}

// A newer version says more than this one knows, before it is ready and in that.
func TestASuccessorMaySayMore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "newer")
	text := "#!/bin/bash\nprintf '{\"mood\":\"good\"}' >&3\nprintf '{\"ready\":{\"version\":\"v9\",\"guard\":%d,\"level\":3,\"colour\":1}}' >&3\nexec sleep 60\n"
	if err := os.WriteFile(path, fmt.Appendf(nil, text, vip.Protocol), 0o755); err != nil {
		t.Fatal(err)
	}
	h, err := startHeir(t.Context(), path, []string{path})
	if err != nil {
		t.Fatal(err)
	}
	h.kill()
	if h.version != "v9" || h.level != 3 || h.heartbeats != (vip.Formats{}) {
		t.Errorf("%+v", h)
	}
}

// What is started and does not speak is an error that says what it was, and leaves no process.
func TestProcessesThatCannotFollow(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct{ name, text, want string }{
		{"missing", "", "no such file"},
		{"ends", "#!/bin/sh\nexit 7\n", "exit status 7"},
		{"no program", "not a program", "exec format error"},
		{"another guard", "#!/bin/bash\nprintf '{\"ready\":{\"version\":\"v9\",\"pid\":1,\"guard\":99}}' >&3\nexec sleep 60\n", "speaks protocol 99"},
		{"refuses", "#!/bin/bash\nprintf '{\"problem\":\"node.hcl has mistakes\"}' >&3\nexec sleep 60\n", "node.hcl has mistakes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(dir, strings.ReplaceAll(c.name, " ", "-"))
			if c.text != "" {
				if err := os.WriteFile(path, []byte(c.text), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			h, err := startHeir(t.Context(), path, []string{path})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%+v, %v; want %q", h, err, c.want)
			}
		})
	}
}
